//! Tests of what both formats share.

use std::io::{Cursor, Write};

use super::super::row::write_value;
use super::*;

/// Gives its octets in pieces of any size, as a connection does.
struct Pieces {
    octets: Cursor<Vec<u8>>,
    piece: usize,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.piece);
        self.octets.read(&mut out[..len])
    }
}

fn value(given: Given<'_>) -> Result<String, Rejected> {
    let mut out = Vec::new();
    write_value(&mut out, &given);
    Ok(String::from_utf8(out).expect("UTF-8"))
}

struct Parsed {
    rows: Vec<Result<String, String>>,
    /// Where each row ended.
    ends: Vec<u64>,
    refusal: Option<String>,
    shape: Option<Shape>,
}

fn parse_pieces(octets: &[u8], piece: usize) -> Parsed {
    let body = Pieces { octets: Cursor::new(octets.to_vec()), piece };
    parsed(Rows::open(body, None, None))
}

fn parsed(rows: Result<Rows, Refusal>) -> Parsed {
    let mut out = Parsed { rows: Vec::new(), ends: Vec::new(), refusal: None, shape: None };
    let mut rows = match rows {
        Ok(rows) => rows,
        Err(refusal) => {
            out.refusal = Some(refusal.to_string());
            return out;
        }
    };
    loop {
        match rows.next_row(value) {
            Ok(Some(row)) => {
                let place = rows.shape().place;
                out.rows
                    .push(row.map_err(|r| format!("{}:{}:{}:{}", place.row, r.reason.as_str(), r.address, r.detail)));
                out.ends.push(rows.shape().offset);
            }
            Ok(None) => break,
            Err(refusal) => {
                out.refusal = Some(refusal.to_string());
                break;
            }
        }
    }
    out.shape = Some(rows.shape().clone());
    out
}

/// All rows are good: their values.
fn good(octets: &[u8]) -> Vec<String> {
    let parsed = parse_pieces(octets, 7);
    assert_eq!(parsed.refusal, None);
    parsed.rows.into_iter().map(|row| row.expect("a good row")).collect()
}

const TWO: [&str; 2] = [
    r#"{"email":"a@b.example","name":"Zoë","vars":{"town":"Lyon"}}"#,
    r#"{"email":"c@d.example","vars":{"town":"Genève"}}"#,
];

#[test]
fn all_encodings_and_delimiters_give_the_same_rows() {
    let text = "email;name;town\r\na@b.example;Zoë;Lyon\r\n\r\nc@d.example;;Genève";
    let with_mark = |mark: &[u8], octets: Vec<u8>| [mark, &octets].concat();
    let utf16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let latin: Vec<u8> = text.chars().map(|c| u32::from(c) as u8).collect();
    for (what, octets) in [
        ("utf-8", text.as_bytes().to_vec()),
        ("utf-8 with mark", with_mark(b"\xef\xbb\xbf", text.into())),
        ("utf-16 le", with_mark(b"\xff\xfe", utf16(u16::to_le_bytes))),
        ("utf-16 be", with_mark(b"\xfe\xff", utf16(u16::to_be_bytes))),
        ("windows-1252", latin),
        ("tabs", text.replace(';', "\t").into()),
        ("bars", text.replace(';', "|").into()),
    ] {
        assert_eq!(good(&octets), TWO, "{what}");
        // The offset is where the body ends, in octets as they were sent.
        let ends = parse_pieces(&octets, 1_000).ends;
        assert_eq!(ends.last(), Some(&(octets.len() as u64)), "{what}");
    }
    let json = "\n{\"email\":\"a@b.example\",\"name\":\"Zoë\",\"vars\":{\"town\":\"Lyon\"}}\n\r\n {\"email\":\"c@d.example\",\"vars\":{\"town\":\"Genève\"}}";
    assert_eq!(good(json.as_bytes()), TWO);
}

#[test]
fn the_size_of_the_pieces_does_not_matter() {
    let text = "email,note\na@b.example,\"line 1\r\nline \"\"2\"\"\"\r\nc@d.example,\"x\"\n";
    let whole = parse_pieces(text.as_bytes(), 1 << 20);
    for piece in 1..20 {
        let pieces = parse_pieces(text.as_bytes(), piece);
        assert_eq!((pieces.rows, pieces.ends), (whole.rows.clone(), whole.ends.clone()), "{piece}");
    }
    assert_eq!(whole.rows.len(), 2);
}

#[test]
fn a_file_can_be_gone_on_with_at_the_end_of_every_row() {
    let text = "email;town\na@b.example;Köln\n\nc@d.example;\"x\ny\"\ne@f.example;z\n";
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    for octets in [text.as_bytes(), &utf16] {
        let whole = parse_pieces(octets, 1 << 20).rows;
        for done in 0..=3 {
            let mut rows = Rows::open(Cursor::new(octets.to_vec()), None, None).expect("a header");
            let first: Vec<_> = (0..done).map(|_| rows.next_row(value).expect("a row").expect("one more")).collect();
            let shape = rows.shape().clone();
            // What is stored is read again.
            let shape: Shape = serde_json::from_str(&serde_json::to_string(&shape).expect("JSON")).expect("the same");
            let rest = octets[shape.offset as usize..].to_vec();
            let rest = parsed(Rows::go_on(Cursor::new(rest), shape));
            let all: Vec<_> = first.into_iter().map(|r| r.map_err(|_| String::new())).chain(rest.rows).collect();
            assert_eq!(all, whole, "{done}");
        }
    }
}

#[test]
fn gzip_and_zstd_are_known_by_their_magic() {
    let text = "email;name;town\na@b.example;Zoë;Lyon\nc@d.example;;Genève\n".as_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let zstd = zstd::encode_all(text, 3).expect("memory");
    assert_eq!(good(&gzip), TWO);
    assert_eq!(good(&zstd), TWO);
    // Two members, as `cat a.gz b.gz` makes them.
    let mut more = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    more.write_all(b"e@f.example;;\n").expect("memory");
    let two = [gzip.clone(), more.finish().expect("memory")].concat();
    assert_eq!(good(&two).len(), 3);
    // Cut short: what came before stands, and the refusal says it.
    let cut = parse_pieces(&gzip[..gzip.len() - 9], 1 << 20);
    assert!(cut.refusal.as_deref().is_some_and(|r| r.contains("gzip data is damaged")), "{:?}", cut.refusal);
    let cut = parse_pieces(&zstd[..zstd.len() - 2], 1 << 20);
    assert!(cut.refusal.as_deref().is_some_and(|r| r.contains("zstd data is damaged")), "{:?}", cut.refusal);
    // Announced, and not so.
    let lie = parsed(Rows::open(Cursor::new(text.to_vec()), Some(Compression::Gzip), None));
    assert!(lie.refusal.is_some());
}

#[test]
fn a_bomb_is_refused_early() {
    // 128 MiB of blank lines in little more than a hundred kilobytes.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(b"email\n").expect("memory");
    let blank = vec![b'\n'; 1 << 20];
    (0..128).for_each(|_| gzip.write_all(&blank).expect("memory"));
    let bomb = gzip.finish().expect("memory");
    let parsed = parse_pieces(&bomb, 1 << 16);
    let refusal = parsed.refusal.expect("refused");
    assert!(refusal.contains("too large when decompressed"), "{refusal}");
}

#[test]
fn a_body_without_lines_is_refused_early() {
    /// Never ends; counts what is taken of it.
    struct Endless(std::rc::Rc<std::cell::Cell<usize>>, u8);
    impl Read for Endless {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            out.fill(self.1);
            self.0.set(self.0.get() + out.len());
            Ok(out.len())
        }
    }
    for (format, octet) in
        [(None, b'x'), (None, b'{'), (None, b'"'), (None, b' '), (Some(Format::Ndjson), b'x'), (Some(Format::Csv), 0)]
    {
        let taken = std::rc::Rc::new(std::cell::Cell::new(0));
        let parsed = parsed(Rows::open(Endless(taken.clone(), octet), None, format));
        assert!(parsed.refusal.is_some(), "{octet}");
        assert!(taken.get() < 2 << 20, "{octet}: {}", taken.get());
    }
    // The same after a good header and row.
    let head = Cursor::new(b"email\na@b.example\n".to_vec());
    let taken = std::rc::Rc::new(std::cell::Cell::new(0));
    let rows = parsed(Rows::open(head.chain(Endless(taken.clone(), b'"')), None, None));
    assert_eq!((rows.rows.len(), rows.refusal.is_some()), (1, true));
}

#[test]
fn rows_that_are_not_right_are_told_and_the_next_ones_are_read() {
    let check = |text: &str, want: &[&str]| {
        let parsed = parse_pieces(text.as_bytes(), 1_000);
        assert_eq!(parsed.refusal, None, "{text}");
        let got: Vec<String> = parsed.rows.into_iter().map(|r| r.unwrap_or_else(|e| e)).collect();
        assert_eq!(got.len(), want.len(), "{got:?}");
        for (got, want) in got.iter().zip(want) {
            assert!(got.contains(want), "{got:?} has not {want:?}");
        }
        assert_eq!(parsed.ends.last(), Some(&(text.len() as u64)));
    };
    check("email,town\na@b.example\nc@d.example,x\n", &["1:invalid:a@b.example:1 fields, the header has 2", "c@d"]);
    check("email,town\na@b.example,x,y\n", &["1:invalid:a@b.example:3 fields"]);
    // A quote that is not closed costs one line, not the file.
    check(
        "email,town\na@b.example,\"Ly\nc@d.example,x\ne@f.example,\"y\"\n",
        &["1:invalid:a@b.example:text stands behind a closing quote", "c@d.example", "e@f.example"],
    );
    check("email,town\na@b.example,\"x\"y\nc@d.example,x\n", &["1:invalid:a@b.example:text stands behind", "c@d"]);
    check("email\n\"a@b.example\nc@d.example\n", &["1:invalid:a@b.example:a quote is not closed", "c@d.example"]);
    // Too long: counted, and passed over.
    let long = format!("email,town\na@b.example,{}\nc@d.example,x\n", "y".repeat(70_000));
    check(&long, &["1:too-long:", "c@d.example"]);
    let long =
        format!("{{\"email\":\"a@b.example\",\"name\":\"{}\"}}\n{{\"email\":\"c@d.example\"}}", "y".repeat(300_000));
    check(&long, &["1:too-long:", "c@d.example"]);
    let long = format!("email,town\na@b.example,\"{}\nc@d.example,x\n", "y\n".repeat(40_000));
    let parsed = parse_pieces(long.as_bytes(), 1_000);
    assert!(parsed.rows[0].as_ref().is_err_and(|e| e.contains("not closed within")));
    assert!(
        parsed.refusal.is_some_and(|r| r.contains("broken quotes")) || parsed.rows.last().is_some_and(Result::is_ok)
    );
}

#[test]
fn the_first_octets_of_another_encoding_are_kept_to() {
    // UTF-8 was seen: a row that is not UTF-8 is broken, not another encoding.
    let octets = [&b"email,town\na@b.example,Gen\xc3\xa8ve\nc@d.example,K\xf6ln\ne@f.example,x\n"[..]].concat();
    let parsed = parse_pieces(&octets, 1_000);
    assert!(parsed.rows[1].as_ref().is_err_and(|e| e.contains("not valid UTF-8")));
    assert!(parsed.rows[2].is_ok());
    assert_eq!(parsed.shape.map(|s| s.encoding), Some(Encoding::Utf8));
}

#[test]
fn what_is_no_list_is_refused_with_the_reason() {
    let check = |octets: &[u8], part: &str| {
        let refusal = parse_pieces(octets, 1_000).refusal.unwrap_or_default();
        assert!(refusal.contains(part), "{refusal:?} for {octets:?}");
    };
    check(b"[{\"email\":\"a@b.example\"}]", "a JSON list");
    check(b"name,town\nJo,Lyon\n", "no column is named email");
    check(b"email,town,town\n", "two columns");
    check(b"\"email,town\na@b.example,x\n", "a quote in the header");
    check(b"PK\x03\x04\x00\x00\n", "no column is named email");
    assert_eq!(parse_pieces(b"", 10).rows.len(), 0);
    assert_eq!(parse_pieces(b" \n\n", 10).refusal, None);
    assert_eq!(parse_pieces(b"email\n", 10).rows.len(), 0);
}
