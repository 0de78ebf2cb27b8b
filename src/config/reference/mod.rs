//! The reference of the configuration, made from the types' own doc comments.
//!
//! 1. [`parse`] reads the sources of the config types: structs, fields, doc comments, names of variants;
//! 2. defaults come from the types themselves, serialised; examples from one example configuration;
//! 3. [`markdown()`] writes `docs/config.md`, [`commented_toml`] writes `config/posthaste.toml`.
//!
//! A test writes both with `UPDATE=1` and fails when the committed ones differ.

mod markdown;
mod parse;
mod toml_file;

use std::sync::LazyLock;

use serde_json::Value;

pub use markdown::markdown;
pub use toml_file::commented_toml;

use parse::{FieldDoc, TypeDoc};

/// One example of everything: values for what has no default. It is the operator's contract in one file.
const EXAMPLE: &str = r#"
hostname = "mta1.example.com"
data_dir = "/var/lib/posthaste"
include = ["providers.toml"]

[[smtp.listeners]]
address = "127.0.0.1:587"
role = "submission"
tls = "starttls"
relay_from = ["127.0.0.0/8"]

[tls]
certificate_file = "tls/cert.pem"
key_file = "tls/key.pem"

[http]
address = "127.0.0.1:8025"
api_keys = [{ name = "ops", sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", role = "admin" }]

[public]
address = "0.0.0.0:8080"
url = "https://links.example.com"

[[tenants]]
name = "acme"
domains = ["acme.example"]
bounce_domain = "bounce.acme.example"
pool = "marketing"
pools = ["marketing"]
class = "transactional"
smtp_users = [{ name = "app", password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQxMjM0NTY$kWVNIFQBiBHc6QHwPpNOxv0VB0x3c5Rr0n6Ig3CIIBo" }]
api_keys = [{ name = "crm", sha256 = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100", role = "send" }]
quota = { queued_messages = 1000000, queued_bytes = "10GiB", per_day = 2000000, submission_rate = "1000/s" }

[[dkim]]
domain = "acme.example"
selector = "s1"
algorithm = "rsa-sha256"
key_file = "dkim/acme-s1.pem"
sign_for = ["*"]
active_from = "2026-12-01T00:00:00Z"

[[sources]]
name = "ip1"
address = "192.0.2.10"
ehlo = "mta1.example.com"
connections = 1000
message_rate = "200/s"

[[pools]]
name = "marketing"
sources = [{ name = "ip1", weight = 1 }]

[routes."sink.test"]
hosts = ["127.0.0.1:2626"]
tls = "opportunistic"
username = "user"
password_file = "credential:smart-host"
connection_rate = "60/min"
message_rate = "100/s"

[dns]
resolvers = ["127.0.0.1:53"]

[bounces]
suppress = true
postmaster = "ops@example.com"
report_addresses = ["dmarc@bounce.example.com"]

[alerts]
mail_to = ["ops@example.com"]
mail_from = "posthaste@mta1.example.com"
mail_server = "smtp.example.net:587"
mail_username = "posthaste"
mail_password_file = "credential:alerts"

[check]
rspamd = "http://127.0.0.1:11333"
spamassassin = "127.0.0.1:783"
spam_threshold = 5.0

[providers."regional"]
mx = ["mail.example.org"]
domains = ["example.org"]
connections = 10
connection_rate = "60/min"
message_rate = ["5/s", "5000/h"]
messages_per_connection = 50
recipients_per_message = 50
tls = "required"

[shaping.sites."google.com"]
connections = 20
connection_rate = "60/min"
message_rate = "50/s"
messages_per_connection = 50

[shaping.domains."example.org"]
connections = 2
connection_rate = "10/min"
message_rate = "5/s"
messages_per_connection = 20

[[webhooks]]
name = "crm"
tenant = "acme"
url = "https://crm.example.com/hooks/mail"
secret_file = "webhooks/crm.secret"
authorization_file = "webhooks/crm.authorization"
events = ["bounced", "complained", "unsubscribed"]

[limits.node]
message_rate = "500/s"
bytes_per_second = "50MB"

[limits.tenants."acme"]
message_rate = ["20/s", "200000/d"]
bytes_per_second = "5MB"

[limits.pools."marketing"]
message_rate = "100/s"
bytes_per_second = "20MB"

[adaptation]
ceiling = "6000/min"

[[rules]]
name = "example-rate"
providers = ["google"]
phases = ["rcpt", "final"]
codes = ["4xx"]
enhanced = ["x.7.28"]
pattern = 'unusual rate .* (?<source>your IP)'
class = "rate"
scope = "named"
treat_as = "temporary"
actions = [{ do = "slow", rate = "10/min", for = "1h" }, { do = "hold", for = "30m", after = 2, within = "1h" }]
examples = ["421 4.7.28 an unusual rate of mail from your IP"]
"#;

/// What the types have in them, by name.
static TYPES: LazyLock<Vec<TypeDoc>> = LazyLock::new(|| {
    [
        include_str!("../mod.rs"),
        include_str!("../bounces.rs"),
        include_str!("../limits.rs"),
        include_str!("../node.rs"),
        include_str!("../smtp.rs"),
        include_str!("../tenants.rs"),
        include_str!("../delivery.rs"),
        include_str!("../adaptation.rs"),
        include_str!("../alerts.rs"),
        include_str!("../rules.rs"),
        include_str!("../webhooks.rs"),
        include_str!("../../types/queue_key.rs"),
    ]
    .into_iter()
    .flat_map(parse::parse)
    .collect()
});

/// The headers of the tables that know `key`, as `[smtp]`; the top of the file is `the top of the file`.
pub(super) fn tables_with(key: &str) -> Vec<String> {
    let with_key = sections().into_iter().filter(|section| section.ty.fields.iter().any(|field| field.name == key));
    with_key.map(|s| if s.header.is_empty() { "the top of the file".into() } else { s.header }).collect()
}

/// The names of the fields whose type names `part`.
#[cfg(test)]
pub(super) fn fields_of_type(part: &str) -> Vec<String> {
    TYPES.iter().flat_map(|t| &t.fields).filter(|f| f.ty.contains(part)).map(|f| f.name.clone()).collect()
}

/// How a field is written in the file.
enum Shape {
    /// `key = value`, tables within it inline.
    Value,
    /// `[key]`
    Table(&'static TypeDoc),
    /// `[[key]]`
    Tables(&'static TypeDoc),
    /// `[key."NAME"]`
    Named(&'static TypeDoc),
}

/// Types that are written inline, inside the table that holds them.
const INLINE: [&str; 5] = ["ApiKey", "SmtpUser", "PoolSource", "Quota", "RuleAction"];

fn type_doc(name: &str) -> Option<&'static TypeDoc> {
    TYPES.iter().find(|t| t.name == name)
}

/// The type inside `Option`, `Vec` or `BTreeMap<_, …>`, and which of `Vec` (`[`) and map (`{`) it was.
fn inner(ty: &str) -> (&str, char) {
    if let Some(rest) = ty.strip_prefix("Option<").and_then(|t| t.strip_suffix('>')) {
        return (rest, ' ');
    }
    if let Some(rest) = ty.strip_prefix("Vec<").and_then(|t| t.strip_suffix('>')) {
        return (rest, '[');
    }
    if let Some((_, rest)) =
        ty.strip_prefix("BTreeMap<").and_then(|t| t.strip_suffix('>')).and_then(|t| t.split_once(", "))
    {
        return (rest, '{');
    }
    (ty, ' ')
}

fn shape(field: &FieldDoc) -> Shape {
    let (name, container) = inner(&field.ty);
    match type_doc(name).filter(|t| !t.fields.is_empty() && !INLINE.contains(&name)) {
        None => Shape::Value,
        Some(doc) => match container {
            '[' => Shape::Tables(doc),
            '{' => Shape::Named(doc),
            _ => Shape::Table(doc),
        },
    }
}

/// A section of the file: a table, with where it stands in defaults and example.
struct Section {
    /// The header, as `[smtp]`, `[[smtp.listeners]]`, `[routes."sink.test"]`; empty for the top of the file.
    header: String,
    /// What the operator reads about it.
    doc: String,
    ty: &'static TypeDoc,
    defaults: Value,
    example: Value,
}

/// All sections in the order of the types.
fn sections() -> Vec<Section> {
    let defaults = serde_json::to_value(super::Config::default()).unwrap_or_default();
    let example = toml::from_str::<Value>(EXAMPLE).unwrap_or_default();
    let mut out = Vec::new();
    if let Some(root) = type_doc("Config") {
        collect(&mut out, "", String::new(), root, defaults, example);
    }
    out
}

fn collect(out: &mut Vec<Section>, path: &str, doc: String, ty: &'static TypeDoc, defaults: Value, example: Value) {
    let header = if path.is_empty() { String::new() } else { format!("[{path}]") };
    add(out, header, path, doc, ty, defaults, example);
}

fn add(
    out: &mut Vec<Section>,
    header: String,
    path: &str,
    doc: String,
    ty: &'static TypeDoc,
    defaults: Value,
    example: Value,
) {
    out.push(Section { header, doc, ty, defaults: defaults.clone(), example: example.clone() });
    let under = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for field in &ty.fields {
        let path = under(&field.name);
        let example = example[&field.name].clone();
        match shape(field) {
            Shape::Value => {}
            Shape::Table(ty) => {
                let mut defaults = defaults[&field.name].clone();
                if defaults.is_null() {
                    defaults = defaults_of(&ty.name, &example);
                }
                collect(out, &path, field.doc.clone(), ty, defaults, example);
            }
            Shape::Tables(ty) => {
                let example = example[0].clone();
                let defaults = defaults_of(&ty.name, &example);
                add(out, format!("[[{path}]]"), &path, field.doc.clone(), ty, defaults, example);
            }
            Shape::Named(ty) => {
                let Some((name, example)) = example.as_object().and_then(|map| map.iter().next()) else { continue };
                let defaults = defaults_of(&ty.name, example);
                collect(out, &format!("{path}.{name:?}"), field.doc.clone(), ty, defaults, example.clone());
            }
        }
    }
}

/// The defaults of a type that has required keys: those are taken from the example and no others.
fn defaults_of(name: &str, example: &Value) -> Value {
    fn fill<T: serde::de::DeserializeOwned + serde::Serialize>(name: &str, example: &Value) -> Value {
        let required = type_doc(name).into_iter().flat_map(|t| &t.fields).filter(|f| f.required);
        let minimal: serde_json::Map<String, Value> =
            required.map(|f| (f.name.clone(), example[&f.name].clone())).collect();
        let filled = serde_json::from_value::<T>(Value::Object(minimal)).ok();
        filled.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
    }
    match name {
        "Listener" => fill::<super::Listener>(name, example),
        "Tls" => fill::<super::Tls>(name, example),
        "Http" => fill::<super::Http>(name, example),
        "Public" => fill::<super::Public>(name, example),
        "Tenant" => fill::<super::Tenant>(name, example),
        "DkimKey" => fill::<super::DkimKey>(name, example),
        "Source" => fill::<super::Source>(name, example),
        "Pool" => fill::<super::Pool>(name, example),
        "PoolSource" => fill::<super::PoolSource>(name, example),
        "Route" => fill::<super::Route>(name, example),
        "ReplyRule" => fill::<super::ReplyRule>(name, example),
        "Webhook" => fill::<super::Webhook>(name, example),
        "LimitRule" => fill::<super::LimitRule>(name, example),
        "SmtpUser" => fill::<super::SmtpUser>(name, example),
        "ApiKey" => fill::<super::ApiKey>(name, example),
        "Quota" => fill::<super::Quota>(name, example),
        _ => Value::Null,
    }
}

/// Whether a default says nothing: no value, an empty text or an empty list.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(says_nothing),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A value as TOML writes it on one line.
fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        // A JSON string is a basic string of TOML: both escape the same way.
        Value::String(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries = map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("{k} = {}", toml_value(v)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}
