use mail_parser::{MessageParser, MimeHeaders};

use super::*;
use crate::mime::encode::LINE_MAX;

const SEED: [u8; 16] = [7; 16];
const HEADER: &[u8] = b"From: a@b.example\r\nSubject: x\r\n";

fn file(name: &str, cid: Option<&str>, size: usize) -> Attachment {
    Attachment {
        filename: Some(name.into()),
        content_type: "image/png".into(),
        content: (0..size).map(|i| (i * 31 % 256) as u8).collect(),
        content_id: cid.map(str::to_owned),
    }
}

fn skeleton(text: bool, html: bool, files: &[Attachment]) -> Skeleton {
    Skeleton::new(SEED, text, html, files).expect("valid")
}

fn assemble(skeleton: &Skeleton, text: &str, html: &str) -> Assembled {
    let assembled = skeleton.assemble(HEADER.to_vec(), Bodies { text, html });
    let octets = assembled.concat();
    assert_eq!(assembled.size, octets.len() as u64);
    assert!(octets[..assembled.body_at].ends_with(b"\r\n\r\n"));
    assert_eq!(memmem::find(&octets, b"\r\n\r\n").map(|at| at + 4), Some(assembled.body_at));
    assert!(assembled.parts.iter().all(|part| part.ends_with(b"\r\n")), "a part ends within a line");
    assert!(octets.is_ascii());
    assert!(octets.split(|b| *b == b'\n').all(|line| line.len() <= LINE_MAX + 1));
    assembled
}

/// The types of the parts in the order in which they stand.
fn shape(octets: &[u8]) -> Vec<String> {
    let message = MessageParser::new().parse(octets).expect("a message");
    let of = |part: &mail_parser::MessagePart<'_>| {
        part.content_type().map(|t| format!("{}/{}", t.ctype(), t.subtype().unwrap_or("")))
    };
    message.parts.iter().filter_map(of).collect()
}

#[test]
fn the_nesting_follows_what_is_there() {
    let (image, pdf) = (file("logo.png", Some("logo"), 100), file("a.png", None, 9_000));
    let check = |text, html, files: &[Attachment], want: &[&str]| {
        let octets = assemble(&skeleton(text, html, files), "text", "<p>html</p>").concat();
        assert_eq!(shape(&octets), want, "{}", String::from_utf8_lossy(&octets));
    };
    check(true, false, &[], &["text/plain"]);
    check(false, true, &[], &["text/html"]);
    check(true, true, &[], &["multipart/alternative", "text/plain", "text/html"]);
    let related = ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"];
    check(true, true, std::slice::from_ref(&image), &related);
    let all = [&["multipart/mixed"], &related[..], &["image/png"]].concat();
    check(true, true, &[image.clone(), pdf.clone()], &all);
    check(true, false, &[image], &["multipart/mixed", "text/plain", "image/png"]);
    check(false, false, &[pdf], &["multipart/mixed", "image/png"]);
    assert!(Skeleton::new(SEED, false, false, &[]).is_err());
}

#[test]
fn files_are_whole_and_shared() {
    let files = [file("größe \"1\".png", Some("logo"), 70_000), file("b.png", None, 50_000)];
    let skeleton = skeleton(true, true, &files);
    let (a, b) = (assemble(&skeleton, "Jane", "<p>Jane</p>"), assemble(&skeleton, "Joe", "<p>Joe</p>"));
    let shared = |part: &&Bytes| b.parts.iter().any(|other| other.as_ptr() == part.as_ptr());
    assert_eq!(a.parts.iter().filter(shared).map(Bytes::len).filter(|len| *len > 60_000).count(), 2);
    let octets = a.concat();
    let message = MessageParser::new().parse(&octets).expect("a message");
    let found: Vec<_> = message.parts.iter().filter(|p| p.attachment_name().is_some()).collect();
    assert_eq!(found.len(), 2);
    for (part, file) in found.iter().zip(&files) {
        assert_eq!(part.contents(), file.content);
        assert_eq!(part.attachment_name(), file.filename.as_deref());
    }
}

#[test]
fn bodies_come_back_whatever_their_octets() {
    let skeleton = skeleton(true, true, &[]);
    let long = "x".repeat(200_000);
    let huge = "ü € 😀 ".repeat(5_000);
    let texts = [
        "",
        "a",
        "plain\r\ntext\r\n",
        "lone\nends\rhere",
        "Grüße",
        "日本語の本文",
        " trailing \t\nx",
        &long,
        &huge,
        "a=b\n.\n..\nFrom x",
    ];
    for text in texts {
        let octets = assemble(&skeleton, text, &format!("<p>{text}</p>")).concat();
        let message = MessageParser::new().parse(&octets).expect("a message");
        let want = text.replace("\r\n", "\n").replace('\r', "\n");
        let got = message.body_text(0).unwrap_or_default().replace("\r\n", "\n");
        assert_eq!(got.trim_end_matches('\n'), want.trim_end_matches('\n'));
        let html = message.body_html(0).unwrap_or_default().replace("\r\n", "\n");
        assert_eq!(html.trim_end(), format!("<p>{want}</p>"));
    }
}

#[test]
fn a_recipient_who_knows_the_boundary_adds_no_part() {
    let skeleton = skeleton(true, true, &[]);
    let first = String::from_utf8(assemble(&skeleton, "a", "b").concat()).expect("ASCII");
    let boundary = first.split("boundary=\"").nth(1).and_then(|t| t.split('"').next()).expect("a boundary");
    let evil = format!("x\n--{boundary}\nContent-Type: text/html\n\n<b>forged</b>\n--{boundary}--\n");
    let octets = assemble(&skeleton, &evil, "<p>x</p>").concat();
    assert_eq!(shape(&octets), ["multipart/alternative", "text/plain", "text/html"]);
}

#[test]
fn the_same_input_makes_the_same_octets() {
    let files = [file("a.png", None, 5_000)];
    let one = assemble(&skeleton(true, true, &files), "Grüße", "<p>x</p>").concat();
    assert_eq!(one, assemble(&skeleton(true, true, &files), "Grüße", "<p>x</p>").concat());
    let other = Skeleton::new([8; 16], true, true, &files).expect("valid");
    assert_ne!(one, assemble(&other, "Grüße", "<p>x</p>").concat());
}
