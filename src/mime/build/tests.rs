use super::*;
use mail_parser::{MessageParser, MimeHeaders, PartType};

const NOW: Timestamp = Timestamp::from_millis(1_795_456_549_012);

fn to(text: &str) -> Address {
    Address { name: None, mailbox: Mailbox::parse(text).expect("valid") }
}

fn message() -> Message {
    Message {
        from: Address { name: Some("Jürgen \"J\" Müller".into()), ..to("j@acme.example") },
        to: vec![to("a@sink.test"), Address { name: Some("Bo, B".into()), ..to("b@sink.test") }],
        cc: Vec::new(),
        bcc: vec![to("secret@sink.test"), to("A@sink.test")],
        reply_to: Vec::new(),
        subject: Some("Grüße".into()),
        text: Some("Hällo\nline".into()),
        html: None,
        headers: vec![("X-Mine".into(), "1".into())],
        attachments: Vec::new(),
    }
}

fn built(message: &Message) -> String {
    let octets = message.build(NOW, "id@acme.example", 1 << 20).expect("builds");
    let text = String::from_utf8(octets.to_vec()).expect("UTF-8");
    assert!(text.is_ascii() && text.ends_with("\r\n"), "{text}");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "a bare line end: {text:?}");
    text
}

fn structure(part: &mail_parser::MessagePart<'_>, whole: &mail_parser::Message<'_>) -> String {
    let name = part.content_type().and_then(|t| t.subtype()).unwrap_or("none");
    match &part.body {
        PartType::Multipart(ids) => {
            let inner: Vec<String> = ids.iter().map(|id| structure(&whole.parts[*id as usize], whole)).collect();
            format!("{name}({})", inner.join(" "))
        }
        _ => name.to_owned(),
    }
}

fn check_structure(text: bool, html: bool, inline: bool, attached: bool, want: &str) {
    let mut m = message();
    m.text = text.then(|| "text".into());
    m.html = html.then(|| "<p>html</p>".into());
    let file = |id: Option<&str>| Attachment {
        filename: Some("Übersicht.pdf".into()),
        content_type: "application/pdf".into(),
        content: (0..=255).collect(),
        content_id: id.map(str::to_owned),
    };
    m.attachments = inline.then(|| file(Some("logo@x"))).into_iter().chain(attached.then(|| file(None))).collect();
    let octets = built(&m);
    let parsed = MessageParser::new().parse(octets.as_bytes()).expect("parses");
    assert_eq!(structure(parsed.root_part(), &parsed), want);
    for part in parsed.parts.iter().filter(|p| p.content_type().is_some_and(|t| t.subtype() == Some("pdf"))) {
        assert_eq!(part.contents(), (0..=255).collect::<Vec<u8>>());
        assert_eq!(part.attachment_name(), Some("Übersicht.pdf"));
    }
}

#[test]
fn structure_follows_content() {
    check_structure(true, false, false, false, "plain");
    check_structure(false, true, false, false, "html");
    check_structure(true, true, false, false, "alternative(plain html)");
    check_structure(true, true, true, false, "alternative(plain related(html pdf))");
    check_structure(true, true, true, true, "mixed(alternative(plain related(html pdf)) pdf)");
    check_structure(true, false, true, false, "mixed(plain pdf)");
    check_structure(false, false, false, true, "mixed(pdf)");
}

#[test]
fn values_arrive_as_they_were_given() {
    let octets = built(&message());
    let parsed = MessageParser::new().parse(octets.as_bytes()).expect("parses");
    assert_eq!(parsed.subject(), Some("Grüße"));
    let from = parsed.from().and_then(|f| f.first()).expect("From");
    assert_eq!((from.name(), from.address()), (Some("Jürgen \"J\" Müller"), Some("j@acme.example")));
    let to = parsed.to().expect("To");
    assert_eq!(to.last().and_then(|a| a.name()), Some("Bo, B"));
    assert_eq!(parsed.body_text(0).as_deref().map(|t| t.trim_end().replace("\r\n", "\n")), Some("Hällo\nline".into()));
    assert_eq!(parsed.message_id(), Some("id@acme.example"));
    assert!(octets.contains("Date: Mon, 23 Nov 2026 17:55:49 +0000\r\n"));
    assert!(!octets.to_lowercase().contains("bcc") && !octets.contains("secret"));
    assert_eq!(message().recipients().len(), 3);
}

fn check_refused(field: &str, change: impl FnOnce(&mut Message)) {
    let mut m = message();
    change(&mut m);
    let error = m.build(NOW, "id@acme.example", 1 << 20).expect_err(field);
    assert_eq!(error.field, field, "{error}");
}

#[test]
fn injection_is_refused_with_the_fields_name() {
    check_refused("subject", |m| m.subject = Some("a\r\nBcc: x@y".into()));
    check_refused("subject", |m| m.subject = Some("a\u{2028}b".into()));
    check_refused("subject", |m| m.subject = Some("=?utf-8?q?a=0D=0AX:_y?=".into()));
    check_refused("from.name", |m| m.from.name = Some("a\nb".into()));
    check_refused("to[1].name", |m| m.to[1].name = Some("a\0b".into()));
    check_refused("bcc[0].name", |m| m.bcc[0].name = Some("a\rb".into()));
    check_refused("headers.X-A", |m| m.headers.push(("X-A".into(), "a\r\nb".into())));
    check_refused("headers.X-A", |m| m.headers.push(("X-A".into(), "a\u{85}b".into())));
    check_refused("headers.X-A\\r\\nB", |m| m.headers.push(("X-A\r\nB".into(), "a".into())));
    check_refused("headers.X A", |m| m.headers.push(("X A".into(), "a".into())));
    for name in ["bcc", "From", "DKIM-Signature", "Received", "Return-Path", "content-type", "Content-X", "ARC-Seal"] {
        check_refused(&format!("headers.{name}"), |m| m.headers.push((name.into(), "a".into())));
    }
    check_refused("headers.x-mine", |m| m.headers.push(("x-mine".into(), "2".into())));
    check_refused("text", |m| m.text = Some("a\0".into()));
    check_refused("text", |m| m.text = None);
    let file = |t: &str, n: &str, id: Option<&str>| Attachment {
        content_type: t.into(),
        filename: Some(n.into()),
        content: vec![1],
        content_id: id.map(str::to_owned),
    };
    check_refused("attachments[0].content_type", |m| m.attachments.push(file("text/plain\r\nX: y", "n", None)));
    check_refused("attachments[0].content_type", |m| m.attachments.push(file("message/rfc822", "n", None)));
    check_refused("attachments[0].content_type", |m| m.attachments.push(file("pdf", "n", None)));
    check_refused("attachments[0].filename", |m| m.attachments.push(file("a/b", "n\r\nX: y", None)));
    check_refused("attachments[0].content_id", |m| m.attachments.push(file("a/b", "n", Some("a>\r\nX: y"))));
    check_refused("message", |m| m.text = Some("x".repeat(2 << 20)));
    check_refused("message", |m| m.headers.push(("X-Long".into(), "x".repeat(2_000))));
}

#[test]
fn long_structured_fields_are_folded_not_encoded() {
    let mut m = message();
    let value = format!("<https://x.test/{}>, <mailto:u@x.test>", "u".repeat(200));
    m.headers.push(("List-Unsubscribe".into(), value.clone()));
    let octets = built(&m);
    assert!(octets.replace("\r\n ", " ").contains(&value), "{octets}");
}

#[test]
fn text_survives_whatever_its_line_ends() {
    let mut m = message();
    m.text = Some("a\r\nb\rc\nd \n.\n\nFrom x\n".to_owned() + &"y".repeat(3_000));
    let octets = built(&m);
    let parsed = MessageParser::new().parse(octets.as_bytes()).expect("parses");
    let text = parsed.body_text(0).expect("text").replace("\r\n", "\n");
    assert_eq!(text.trim_end(), "a\nb\nc\nd \n.\n\nFrom x\n".to_owned() + &"y".repeat(3_000));
}

#[test]
fn international_addresses() {
    let mut m = message();
    m.to = vec![to("info@bücher.example")];
    assert!(built(&m).contains("<info@xn--bcher-kva.example>"));
    m.to = vec![to("üser@bücher.example")];
    let octets = m.build(NOW, "id@acme.example", 1 << 20).expect("builds");
    assert!(String::from_utf8_lossy(&octets).contains("<üser@bücher.example>"));
}

#[test]
fn base64_is_read_with_line_ends() {
    assert_eq!(Attachment::decode("f", "AQID\r\nBA==\n"), Ok(vec![1, 2, 3, 4]));
    assert_eq!(Attachment::decode("f", "A?").expect_err("bad").field, "f");
}

#[test]
fn python_reads_what_was_written() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let mut m = message();
    m.html = Some("<p>Hällo <img src=\"cid:logo@x\"></p>".into());
    m.attachments = vec![
        Attachment {
            filename: Some("logo.png".into()),
            content_type: "image/png".into(),
            content: vec![0, 13, 10, 255],
            content_id: Some("logo@x".into()),
        },
        Attachment {
            filename: Some("Übersicht für \"alle\".bin".into()),
            content_type: "application/octet-stream".into(),
            content: (0..=255).collect(),
            content_id: None,
        },
    ];
    m.subject = Some("Grüße an alle, die das hier lesen, auch wenn es länger ist als eine Zeile — ✓ 漢字".into());
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/mime_read.py");
    let mut child = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    child.stdin.take().expect("piped").write_all(built(&m).as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "Python can't read it");
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read["defects"], serde_json::json!([]));
    assert_eq!(read["subject"], m.subject.as_deref().expect("given"));
    assert_eq!(read["from"], serde_json::json!([["Jürgen \"J\" Müller", "j@acme.example"]]));
    assert_eq!(read["to"], serde_json::json!([["", "a@sink.test"], ["Bo, B", "b@sink.test"]]));
    let structure =
        serde_json::json!({"mixed": [{"alternative": ["plain", {"related": ["html", "png"]}]}, "octet-stream"]});
    assert_eq!(read["structure"], structure);
    assert_eq!(read["texts"][0].as_str().map(str::trim_end), m.text.as_deref());
    assert_eq!(read["texts"][1].as_str().map(str::trim_end), m.html.as_deref());
    assert_eq!(read["files"][0], serde_json::json!(["logo.png", "<logo@x>", [0, 13, 10, 255]]));
    assert_eq!(read["files"][1][0], "Übersicht für \"alle\".bin");
    assert_eq!(read["files"][1][2], serde_json::json!((0..=255).collect::<Vec<u8>>()));
}

#[test]
fn only_the_size_is_called_too_large() {
    let mut m = message();
    m.text = Some("x\r\n".repeat(1000));
    let error = m.build(NOW, "id@acme.example", 1 << 10).expect_err("larger than a KiB");
    assert!(error.too_large && error.reason.contains("1024"), "{error}");
    m.subject = Some("a\r\nBcc: b@c.example".into());
    let error = m.build(NOW, "id@acme.example", 1 << 20).expect_err("an injection");
    assert!(!error.too_large, "{error}");
}
