//! Real forms are read, hostile ones are refused with the reason.

use std::io::Write;
use std::time::Instant;

use base64::Engine;

use super::samples::{GOOGLE, MICROSOFT, RFC9990, TLS, TLS_GOOGLE, YAHOO};
use super::*;

fn dmarc(text: &str) -> DmarcReport {
    match &read_file(text.as_bytes()).expect("it can be read")[..] {
        [AuthReport::Dmarc(report)] => report.clone(),
        other => panic!("no DMARC report: {other:?}"),
    }
}

fn tls(text: &str) -> TlsReport {
    match &read_file(text.as_bytes()).expect("it can be read")[..] {
        [AuthReport::Tls(report)] => report.clone(),
        other => panic!("no TLS report: {other:?}"),
    }
}

fn refused(octets: &[u8], reason: &str) {
    let error = read_file(octets).expect_err("it must be refused").to_string();
    assert!(error.contains(reason), "{error:?} does not say {reason:?}");
}

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(octets).expect("memory");
    encoder.finish().expect("memory")
}

/// A zip as most tools write it; with `behind` the sizes stand behind the data, as in a stream.
fn zip(name: &str, octets: &[u8], behind: bool) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(octets).expect("memory");
    let packed = encoder.finish().expect("memory");
    let mut out = b"PK\x03\x04\x14\x00".to_vec();
    out.extend(if behind { [8, 0] } else { [0, 0] });
    out.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let sizes = if behind { (0, 0) } else { (packed.len() as u32, octets.len() as u32) };
    out.extend(sizes.0.to_le_bytes());
    out.extend(sizes.1.to_le_bytes());
    out.extend((name.len() as u16).to_le_bytes());
    out.extend([0, 0]);
    out.extend(name.as_bytes());
    out.extend(packed);
    out.extend(b"PK\x01\x02 the directory is not asked");
    out
}

/// A mail with one attachment beside a text for people.
fn mail(content_type: &str, name: &str, octets: &[u8]) -> Vec<u8> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(octets);
    let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|c| std::str::from_utf8(c).expect("ASCII")).collect();
    format!(
        "From: reporter@example.net\r\nTo: dmarc-reports@bounce.acme.example\r\nSubject: Report Domain: acme.example\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n<b>This is a report.\r\n--b\r\n\
         Content-Type: {content_type}; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

#[test]
fn googles_form() {
    let report = dmarc(GOOGLE);
    assert_eq!((report.org.as_str(), report.report_id.as_str()), ("google.com", "11480935628091234567"));
    assert_eq!((report.domain.as_str(), report.begin, report.end), ("acme.example", 1_795_305_600, 1_795_391_999));
    assert_eq!((report.policy.p.as_str(), report.policy.np.as_deref()), ("quarantine", Some("reject")));
    assert_eq!(report.rows.len(), 2);
    let (good, bad) = (&report.rows[0], &report.rows[1]);
    assert_eq!((good.count, good.dkim, good.spf), (1_200, true, true));
    assert_eq!(good.auth[0].selector.as_deref(), Some("s1"));
    assert_eq!((bad.count, bad.dkim, bad.spf, bad.disposition.as_str()), (3, false, false, "quarantine"));
    assert_eq!(bad.source_ip, Some([203, 0, 113, 77].into()));
    let result = AuthResult {
        method: "spf".into(),
        domain: "spammer.example".into(),
        selector: None,
        result: "softfail".into(),
    };
    assert_eq!(bad.auth, [result]);
}

#[test]
fn microsofts_form() {
    let report = dmarc(MICROSOFT);
    assert_eq!((report.org.as_str(), report.domain.as_str()), ("Enterprise Outlook", "acme.example"));
    let row = &report.rows[0];
    assert_eq!((row.header_from.as_str(), row.reason.as_deref()), ("news.acme.example", Some("local_policy")));
    assert_eq!(row.source_ip.map(|ip| ip.to_string()).as_deref(), Some("2001:db8::10"));
    assert_eq!((row.dkim, row.spf, row.count), (true, false, 7));
}

#[test]
fn yahoos_form_with_one_address_in_two_records() {
    let report = dmarc(YAHOO);
    assert_eq!(report.errors, ["R&D says \"fine\""]);
    assert_eq!(report.rows.len(), 1, "the same address with the same result is one row");
    assert_eq!((report.rows[0].count, report.rows[0].auth.len()), (7, 3));
}

#[test]
fn the_form_of_rfc_9990() {
    let report = dmarc(RFC9990);
    assert_eq!((report.policy.testing.as_deref(), report.policy.pct.as_deref()), (Some("n"), None));
    assert_eq!((report.rows[0].disposition.as_str(), report.rows[0].count), ("pass", 123));
    let prefixed = RFC9990.replace("xmlns=", "xmlns:d=").replace("</", "</d:").replace('<', "<d:");
    let prefixed = prefixed.replace("<d:/d:", "</d:").replace("<d:?", "<?");
    assert_eq!(dmarc(&prefixed), report, "the prefix of a namespace changes nothing");
}

#[test]
fn a_tls_report_as_in_rfc_8460_and_googles() {
    let report = tls(TLS);
    assert_eq!((report.org.as_str(), report.policies.len()), ("Company-X", 1));
    let policy = &report.policies[0];
    assert_eq!((policy.kind.as_str(), policy.domain.as_str()), ("sts", "company-y.example"));
    assert_eq!((policy.success, policy.failure), (5_326, 303));
    let failures: Vec<(&str, u64)> = policy.failures.iter().map(|f| (f.result.as_str(), f.count)).collect();
    assert_eq!(failures, [("starttls-not-supported", 200), ("certificate-expired", 100), ("validation-failure", 3)]);
    assert_eq!(policy.failures[2].detail.as_deref(), Some("X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"));
    let report = tls(TLS_GOOGLE);
    assert_eq!((report.policies[0].success, report.policies[1].kind.as_str()), (14, "no-policy-found"));
}

#[test]
fn mails_with_what_receivers_attach() {
    let xml = "google.com!acme.example!1795305600!1795391999";
    for (content_type, name, octets) in [
        ("application/zip", format!("{xml}.zip"), zip("r.xml", GOOGLE.as_bytes(), false)),
        ("application/zip", format!("{xml}.zip"), zip("r.xml", GOOGLE.as_bytes(), true)),
        ("application/gzip", format!("{xml}.xml.gz"), gzip(GOOGLE.as_bytes())),
        ("application/octet-stream", format!("{xml}.xml.gz"), gzip(GOOGLE.as_bytes())),
        ("text/xml", format!("{xml}.xml"), GOOGLE.as_bytes().to_vec()),
    ] {
        let reports = read_mail(&mail(content_type, &name, &octets)).expect(content_type);
        assert!(matches!(&reports[..], [AuthReport::Dmarc(report)] if report.rows.len() == 2), "{content_type}");
    }
    for (content_type, octets) in
        [("application/tlsrpt+gzip", gzip(TLS.as_bytes())), ("application/tlsrpt+json", TLS.as_bytes().to_vec())]
    {
        let reports = read_mail(&mail(content_type, "report.json.gz", &octets)).expect(content_type);
        assert!(matches!(&reports[..], [AuthReport::Tls(_)]), "{content_type}");
    }
    // Google's older mails are nothing but the zip.
    let encoded = base64::engine::general_purpose::STANDARD.encode(zip("r.xml", GOOGLE.as_bytes(), false));
    let alone = format!(
        "From: a@google.com\r\nMIME-Version: 1.0\r\nContent-Type: application/zip; name=\"r.zip\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n"
    );
    assert_eq!(read_mail(alone.as_bytes()).expect("it is one").len(), 1);
}

#[test]
fn a_mail_without_a_report_is_none() {
    let plain = b"From: a@b.example\r\nSubject: hello\r\n\r\n<feedback> and {json} in a text\r\n";
    assert_eq!(read_mail(plain), Err(ReportError::NoReport));
    assert_eq!(read_mail(b""), Err(ReportError::NoReport));
    assert_eq!(read_file(b"neither"), Err(ReportError::NoReport));
}

#[test]
fn bombs_cost_what_the_limit_costs() {
    // 200 MB of blanks in 200 KB, as gzip and as zip, within XML and as nothing at all.
    let blanks = vec![b' '; 200 << 20];
    let began = Instant::now();
    refused(&gzip(&blanks), "too large");
    refused(&zip("r.xml", &blanks, true), "too large");
    let mut xml = GOOGLE.replace("</feedback>", "").into_bytes();
    xml.extend(&blanks);
    refused(&gzip(&xml), "too large");
    // Most of it is the packing above; unpacking stops at a tenth.
    assert!(began.elapsed().as_secs() < 60);
    refused(&gzip(&gzip(GOOGLE.as_bytes())), "more than once");
}

#[test]
fn hostile_xml_is_refused() {
    let with = |head: &str, text: &str| {
        GOOGLE.replacen("<feedback>", &format!("{head}<feedback>"), 1).replacen("google.com", text, 1).into_bytes()
    };
    let laughs = r#"<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]>"#;
    refused(&with(laughs, "&lol2;"), "a document type");
    refused(&with(r#"<!DOCTYPE foo SYSTEM "file:///etc/passwd">"#, "x"), "a document type");
    refused(&with("", "&xxe;"), "an entity");
    refused(&format!("{}{}", "<feedback>", "<a>".repeat(100_000)).into_bytes(), "within each other");
    let record = "<record><row><source_ip>192.0.2.1</source_ip><count>1</count></row></record>";
    let many = GOOGLE.replace("</feedback>", &format!("{}</feedback>", record.repeat(RECORDS_MAX)));
    refused(many.as_bytes(), "50000 records");
    refused(b"<html><body>no</body></html>", "no feedback");
}

#[test]
fn what_is_cut_off_is_refused_wherever_that_is() {
    for end in (1..GOOGLE.trim_end().len()).step_by(7) {
        assert!(read_file(&GOOGLE.as_bytes()[..end]).is_err(), "cut at {end}");
    }
    for end in (1..TLS.len()).step_by(7) {
        assert!(read_file(&TLS.as_bytes()[..end]).is_err(), "cut at {end}");
    }
    let packed = gzip(GOOGLE.as_bytes());
    for end in (1..packed.len()).step_by(3) {
        assert!(read_file(&packed[..end]).is_err(), "gzip cut at {end}");
    }
    let packed = zip("r.xml", GOOGLE.as_bytes(), false);
    let end = packed.len() - b"PK\x01\x02 the directory is not asked".len();
    for end in (1..end).step_by(3) {
        assert!(read_file(&packed[..end]).is_err(), "zip cut at {end}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (from, what) in [
        ("<org_name>google.com</org_name>", "org_name"),
        ("<report_id>11480935628091234567</report_id>", "report_id"),
        ("<domain>acme.example</domain>\n    <adkim>", "the domain"),
        ("<end>1795391999</end>", "the date_range"),
        ("<source_ip>192.0.2.10</source_ip>", "the source_ip"),
    ] {
        let to = if from.ends_with("<adkim>") { "<adkim>" } else { "" };
        refused(GOOGLE.replacen(from, to, 1).as_bytes(), what);
    }
    refused(TLS.replace("report-id", "x").as_bytes(), "report-id");
    refused(TLS.replace("policy-domain", "x").as_bytes(), "policy-domain");
    refused(TLS.replace("5326", "-1").as_bytes(), "bad JSON");
    refused(b"{\"a\":[[[[", "bad JSON");
}

#[test]
fn deep_json_does_not_end_the_process() {
    refused(format!("{{\"policies\":{}", "[".repeat(1_000_000)).as_bytes(), "bad JSON");
}

#[test]
fn many_addresses_are_summed_up_and_the_sum_is_right() {
    let record = |i: u32| {
        format!(
            "<record><row><source_ip>10.{}.{}.{}</source_ip><count>2</count><policy_evaluated><disposition>none</disposition>\
             <dkim>pass</dkim></policy_evaluated></row><identifiers><header_from>a.example</header_from></identifiers></record>",
            i >> 16,
            (i >> 8) & 255,
            i & 255
        )
    };
    let all: String = (0..20_000).map(record).collect();
    let report = dmarc(&GOOGLE.replace("</feedback>", &format!("{all}</feedback>")));
    assert_eq!(report.rows.len(), ROWS_MAX + 1);
    assert_eq!(report.rows.iter().map(|row| row.count).sum::<u64>(), 40_000 + 1_203);
    assert_eq!(report.rows.last().expect("the sum").source_ip, None);
}

#[test]
fn texts_are_one_clean_line() {
    let long = "x".repeat(100_000);
    let report = dmarc(&GOOGLE.replacen("google.com", &format!("a\n&#27;[31m{long}"), 1));
    assert!(report.org.len() <= TEXT_MAX && !report.org.contains(char::is_control), "{}", report.org.len());
    // Another charset than it says, or UTF-16.
    let latin: Vec<u8> = GOOGLE.replacen("google.com", "M\u{fc}ller", 1).chars().map(|c| c as u8).collect();
    assert!(matches!(&read_file(&latin).expect("read")[..], [AuthReport::Dmarc(r)] if r.org == "M\u{fc}ller"));
    let mut wide = vec![0xff, 0xfe];
    wide.extend(GOOGLE.encode_utf16().flat_map(u16::to_le_bytes));
    assert!(matches!(&read_file(&wide).expect("read")[..], [AuthReport::Dmarc(r)] if r.rows.len() == 2));
}
