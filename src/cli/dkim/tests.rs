//! `dkim new` and `dkim dns` agree with each other and with the configuration that they are pasted into.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn new(folder: &Path, selector: &str, algorithm: Kind) -> New {
    let (domain, out) = ("Acme.example".to_owned(), Some(folder.join(format!("dkim/{selector}.pem"))));
    New { domain, selector: selector.into(), algorithm, out, json: true }
}

fn dns(config: &Path) -> Dns {
    Dns { config: config.to_owned(), key: None, domain: None, selector: None, json: true }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn what_new_prints_can_be_pasted_and_dns_finds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("posthaste.toml");
    let mut text = "hostname = 'mta.acme.example'\ndata_dir = 'd'\n".to_owned();
    let mut made = Vec::new();
    for (selector, kind) in [("s1", Kind::RsaSha256), ("e1", Kind::Ed25519Sha256)] {
        let value = json_of(&new(folder.path(), selector, kind).text().expect("made"));
        let mode = std::fs::metadata(value["key_file"].as_str().expect("a path")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        text.push_str(value["config"].as_str().expect("a text"));
        made.push(value);
    }
    std::fs::write(&config, text).expect("written");
    let told = json_of(&dns(&config).text().expect("records"));
    for (i, value) in made.iter().enumerate() {
        assert_eq!(told[i]["record"], value["record"]);
        // The same from the file alone, whatever its algorithm.
        let key = value["key_file"].as_str().map(PathBuf::from);
        let selector = value["selector"].as_str().map(str::to_owned);
        let of_file = Dns { key, domain: Some("acme.example".into()), selector, ..dns(&config) };
        assert_eq!(json_of(&of_file.text().expect("a record"))[0], told[i]);
    }
    let only = Dns { selector: Some("e1".into()), ..dns(&config) };
    assert_eq!(json_of(&only.text().expect("records")), json!([told[1]]));
    assert!(Dns { domain: Some("other.example".into()), ..dns(&config) }.text().is_err());
}

#[test]
fn the_zone_line_is_split_and_the_value_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = New { json: false, ..new(folder.path(), "s1", Kind::RsaSha256) }.text().expect("made");
    let value = text.lines().find_map(|line| line.trim().strip_prefix("Value:  ")).expect("a value");
    let zone = text.lines().find(|line| line.starts_with("s1._domainkey.acme.example. IN TXT")).expect("a line");
    // RFC 1035 §3.3: a character-string has at most 255 octets; RSA of 2,048 bits needs two.
    let strings: Vec<&str> = zone.split('"').skip(1).step_by(2).collect();
    assert!(strings.len() == 2 && strings.iter().all(|s| s.len() <= 255), "{zone}");
    assert_eq!(strings.concat(), value);
}

#[test]
fn an_existing_key_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dkim/s1.pem");
    make_folder(&folder.path().join("dkim")).expect("made");
    std::fs::write(&file, "mine").expect("written");
    assert!(new(folder.path(), "s1", Kind::Ed25519Sha256).text().is_err());
    assert_eq!(std::fs::read_to_string(&file).expect("read"), "mine");
}

#[test]
fn names_that_are_none_are_refused_before_a_file_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = || new(folder.path(), "s1", Kind::Ed25519Sha256);
    for selector in ["", "a b", "a..b", "../x", "s1;", "a\"b"] {
        assert!(New { selector: selector.into(), ..base() }.text().is_err(), "{selector:?}");
    }
    assert!(New { domain: "not a domain".into(), ..base() }.text().is_err());
    assert!(!folder.path().join("dkim").exists());
    // A file that is no key is told, not taken.
    let (key, domain, selector) = (folder.path().join("x"), "acme.example".to_owned(), "s1".to_owned());
    std::fs::write(&key, "nothing").expect("written");
    let of_file = Dns { key: Some(key), domain: Some(domain), selector: Some(selector), ..dns(Path::new("x")) };
    assert!(of_file.text().is_err());
}
