//! The reference in prose, `docs/config.md`.

use std::fmt::Write;

use serde_json::Value;

use super::parse::{FieldDoc, TypeDoc};
use super::{Shape, defaults_of, inner, says_nothing, sections, shape, toml_value, type_doc};

const HEAD: &str = r#"# The configuration

Made from the source by `UPDATE=1 cargo test --test it generated`; `posthaste config reference` prints it.
The same as a file to edit is `config/posthaste.toml`.

**The file** is TOML 1.0. Unknown keys are errors, with file, line, column and the nearest known key. `posthaste check
--config FILE` tells everything that is wrong at once, as `file:line:column: key: message`.

**Values.** A *duration* is a number with `ms`, `s`, `m`, `h`, `d` or `w`, and parts add up: `"1h30m"`. A *size* is a number of
octets, alone or with `KB`, `MB`, `GB` (thousands) or `KiB`, `MiB`, `GiB` (1,024s): `"25MiB"`. A *rate* is a number and `/s`, `/min`,
`/h` or `/d`: `"100/min"`. A *name* has 1 to 64 letters, digits, `.`, `_` and `-`.

**Files.** A relative path starts at the file that names it. Key and password files must not be open to group or world. In place
of a file name, `"credential:NAME"` takes `$CREDENTIALS_DIRECTORY/NAME`, which systemd provides by `LoadCredential=NAME:/path`
(any mode is right there).

**Includes.** `include = ["providers.toml"]` reads further files, relative to the one that names them. Tables join, arrays of tables
follow each other, and any other key given twice is an error that names both places.

**What is implied.** Without `[[sources]]`, one named `default` leaves the address to the system; without `[[pools]]`, one named
`default` has all sources; without `[[tenants]]`, one named `default` may send from every domain. A tenant without a pool gets the
first. Without `[http]` there is no HTTP listener (the control socket in `data_dir` is always there). What `[shaping.default]`
leaves out keeps its built-in value.

**Reloading.** `posthaste reload` and SIGHUP read everything again and swap it in one step, or keep the old configuration and say why. These
keys apply only after a restart, and a reload names those that changed: `hostname`, `data_dir`, `durability`, `log.format`, `dns`, `public`,
address, role and TLS mode of listeners, `http.address`, `http.max_connections`, `delivery.max_unsettled`, `storage.cache`,
`storage.content_cache`, `storage.window_entries`. A reload that takes away a tenant or pool with queued mail is refused,
naming the count.
"#;

/// `docs/config.md`: every table, every key.
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    for section in sections() {
        let title = if section.header.is_empty() { "Top level".to_owned() } else { format!("`{}`", section.header) };
        let _ = writeln!(out, "\n## {title}\n");
        if !section.doc.is_empty() {
            let _ = writeln!(out, "{}\n", section.doc);
        }
        for field in &section.ty.fields {
            match shape(field) {
                Shape::Value => {
                    write_field(&mut out, "", field, &section.defaults[&field.name], &section.example[&field.name]);
                }
                Shape::Table(_) | Shape::Tables(_) | Shape::Named(_) => {}
            }
        }
        if section.ty.fields.iter().all(|field| !matches!(shape(field), Shape::Value)) {
            out.push_str("Only the tables below.\n");
        }
    }
    out
}

fn write_field(out: &mut String, indent: &str, field: &FieldDoc, default: &Value, example: &Value) {
    let (name, container) = inner(&field.ty);
    let ty = type_doc(name);
    let given = if field.required {
        ", required".to_owned()
    } else if says_nothing(default) {
        String::new()
    } else {
        format!(", default `{}`", toml_value(default))
    };
    let _ = writeln!(out, "{indent}- **`{}`** ({}{given}): {}", field.name, words(name, container, ty), field.doc);
    for variant in ty.iter().flat_map(|t| &t.variants) {
        let _ = writeln!(out, "{indent}  - `{:?}`: {}", variant.name, variant.doc);
    }
    if let Some(entries) = ty.filter(|t| !t.fields.is_empty()) {
        let example = if example.is_array() { &example[0] } else { example };
        let defaults = defaults_of(&entries.name, example);
        for field in &entries.fields {
            write_field(out, &format!("{indent}  "), field, &defaults[&field.name], &example[&field.name]);
        }
    }
}

/// The type in an operator's words.
fn words(name: &str, container: char, ty: Option<&TypeDoc>) -> String {
    let one = match name {
        "String" => "text",
        "PathBuf" => "path",
        "bool" => "true or false",
        "u16" | "u32" | "u64" | "f64" => "number",
        "HumanDuration" => "duration",
        "ByteSize" => "size",
        "Rate" => "rate",
        "SocketAddr" => "address and port",
        "IpAddr" => "address",
        "IpNet" => "network",
        "Domain" => "domain",
        "Name" => "name",
        _ => match ty {
            Some(ty) if !ty.variants.is_empty() => "one of these",
            Some(_) => "table",
            None => name,
        },
    };
    if container == '[' { format!("list of: {one}") } else { one.to_owned() }
}
