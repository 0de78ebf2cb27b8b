//! Each check with a configuration that breaks it: `check(toml, what must be said)`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::{Config, Environment, Problem, load_with};

/// What every configuration needs.
const BASE: &str = "hostname = 'mta.example'\ndata_dir = 'data'\nhttp.max_connections = 9\n";

/// A folder with the files that configurations of these tests name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = rcgen::CertificateParams::new(vec!["mta.example".to_owned()]).expect("parameters");
        let certificate = certificate.self_signed(&pair).expect("a certificate");
        folder.write("ed25519.pem", &ed25519.serialize_pem(), 0o600);
        folder.write("open.pem", &ed25519.serialize_pem(), 0o640);
        folder.write("cert.pem", &certificate.pem(), 0o644);
        folder.write("key.pem", &pair.serialize_pem(), 0o600);
        folder.write("password", "secret\n", 0o600);
        folder.write("empty", "\n", 0o600);
        folder.write("junk.pem", "no key\n", 0o600);
        folder
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let file = self.path().join(name);
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("its mode");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The configuration, or what is wrong with it, and the warnings: each as `line:column: key: message`, counted from
    /// after the base, files of this folder by name alone.
    fn load(&self, base: &str, toml: &str, environment: &Environment) -> (Option<Config>, Vec<String>, Vec<String>) {
        let file = self.path().join("posthaste.toml");
        std::fs::write(&file, format!("{base}{toml}")).expect("written");
        let folder = format!("{}/", self.path().display());
        let base_lines = base.lines().count() as u32;
        let told = |problems: &[Problem]| -> Vec<String> {
            let short = problems.iter().map(|problem| {
                let line = if problem.file == file { problem.line.saturating_sub(base_lines) } else { problem.line };
                Problem { hint: None, line, ..problem.clone() }
            });
            short.map(|p| p.to_string().replace(&folder, "").replace("posthaste.toml:", "")).collect()
        };
        match load_with(&file, environment) {
            Ok((config, warnings)) => (Some(config), Vec::new(), told(&warnings)),
            Err(errors) => (None, told(&errors.errors), told(&errors.warnings)),
        }
    }
}

/// What must be said of `toml` behind the base.
fn check(toml: &str, want: &[&str]) {
    let (_, errors, _) = Folder::new().load(BASE, toml, &Environment::default());
    assert_eq!(errors, want, "{toml}");
}

/// What must be said of a whole file.
fn check_whole(toml: &str, want: &[&str]) {
    let (_, errors, _) = Folder::new().load("", toml, &Environment::default());
    assert_eq!(errors, want, "{toml}");
}

/// What must be warned of, without an error.
fn check_warnings(toml: &str, want: &[&str]) {
    let (config, errors, warnings) = Folder::new().load(BASE, toml, &Environment::default());
    assert!(config.is_some(), "errors: {errors:#?}");
    assert_eq!(warnings, want, "{toml}");
}

fn hint(toml: &str) -> String {
    let folder = Folder::new();
    let file = folder.path().join("posthaste.toml");
    std::fs::write(&file, format!("{BASE}{toml}")).expect("written");
    let errors = load_with(&file, &Environment::default()).expect_err("wrong");
    errors.errors[0].hint.clone().unwrap_or_default()
}

#[test]
fn the_base_is_right() {
    check_warnings("", &[]);
}

#[test]
fn unknown_keys_are_told_with_the_nearest() {
    check(
        "hostnmae = 1\n[retry]\nexpires_after = '4d'\n[[sources]]\nname = 'a'\nadress = '::1'\n",
        &["1:1: hostnmae: unknown key", "3:1: retry.expires_after: unknown key", "6:1: sources[0].adress: unknown key"],
    );
    assert_eq!(hint("hostnmae = 1"), "did you mean `hostname`?");
    assert_eq!(hint("[retry]\nexpires_after = '4d'"), "did you mean `expire_after`?");
    assert_eq!(hint("max_message_size = 1"), "`max_message_size` belongs into [smtp]");
    assert_eq!(hint("[retry]\nhostname = 'x'"), "`hostname` belongs into the top of the file");
    assert_eq!(
        hint("[tls]\nzzz = 1\ncertificate_file = 'cert.pem'\nkey_file = 'key.pem'"),
        "known here: certificate_file, key_file"
    );
}

#[test]
fn every_wrong_value_is_told_at_once() {
    check(
        "durability = 'fsink'\n[smtp]\nmax_recipients = -1\nmax_message_size = '5 apples'\n\
         [[smtp.listeners]]\naddress = 'localhost'\n[[smtp.listeners]]\nrole = 'relay'\n\
         [retry]\nschedule = ['1m', 5, '2x']\n[routes.'a b']\nhosts = 3\n[shaping.domains.'-x']\n",
        &[
            "1:14: durability: \"fsink\" is not one of fsync, os",
            "3:18: smtp.max_recipients: expected a number from 0 to 4294967295, found integer `-1`",
            "4:20: smtp.max_message_size: \"5 apples\" is not a size: a number, alone or with KB, MB, GB, KiB, MiB or GiB",
            "6:11: smtp.listeners[0].address: not an address with its port, as \"127.0.0.1:25\" or \"[::1]:25\"",
            "7:1: smtp.listeners[1]: the key `address` is missing",
            "10:19: retry.schedule[1]: expected a string, found integer `5`",
            "10:22: retry.schedule[2]: \"2x\" is not a duration: a number with ms, s, m, h, d or w, as \"5m\" or \"1h30m\"",
            "12:9: routes.\"a b\".hosts: expected an array, found integer `3`",
            "13:18: shaping.domains.-x: the domain is not a valid host name",
        ],
    );
    assert_eq!(hint("durability = 'fsink'"), "did you mean \"fsync\"?");
}

#[test]
fn syntax_errors_have_their_place() {
    let (_, errors, _) = Folder::new().load(BASE, "[retry\n", &Environment::default());
    assert!(errors[0].starts_with("1:7: "), "{errors:?}");
    let (_, errors, _) = Folder::new().load(BASE, "hostname = 'again'\n", &Environment::default());
    assert_eq!(errors, ["1:1: duplicate key"]);
}

#[test]
fn the_node_needs_a_name_and_a_folder() {
    check_whole("[http]\n", &["1:1: hostname: the host name is missing", "1:1: data_dir: the data folder is missing"]);
    check_whole(
        "hostname = 'a..b'\ndata_dir = 'password'\n",
        &["1:12: hostname: \"a..b\": the domain is not a valid host name", "2:12: data_dir: password is not a folder"],
    );
    check(
        "[log]\nlevel = 'posthaste=loud'",
        &[
            "2:9: log.level: \"posthaste=loud\" is not a level: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5",
        ],
    );
}

#[test]
fn links_want_tls() {
    check_warnings("[public]\naddress = '0.0.0.0:8080'\nurl = 'https://links.example.com'\n", &[]);
    check_warnings(
        "[public]\naddress = '0.0.0.0:8080'\nurl = 'http://links.example.com'\n",
        &["3:7: public.url: links without TLS"],
    );
}

#[test]
fn listeners_do_not_clash() {
    check(
        "[[smtp.listeners]]\naddress = '127.0.0.1:25'\n[[smtp.listeners]]\naddress = '127.0.0.1:25'\n\
         [[smtp.listeners]]\naddress = '127.0.0.1:26'\n\
         [public]\naddress = '0.0.0.0:25'\nurl = 'ftp://x'\n[[smtp.listeners]]\naddress = '[::]:25'\n",
        &[
            "4:11: smtp.listeners[1].address: 127.0.0.1:25 clashes with 127.0.0.1:25 of smtp.listeners[0].address",
            "8:11: public.address: 0.0.0.0:25 clashes with 127.0.0.1:25 of smtp.listeners[0].address",
            "9:7: public.url: \"ftp://x\": not an http or https URL",
        ],
    );
    check_whole(
        "hostname = 'a.example'\ndata_dir = 'd'\n[http]\n[[smtp.listeners]]\naddress = '127.0.0.1:8025'\n",
        &["3:2: http.address: 127.0.0.1:8025 clashes with 127.0.0.1:8025 of smtp.listeners[0].address"],
    );
}

#[test]
fn listeners_need_what_they_offer() {
    check(
        "[[smtp.listeners]]\naddress = '127.0.0.1:25'\ntls = 'starttls'\nrelay_from = ['10.0.0.0/8', '0.0.0.0/0']\n\
         [[smtp.listeners]]\naddress = '127.0.0.1:26'\nrole = 'bounce'\nrelay_from = ['10.0.0.0/8']\n",
        &[
            "3:7: smtp.listeners[0].tls: TLS needs a certificate, and there is no [tls]",
            "4:29: smtp.listeners[0].relay_from[1]: 0.0.0.0/0 is everybody: this would be an open relay",
            "8:1: smtp.listeners[1].relay_from: a bounce listener takes only bounces",
        ],
    );
    check_warnings(
        "[[smtp.listeners]]\naddress = '127.0.0.1:25'\n",
        &[
            "1:1: smtp.listeners[0]: nobody can send by 127.0.0.1:25: there is no relay_from, and no tenant has smtp_users",
        ],
    );
}

#[test]
fn names_lead_somewhere_and_are_unique() {
    check(
        "[[sources]]\nname = 'ip1'\n[[sources]]\nname = 'ip1'\nehlo = 'a b'\n\
         [[pools]]\nname = 'bulk'\nsources = [{ name = 'ip2' }, { name = 'ip1', weight = 0 }]\n\
         [[pools]]\nname = 'bulk'\nsources = [{ name = 'ip1', weight = 0 }]\n\
         [[tenants]]\nname = 'acme'\npool = 'bulkk'\npools = ['bulk', 'bulck']\n[[tenants]]\nname = 'acme'\n",
        &[
            "4:8: sources[1].name: there is another source \"ip1\"",
            "5:8: sources[1].ehlo: \"a b\": the domain is not a valid host name",
            "8:21: pools[0].sources[0].name: there is no source \"ip2\"",
            "10:8: pools[1].name: there is another pool \"bulk\"",
            "11:1: pools[1].sources: no source of this pool has a weight",
            "14:8: tenants[0].pool: there is no pool \"bulkk\"",
            "15:18: tenants[0].pools[1]: there is no pool \"bulck\"",
            "17:8: tenants[1].name: there is another tenant \"acme\"",
        ],
    );
    // What could not be read is not said to be missing as well.
    check(
        "[[sources]]\nname = 'a b'\n[[pools]]\nname = 'p'\nsources = [{ name = 'ip1' }]\n",
        &["2:8: sources[0].name: a name has only letters, digits, '.', '_' and '-', and begins with a letter or digit"],
    );
}

#[test]
fn users_and_keys() {
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let good = "ab".repeat(32);
    check(
        &format!(
            "[[tenants]]\nname = 'a'\nsmtp_users = [\n{{ name = 'app', password_hash = 'secret' }},\n\
             {{ name = 'app', password_hash = '$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo' }},\n]\n\
             api_keys = [\n{{ name = 'k1', sha256 = 'xyz', role = 'send' }},\n\
             {{ name = 'k2', sha256 = '{nothing}', role = 'admin' }},\n{{ name = 'k3', sha256 = '{good}', role = 'read' }},\n\
             {{ name = 'k4', sha256 = '{good}', role = 'read' }},\n]\n"
        ),
        &[
            "4:33: tenants[0].smtp_users[0].password_hash: not a PHC string such as \"$argon2id$v=19$…\"",
            "5:10: tenants[0].smtp_users[1].name: there is another user \"app\"",
            "5:33: tenants[0].smtp_users[1].password_hash: argon2i is not argon2id",
            "8:25: tenants[0].api_keys[0].sha256: not a SHA-256 in hexadecimal (64 digits)",
            "9:25: tenants[0].api_keys[1].sha256: this is the SHA-256 of nothing: no key is this key",
            "9:100: tenants[0].api_keys[1].role: \"admin\" is not a role of a tenant",
            "11:25: tenants[0].api_keys[3].sha256: another entry has the same key",
        ],
    );
    check_whole(
        &format!(
            "hostname = 'a.example'\ndata_dir = 'd'\n[http]\napi_keys = [{{ name = 'k', sha256 = '{good}', role = 'send' }}]\n"
        ),
        &["4:111: http.api_keys[0].role: \"send\" is not a role of the node"],
    );
}

#[test]
fn files_must_fit_and_be_private() {
    check("[tls]\ncertificate_file = 'cert.pem'\nkey_file = 'key.pem'\n", &[]);
    check(
        "[tls]\ncertificate_file = 'none.pem'\nkey_file = 'junk.pem'\n",
        &[
            "2:20: tls.certificate_file: can't read none.pem: no such file",
            "3:12: tls.key_file: junk.pem holds no private key in PEM form",
        ],
    );
    check(
        "[tls]\ncertificate_file = 'cert.pem'\nkey_file = 'open.pem'\n",
        &[
            "3:12: tls.key_file: others can read open.pem (mode 0640)",
            "3:12: tls.key_file: the key does not belong to the certificate",
        ],
    );
    check(
        "[tls]\ncertificate_file = 'credential:cert'\nkey_file = 'key.pem'\n",
        &["2:20: tls.certificate_file: $CREDENTIALS_DIRECTORY is not set, so there are no credentials"],
    );
}

#[test]
fn credentials_come_from_the_service_manager() {
    let folder = Folder::new();
    let environment = Environment { credentials_dir: Some(folder.path().to_owned()) };
    let toml = "[[dkim]]\ndomain = 'a.example'\nselector = 's1'\nalgorithm = 'ed25519-sha256'\nkey_file = 'credential:open.pem'\n";
    let (config, errors, _) = folder.load(BASE, toml, &environment);
    assert_eq!(errors, [""; 0], "the service manager's files may have any mode");
    assert_eq!(config.map(|c| c.dkim[0].key_file.clone()), Some(folder.path().join("open.pem")));
    let (_, errors, _) = folder.load(BASE, &toml.replace("open.pem", "../open.pem"), &environment);
    assert_eq!(errors, ["5:12: dkim[0].key_file: not the name of a credential"]);
}

#[test]
fn dkim_keys() {
    let key = |selector: &str, algorithm: &str, file: &str, more: &str| {
        format!(
            "[[dkim]]\ndomain = 'a.example'\nselector = '{selector}'\nalgorithm = '{algorithm}'\nkey_file = '{file}'\n{more}\n"
        )
    };
    check(
        &key(
            "s1",
            "ed25519-sha256",
            "ed25519.pem",
            "sign_for = ['*', 'b.example', '*.c.example']\nactive_from = '2026-11-23T00:00:00Z'",
        ),
        &[],
    );
    check(
        &[
            key("s1", "rsa-sha256", "ed25519.pem", "sign_for = ['a b']"),
            key("s1", "ed25519-sha256", "ed25519.pem", "active_from = 'today'"),
            key("S 2", "ed25519-sha256", "open.pem", ""),
        ]
        .concat(),
        &[
            "5:12: dkim[0].key_file: ed25519.pem holds a key of another kind (ED25519)",
            "6:13: dkim[0].sign_for[0]: \"a b\": the domain is not a valid host name",
            "9:12: dkim[1].selector: a.example has another key with selector \"s1\"",
            "12:15: dkim[1].active_from: \"today\" is not a time",
            "15:12: dkim[2].selector: \"S 2\" is not a selector",
            "17:12: dkim[2].key_file: others can read open.pem (mode 0640)",
        ],
    );
}

#[test]
fn routes() {
    check(
        "[routes.'*.b.example']\nhosts = ['127.0.0.1:2626', 'localhost']\nusername = 'u'\npassword_file = 'password'\n\
         [routes.'*']\nhosts = ['mx.example:x', 'mx2.example']\nusername = 'u'\npassword_file = 'empty'\n\
         [routes.'*a']\nhosts = []\nusername = 'u'\nimplicit_tls = true\ntls = 'none'\nconnections = 0\n",
        &[
            "5:9: routes.\"*\".tls: the password would travel without TLS",
            "6:10: routes.\"*\".hosts[0]: \"mx.example:x\" is not a host: the port must be a number from 1 to 65535",
            "8:17: routes.\"*\".password_file: empty must hold one line: the password",
            "9:9: routes.\"*a\": \"*a\": the domain is not a valid host name",
            "10:1: routes.\"*a\".hosts: a route needs a host",
            "11:12: routes.\"*a\".username: a user without password_file",
            "12:16: routes.\"*a\".implicit_tls: implicit TLS with tls = \"none\"",
            "14:15: routes.\"*a\".connections: 0 would hold mail for ever",
        ],
    );
}

#[test]
fn retries_and_limits() {
    check(
        "[retry]\nschedule = []\n[delivery]\nmax_unsettled = 0\nport = 0\n[smtp]\nmax_message_size = 1\nsession_timeout = '0s'\n",
        &[
            "2:1: retry.schedule: no delay",
            "4:17: delivery.max_unsettled: 0 is too small",
            "5:8: delivery.port: 0 is too small",
            "7:20: smtp.max_message_size: 1 is too small",
            "8:19: smtp.session_timeout: 0 leaves no time at all",
        ],
    );
    check(
        "[retry]\nschedule = ['1h']\nexpire_after = '30m'\n[shaping.default]\nconnections = 0\nmessage_rate = '0/s'\n",
        &[
            "3:16: retry.expire_after: 30m is less than the first delay, 1h: nothing would be tried again",
            "5:15: shaping.default.connections: 0 would hold mail for ever",
            "6:16: shaping.default.message_rate: \"0/s\": a rate of 0 would hold mail for ever; suspend the queue instead",
        ],
    );
    check(
        "[limits.node]\nbytes_per_second = 0\n[limits.tenants.nobody]\nmessage_rate = '5/s'\n[limits.pools.nowhere]\nmessage_rate = ['5/s', '0/d']\n",
        &[
            "2:20: limits.node.bytes_per_second: 0 would hold mail for ever",
            "3:17: limits.tenants.nobody: there is no tenant \"nobody\"",
            "5:15: limits.pools.nowhere: there is no pool \"nowhere\"",
            "6:1: limits.pools.nowhere.message_rate: \"0/d\": a rate of 0 would hold mail for ever; suspend the queue instead",
        ],
    );
}

#[test]
fn warnings() {
    check_warnings(
        "[[tenants]]\nname = 'acme'\ndomains = ['acme.example', '*']\n[retry]\nexpire_after = '2d'\n",
        &[
            "1:1: tenants[0]: tenant acme has no bounce_domain: late bounces go to the submitter, unread by us",
            "3:12: tenants[0].domains[0]: acme.example of tenant acme has no DKIM key: large receivers refuse its mail",
            "5:16: retry.expire_after: 2d is less than the 4 to 5 days that RFC 5321 §4.5.4.1 asks for",
        ],
    );
    let (_, errors, warnings) = Folder::new().load(
        "",
        "hostname = 'mta'\ndata_dir = 'd'\nhttp.address = '0.0.0.0:80'\n",
        &Environment::default(),
    );
    assert_eq!(errors, [""; 0]);
    assert_eq!(
        warnings,
        [
            "1:12: hostname: \"mta\" is not a full name",
            "3:16: http.address: 0.0.0.0:80 can be reached from outside, without TLS",
        ]
    );
}

#[test]
fn what_is_left_out_is_implied() {
    let (config, _, _) = Folder::new().load(BASE, "[shaping.default]\nconnections = 3\n", &Environment::default());
    let config = config.expect("valid");
    let tenant = &config.tenants[0];
    assert_eq!((tenant.name.as_str(), tenant.domains.as_slice()), ("default", &["*".to_owned()][..]));
    assert_eq!(tenant.pool.as_ref().map(|p| p.as_str()), Some("default"));
    assert_eq!(config.pools[0].sources[0].name.as_str(), "default");
    assert_eq!(config.shaping.default.connections, Some(3));
    assert!(config.shaping.default.message_rate.is_some(), "one limit does not lift the others");
    let (config, _, _) = Folder::new().load(
        BASE,
        "[[sources]]\nname = 'x'\n[[sources]]\nname = 'y'\n[[tenants]]\nname = 't'\n",
        &Environment::default(),
    );
    let config = config.expect("valid");
    assert_eq!(config.pools[0].sources.len(), 2);
    assert_eq!(config.tenants[0].pool.as_ref().map(|p| p.as_str()), Some("default"));
}

#[test]
fn includes_merge_and_keep_their_places() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("more")).expect("made");
    folder.write("more/key.pem", &std::fs::read_to_string(folder.path().join("key.pem")).expect("read"), 0o600);
    folder.write("more/cert.pem", &std::fs::read_to_string(folder.path().join("cert.pem")).expect("read"), 0o644);
    folder.write("more/a.toml", "[tls]\ncertificate_file = 'cert.pem'\nkey_file = 'key.pem'\n[[sources]]\nname = 'two'\n[smtp]\nmax_errors = 7\n", 0o644);
    let (config, errors, _) = folder.load(
        BASE,
        "include = ['more/a.toml']\n[[sources]]\nname = 'one'\n[smtp]\nmax_recipients = 500\n",
        &Environment::default(),
    );
    assert_eq!(errors, [""; 0]);
    let config = config.expect("valid");
    assert_eq!(config.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((config.smtp.max_errors, config.smtp.max_recipients), (7, 500));
    assert_eq!(config.tls.map(|t| t.key_file), Some(folder.path().join("more/key.pem")));

    folder.write(
        "more/a.toml",
        "include = ['../posthaste.toml', 'b.toml']\nhostname = 'other.example'\n[smtp]\nmax_erors = 7\n",
        0o644,
    );
    let (_, errors, _) = folder.load(BASE, "include = ['more/a.toml']\n", &Environment::default());
    assert_eq!(
        errors,
        [
            "more/a.toml:1:12: include[0]: more/../posthaste.toml is read already",
            "more/a.toml:1:33: include[1]: can't read more/b.toml: no such file",
            "more/a.toml:2:1: hostname: given twice; the other one is at 1:1",
            "more/a.toml:4:1: smtp.max_erors: unknown key",
        ]
    );
}

#[test]
fn a_missing_file_says_so() {
    let errors = load_with(Path::new("/nowhere/posthaste.toml"), &Environment::default()).expect_err("missing");
    assert!(
        errors.to_string().starts_with("/nowhere/posthaste.toml: can't read /nowhere/posthaste.toml: no such file\n"),
        "{errors}"
    );
}

#[test]
fn every_path_of_the_types_is_resolved() {
    // A path that is added to the types but not to `paths_of` would stay relative to the working folder.
    let mut config = Config {
        include: vec!["a".into()],
        tls: Some(crate::config::Tls { certificate_file: "a".into(), key_file: "a".into() }),
        ..Config::default()
    };
    let key = "domain = 'a.example'\nselector = 's'\nalgorithm = 'rsa-sha256'\nkey_file = 'a'";
    config.dkim.push(toml::from_str(key).expect("a key"));
    config.routes.insert("*".into(), toml::from_str("hosts = ['a']\npassword_file = 'a'").expect("a route"));
    let webhook = "name = 'a'\nurl = 'https://a.example'\nsecret_file = 'a'\nauthorization_file = 'a'";
    config.alerts.mail_password_file = Some("a".into());
    config.webhooks.push(toml::from_str(webhook).expect("a webhook"));
    let mut got: Vec<String> = crate::config::load::paths_of(&mut config)
        .into_iter()
        .map(|(key, _)| {
            key.0
                .iter()
                .rev()
                .find_map(|s| match s {
                    crate::config::Step::Key(key) => Some(key.clone()),
                    crate::config::Step::Index(_) => None,
                })
                .unwrap_or_default()
        })
        .collect();
    let mut want = crate::config::reference::fields_of_type("PathBuf");
    got.sort();
    want.sort();
    assert_eq!(got, want);
}

#[test]
fn providers_that_overlap_or_match_nothing_are_errors() {
    let text = format!(
        "{BASE}[providers.gogle]\nconnections = 3\n[providers.mine]\nmx = ['google.com', 'X.example']\nconnections = 0\n\
         [providers.yahoo]\nmessage_rate = ['5/s', '0/h']\n[providers.apple]\ntls = 3\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("posthaste.toml");
    std::fs::write(&file, text).expect("written");
    let errors = load_with(&file, &Environment::default()).expect_err("wrong").errors;
    let at = |key: &str, word: &str| {
        assert!(
            errors.iter().any(|e| e.key == key && e.line > 0 && e.message.contains(word)),
            "{key}: {word}: {errors:#?}"
        );
    };
    at("providers.gogle", "unknown provider");
    at("providers.mine.mx[0]", "belongs to providers.google too");
    at("providers.mine.mx[1]", "matches nothing");
    at("providers.mine.connections", "for ever");
    at("providers.yahoo.message_rate", "rate of 0");
    at("providers.apple.tls", "expected a string");
}
