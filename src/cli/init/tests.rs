//! What `init` makes is runnable: it passes the check, and a daemon of it takes mail.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::daemon::Daemon;

fn init(dir: &Path, domain: Option<&str>) -> Init {
    Init {
        dir: dir.to_owned(),
        hostname: Some("mta.example.com".into()),
        domain: domain.map(str::to_owned),
        data_dir: None,
        // The system chooses: tests run side by side.
        smtp_port: 0,
        http_port: 0,
    }
}

fn secret(file: &Path) -> String {
    let mode = std::fs::metadata(file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    std::fs::read_to_string(file).expect("read").trim().to_owned()
}

#[test]
fn what_it_writes_loads_and_the_key_fits() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("a/b");
    assert_eq!(init(&dir, Some("example.org")).run().expect("made"), Exit::Success);
    let (config, warnings) = config::load(&dir.join(CONFIG_FILE)).expect("valid");
    assert_eq!(config.tenants[0].domains, ["example.org"]);
    assert_eq!(config.data_dir, dir.join("data"));
    assert_eq!(config.http.as_ref().expect("there").api_keys[0].sha256, sha256_hex(&secret(&dir.join(KEY_FILE))));
    // Each port is one that needs no root, or chosen by the system as here.
    assert!(config.smtp.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
    assert_eq!(warnings.iter().filter(|w| w.to_string().contains("DKIM")).count(), 0, "{warnings:?}");
    let file = dir.join("dkim/example.org-s1.pem");
    assert!(secret(&file).starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(config.dkim[0].key_file, file);
    let ring = keys::load(&config).strict().expect("a good key");
    assert!(ring.covers(&Domain::parse("example.org").expect("valid")));
}

#[test]
fn without_a_domain_every_domain_is_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path(), None).run().expect("made");
    let (config, _) = config::load(&folder.path().join(CONFIG_FILE)).expect("valid");
    assert_eq!(config.tenants[0].domains, ["*"]);
    assert_eq!(config.dkim[0].domain.as_str(), "example.com");
    for (hostname, want) in [("mta1.example.com", "example.com"), ("example.com", "example.com"), ("host", "host")] {
        assert_eq!(mail_domain(&Domain::parse(hostname).expect("valid")).as_str(), want);
    }
}

#[test]
fn it_overwrites_nothing() {
    for name in [KEY_FILE, PASSWORD_FILE, "dkim/example.com-s1.pem"] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(name);
        make_folder(file.parent().expect("a folder")).expect("made");
        std::fs::write(&file, "mine").expect("written");
        assert!(init(folder.path(), None).run().is_err());
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "mine");
        assert!(!folder.path().join(CONFIG_FILE).exists());
    }
}

#[test]
fn the_hash_is_sha256() {
    let want = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert_eq!(sha256_hex("test"), want);
}

/// Says the lines one by one, and wants a reply of this code to each.
fn dialog(server: SocketAddr, lines: &[(&str, &str)]) {
    let stream = TcpStream::connect(server).expect("connected");
    let mut replies = BufReader::new(&stream);
    let mut reply = || loop {
        let mut line = String::new();
        replies.read_line(&mut line).expect("a reply");
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    };
    assert!(reply().starts_with("220"));
    for (line, want) in lines {
        (&stream).write_all(format!("{line}\r\n").as_bytes()).expect("sent");
        let got = reply();
        assert!(got.starts_with(want), "{line}: {got}");
    }
}

#[test]
fn a_daemon_of_it_takes_mail() {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path(), Some("example.com")).run().expect("made");
    let file = folder.path().join(CONFIG_FILE);
    // Nothing may leave this machine, whatever becomes of the message; and a small disk will do.
    let mut text = std::fs::read_to_string(&file).expect("read");
    text.push_str("\n[routes.\"*\"]\nhosts = [\"127.0.0.1:1\"]\ntls = \"none\"\n[storage]\nmin_free = \"1MiB\"\n");
    std::fs::write(&file, text).expect("written");
    let password = secret(&folder.path().join(PASSWORD_FILE));
    let plain = STANDARD.encode(format!("\0{SMTP_USER}\0{password}"));
    let wrong = STANDARD.encode(format!("\0{SMTP_USER}\0{password}x"));
    let daemon = Daemon::start(&file, None).expect("started");
    let server = daemon.smtp_addresses()[0];
    let mail = [
        ("MAIL FROM:<me@example.com>", "250"),
        ("RCPT TO:<you@example.net>", "250"),
        ("DATA", "354"),
        ("From: me@example.com\r\nSubject: hello\r\n\r\nhello\r\n.", "250"),
        ("QUIT", "221"),
    ];
    let log_in = format!("AUTH PLAIN {plain}");
    dialog(server, &[&[("EHLO here.example", "250"), (&log_in, "235")], &mail[..]].concat());
    dialog(server, &[&[("EHLO here.example", "250")], &mail[..]].concat());
    dialog(server, &[("EHLO here.example", "250"), (&format!("AUTH PLAIN {wrong}"), "535")]);
    daemon.stop().expect("ended in order");
}
