//! What the pre-flight says of whole campaigns: all is well, then one thing is changed and its finding is there.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dns::{Ask, Said};
use super::*;
use crate::campaign::ports::Severity;
use crate::dkim::{Algorithm, Key, KeySpec, PrivateKey, dns_record, keygen, sign};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

const TOML: &str = "hostname = 'mta.acme.example'\ndata_dir = 'd'\n\
    [[sources]]\nname = 'ip1'\naddress = '203.0.113.5'\nehlo = 'mta.acme.example'\n\
    [[pools]]\nname = 'bulk'\nsources = [{ name = 'ip1' }]\n\
    [public]\naddress = '127.0.0.1:0'\nurl = 'https://links.acme.example'\n\
    [[tenants]]\nname = 'acme'\ndomains = ['acme.example']\nbounce_domain = 'bounce.acme.example'\n";

const HTML: &str = "<p>Hello Ada <img src=\"https://www.acme.example/x.png\" alt=\"A shoe\"> \
    <a href=\"https://www.acme.example/?a=1&amp;b=2\">Shop</a> \
    <a href=\"https://links.acme.example/u/abc\">Unsubscribe</a></p>";

/// A campaign in which all is well, to change one thing of it.
struct World {
    toml: String,
    header: String,
    html: Option<String>,
    text: Option<String>,
    zone: HashMap<Ask, Said>,
    rows: RowFacts,
    on_missing: OnMissing,
    size_max: u64,
    with_key: bool,
    /// Whose key signs.
    key_domain: &'static str,
    key_file: bool,
    /// The message as a whole, in place of the header and a line.
    raw: Option<&'static [u8]>,
}

fn texts(texts: &[&str]) -> Said {
    Said::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn ip() -> IpAddr {
    "203.0.113.5".parse().expect("an address")
}

impl World {
    fn new(public: &str) -> Self {
        let domain = Domain::parse("acme.example").expect("valid");
        let key = dns_record("s1", &domain, Algorithm::Ed25519Sha256, public).value;
        let here = || Said::Addresses(vec![ip()]);
        let zone = HashMap::from([
            (Ask::Addresses("mta.acme.example".into()), here()),
            (Ask::Addresses("www.acme.example".into()), here()),
            (Ask::Addresses("links.acme.example".into()), here()),
            (Ask::Names(ip()), texts(&["mta.acme.example"])),
            (Ask::Texts("bounce.acme.example".into()), texts(&["v=spf1 ip4:203.0.113.5 -all"])),
            (Ask::Texts("s1._domainkey.acme.example".into()), texts(&[key.as_str()])),
            (Ask::Texts("_dmarc.acme.example".into()), texts(&["v=DMARC1; p=reject"])),
            (Ask::Hosts("acme.example".into()), texts(&["mx.acme.example"])),
            (Ask::Hosts("bounce.acme.example".into()), texts(&["mta.acme.example"])),
        ]);
        let header = format!(
            "From: Acme <news@acme.example>\r\nTo: ada@example.net\r\nSubject: Shoes for Ada\r\nDate: {}\r\n\
             Message-ID: <1@acme.example>\r\nFeedback-ID: spring:acme:news:acmesender\r\nMIME-Version: 1.0\r\n\
             List-Unsubscribe: <https://links.acme.example/u/abc>,\r\n <mailto:u@acme.example>\r\n\
             List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nContent-Type: text/plain\r\n",
            NOW.rfc5322()
        );
        Self {
            toml: TOML.into(),
            header,
            html: Some(HTML.into()),
            text: Some("Hello Ada\nhttps://www.acme.example/".into()),
            zone,
            rows: RowFacts { rows: 80_000, ..RowFacts::default() },
            on_missing: OnMissing::Skip,
            size_max: 1 << 20,
            with_key: true,
            key_domain: "acme.example",
            key_file: true,
            raw: None,
        }
    }
}

fn ring(private_pem: &str, domain: &str, usable: bool) -> KeyRing {
    let private = PrivateKey::from_pem(private_pem.as_bytes(), Algorithm::Ed25519Sha256).expect("a key");
    let key = Key {
        domain: Domain::parse(domain).expect("valid"),
        selector: "s1".into(),
        algorithm: Algorithm::Ed25519Sha256,
        active_from: None,
        private: if usable { Ok(private) } else { Err("the file is not there".into()) },
    };
    let acme = Domain::parse("acme.example").expect("valid");
    KeyRing::new(vec![KeySpec { key, sign_for: vec![crate::dkim::SignFor::Exact(acme)] }])
}

fn report(change: impl Fn(&mut World)) -> Report {
    let made = keygen(Algorithm::Ed25519Sha256).expect("a key");
    let mut world = World::new(&made.public_base64);
    change(&mut world);
    let made_ring = |usable| ring(&made.private_pem, world.key_domain, usable);
    let signs = if world.with_key { made_ring(true) } else { KeyRing::default() };
    let ring = if world.with_key { made_ring(world.key_file) } else { KeyRing::default() };
    let config: Config = toml::from_str(&world.toml).expect("valid");
    let body = format!("{}\r\nHello\r\n", world.header);
    let mut raw = sign(body.as_bytes(), signs.keys(), NOW).expect("signed");
    raw.extend_from_slice(body.as_bytes());
    let raw = world.raw.map_or(raw, <[u8]>::to_vec);
    let sample = Sample { of: "row 1", raw: &raw, html: world.html.as_deref(), text: world.text.as_deref() };
    let from = Mailbox::parse("news@acme.example").expect("valid");
    let pool = Name::parse("bulk").expect("valid");
    let check = Preflight {
        config: &config,
        tenant: &config.tenants[0],
        ring: &ring,
        class: Class::Marketing,
        pool: &pool,
        from: &from,
        samples: &[sample],
        rows: &world.rows,
        on_missing: world.on_missing,
        size_max: world.size_max,
        now: NOW,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // The control thread's handlers must be able to hold it across threads.
        fn is_send<F: Future + Send>(future: F) -> F {
            future
        }
        is_send(check.run(&world.zone, &Scorers(&config.check))).await
    })
}

/// The findings with their severity, as `error spf-missing`.
fn check(change: impl Fn(&mut World), want: &[&str]) {
    let report = report(change);
    let word = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let got: Vec<String> = report.findings.iter().map(|f| format!("{} {}", word(f.severity), f.code)).collect();
    assert_eq!(got, want, "{:#?}", report.findings);
}

fn header(from: &'static str, to: &'static str) -> impl Fn(&mut World) {
    move |world| {
        assert!(world.header.contains(from), "{from}");
        world.header = world.header.replace(from, to);
    }
}

fn dns(ask: Ask, said: Said) -> impl Fn(&mut World) {
    move |world| drop(world.zone.insert(ask.clone(), said.clone()))
}

fn html(html: &'static str) -> impl Fn(&mut World) {
    move |world| world.html = Some(format!("{HTML}{html}"))
}

#[test]
fn all_is_well() {
    check(|_| {}, &[]);
}

#[test]
fn spf_and_dmarc() {
    let spf = |said| dns(Ask::Texts("bounce.acme.example".into()), said);
    check(spf(Said::Nothing), &["error spf-missing"]);
    check(spf(texts(&["v=spf1 -all"])), &["error spf-missing-source"]);
    check(spf(texts(&["v=spf1 a:%{z} -all"])), &["error spf-invalid"]);
    check(spf(texts(&["v=spf1 +all"])), &["warning spf-allows-everybody"]);
    check(spf(Said::Unknown("SERVFAIL".into())), &["warning dns-unknown"]);
    let dmarc = |said| dns(Ask::Texts("_dmarc.acme.example".into()), said);
    check(dmarc(Said::Nothing), &["error dmarc-missing"]);
    check(dmarc(texts(&["v=DMARC1; p=x"])), &["error dmarc-invalid"]);
    check(dmarc(texts(&["v=DMARC1; p=none"])), &["info dmarc-none"]);
    check(dmarc(texts(&["v=DMARC1; p=reject; aspf=s"])), &["info return-path-not-aligned"]);
    check(dmarc(Said::Unknown("SERVFAIL".into())), &["warning dns-unknown"]);
}

#[test]
fn dkim() {
    let record = |said| dns(Ask::Texts("s1._domainkey.acme.example".into()), said);
    check(record(Said::Nothing), &["error dkim-record-missing"]);
    check(record(texts(&["v=DKIM1; p="])), &["error dkim-record-wrong"]);
    check(record(texts(&["v=DKIM1; k=ed25519; p=AAAA"])), &["error dkim-record-wrong"]);
    check(|world| world.with_key = false, &["error one-click-not-signed", "error dkim-missing"]);
}

#[test]
fn hosts_and_the_way_back() {
    check(dns(Ask::Names(ip()), Said::Nothing), &["error ptr-missing"]);
    check(dns(Ask::Names(ip()), texts(&["host5.isp.example"])), &["error ptr-not-confirmed"]);
    check(dns(Ask::Names(ip()), texts(&["www.acme.example"])), &["warning ptr-not-ehlo"]);
    check(dns(Ask::Addresses("mta.acme.example".into()), Said::Nothing), &["error ehlo-not-forward"]);
    check(dns(Ask::Hosts("bounce.acme.example".into()), Said::Nothing), &["error bounce-mx-missing"]);
    check(
        dns(Ask::Hosts("bounce.acme.example".into()), texts(&["mx.google.example"])),
        &["warning bounce-mx-elsewhere"],
    );
    check(dns(Ask::Hosts("acme.example".into()), texts(&[""])), &["error from-domain-no-mail"]);
    check(dns(Ask::Addresses("www.acme.example".into()), Said::Nothing), &["error link-no-host"]);
}

#[test]
fn a_dns_that_does_not_answer_is_no_error() {
    check(
        |world| {
            let asks: Vec<Ask> = world.zone.keys().cloned().collect();
            for ask in asks {
                world.zone.insert(ask, Said::Unknown("time-out".into()));
            }
            // What the walks ask beside the zone.
            for name in ["_dmarc.example", "_dmarc.bounce.acme.example"] {
                world.zone.insert(Ask::Texts(name.into()), Said::Unknown("time-out".into()));
            }
        },
        &["warning dns-unknown"],
    );
}

#[test]
fn mail_that_does_not_go_to_the_world_needs_no_dns() {
    let route = |world: &mut World| {
        world.zone.clear();
        world.toml.push_str("[routes.'*']\nhosts = ['127.0.0.1:2525']\n");
    };
    check(route, &["info dns-not-checked"]);
    let loopback = |world: &mut World| {
        world.zone.clear();
        world.toml = world.toml.replace("203.0.113.5", "127.0.0.1");
    };
    check(loopback, &["info dns-not-checked"]);
}

#[test]
fn one_click_and_identity() {
    check(header("List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", ""), &["error one-click-missing"]);
    check(header("=One-Click", "=one-click"), &["error one-click-post-wrong"]);
    check(header("<https://links", "<http://links"), &["error one-click-not-https"]);
    check(header("Shoes for Ada", ""), &["error subject-missing"]);
    check(header("Shoes for Ada", "BUY MORE SHOES"), &["warning subject-capitals"]);
    check(header("Shoes for Ada", "Shoes for {{ name }}"), &["error placeholder-left"]);
    check(header("Shoes for Ada", "Schöne Schuhe"), &["error header-not-ascii"]);
    check(header("Acme <", "\"ceo@bank.example\" <"), &["warning from-name-address"]);
    check(header("<1@acme.example>", "1"), &["error message-id-invalid"]);
    check(header("To: ada@example.net\r\n", ""), &["warning to-missing"]);
    check(header("Feedback-ID: spring:acme:news:acmesender\r\n", ""), &["warning feedback-id-missing"]);
    check(header(":acmesender", ":x"), &["warning feedback-id-invalid"]);
    check(header("Subject:", "Subject: twice\r\nSubject:"), &["error header-duplicate"]);
    check(|world| world.header = world.header.replace("Date: ", "X: "), &["error date-invalid"]);
    let attachment = "Content-Type: application/octet-stream; name=\"a.PDF.Exe\"\r\nContent-Disposition: attachment; filename=\"a.PDF.Exe\"\r\n";
    check(header("Content-Type: text/plain\r\n", attachment), &["error attachment-executable"]);
    check(|world| world.size_max = 100, &["error message-too-large"]);
}

/// Signed by a key, but without the two fields in `h=`: a receiver shows no button.
#[test]
fn one_click_must_be_under_the_signature() {
    let signed = |field: &'static str| {
        move |world: &mut World| {
            world.with_key = false;
            world.header = format!("DKIM-Signature: v=1; {field}; b=x\r\n{}", world.header);
        }
    };
    let both = "h=From:List-Unsubscribe:\r\n list-unsubscribe-post";
    check(signed("d=acme.example; h=From:List-Unsubscribe:\r\n list-unsubscribe-post"), &["error dkim-missing"]);
    check(signed("d=acme.example; h=From:To:List-Unsubscribe"), &["error one-click-not-signed", "error dkim-missing"]);
    // A signature of somebody else covers both, ours does not.
    check(
        move |world| {
            signed("d=acme.example; h=From")(world);
            world.header = format!("DKIM-Signature: d=other.example; {both}; b=x\r\n{}", world.header);
        },
        &["error one-click-not-signed", "error dkim-missing"],
    );
}

#[test]
fn bodies_and_links() {
    check(|world| world.text = None, &["warning text-missing"]);
    check(|world| world.text = Some(" ".into()), &["warning text-empty"]);
    check(|world| (world.html, world.text) = (None, None), &["error body-empty", "warning unsubscribe-link-missing"]);
    check(|world| world.html = Some("<p>Hello</p>".into()), &["warning unsubscribe-link-missing"]);
    check(|world| world.html = Some(format!("{HTML}{}", "x".repeat(110_000))), &["warning html-clipped"]);
    check(html("<img src='x.png'>"), &["warning alt-missing"]);
    check(html("<img alt='' src='x.png'><IMG ALT src=y>"), &[]);
    check(html("<a href='/shop'>x</a>"), &["error link-not-absolute"]);
    check(html("<a href=www.acme.example>x</a>"), &["error link-not-absolute"]);
    check(html("<a href='http://www.acme.example/'>x</a>"), &["warning link-http"]);
    check(html("<a title='a > b' href='#'>x</a>"), &["error link-placeholder"]);
    check(html("<a href='#top'>x</a><a href='mailto:a@acme.example'>x</a>"), &[]);
    check(html("<a href='javascript:x()'>x</a>"), &["warning link-not-http"]);
    check(html("<a href='https://bit.ly/x'>x</a>"), &["error link-no-host", "warning link-shortener"]);
    check(html("Dear %NAME%"), &["error placeholder-left"]);
    check(html("Dear *|FNAME|*"), &["error placeholder-left"]);
    check(html("<style>a { b: c }</style><!-- {{ --> 100 % of %C3%A9"), &[]);
}

#[test]
fn rows() {
    check(|world| world.rows.rows = 0, &["error rows-none"]);
    check(|world| world.rows.suppressed = 10, &["info rows-suppressed"]);
    check(|world| world.rows.suppressed = 5_000, &["warning rows-suppressed"]);
    check(|world| world.rows.invalid = 5_000, &["warning rows-invalid"]);
    check(|world| world.rows.render_errors = 1, &["error render-errors"]);
    let missing = |world: &mut World| world.rows.missing = vec![("first_name".into(), 1_204)];
    check(missing, &["warning missing-variable"]);
    let found = report(|world| {
        missing(world);
        world.on_missing = OnMissing::Error;
    });
    assert!(found.blocks());
    assert_eq!(found.findings[0].title, "first_name missing in 1,204 of 80,000");
}

/// What is said of a few campaigns only.
#[test]
fn sizes_lists_and_places_of_rare_findings() {
    let long: &'static str = Box::leak(format!("X-Long: {}\r\nTo: ada@", "y".repeat(1_100)).into_boxed_str());
    check(header("To: ada@", long), &["error header-line-long"]);
    let lines: &'static str = Box::leak(format!("{}To: ada@", "X-Pad: 0123456789\r\n".repeat(60_000)).into_boxed_str());
    let large = move |world: &mut World| {
        header("To: ada@", lines)(world);
        world.size_max = 1 << 24;
    };
    check(large, &["warning message-large"]);
    let subject: &'static str = Box::leak("a long story about shoes ".repeat(6).into_boxed_str());
    check(header("Shoes for Ada", subject), &["warning subject-long"]);
    check(|world| world.rows.duplicates = 10, &["info rows-duplicate"]);
    check(|world| world.rows.duplicates = 5_000, &["warning rows-duplicate"]);
    check(|world| world.rows.role_accounts = 10, &["info rows-role-accounts"]);
    let found = report(|world| world.raw = Some(b""));
    assert!(found.blocks() && found.findings.iter().any(|f| f.code == "sample-unreadable"), "{:#?}", found.findings);
    let inside = |world: &mut World| world.toml = world.toml.replace("203.0.113.5", "10.0.0.5");
    check(inside, &["warning source-not-public"]);
    check(|world| world.key_file = false, &["error dkim-key-unreadable"]);
    let no_way_back = |world: &mut World| {
        world.toml = world.toml.replace("bounce_domain = 'bounce.acme.example'\n", "");
        world.zone.insert(Ask::Texts("acme.example".into()), texts(&["v=spf1 ip4:203.0.113.5 -all"]));
    };
    check(no_way_back, &["warning bounce-domain-missing"]);
}

/// The key of a provider signs, not one of the domain that people see.
#[test]
fn alignment() {
    let other_key = |world: &mut World| {
        let record = world.zone.remove(&Ask::Texts("s1._domainkey.acme.example".into())).expect("there");
        world.zone.insert(Ask::Texts("s1._domainkey.esp.test".into()), record);
        world.key_domain = "esp.test";
    };
    let codes = |change: &dyn Fn(&mut World)| {
        let findings = report(change).findings;
        let codes: Vec<String> =
            findings.iter().map(|f| f.code.to_string()).filter(|code| code.ends_with("aligned")).collect();
        codes
    };
    assert_eq!(codes(&other_key), ["dkim-not-aligned"]);
    let other_path = |world: &mut World| {
        other_key(world);
        world.toml = world.toml.replace("bounce.acme.example", "bounce.esp.test");
        world.zone.insert(Ask::Texts("bounce.esp.test".into()), texts(&["v=spf1 ip4:203.0.113.5 -all"]));
        world.zone.insert(Ask::Hosts("bounce.esp.test".into()), texts(&["mta.acme.example"]));
    };
    assert_eq!(codes(&other_path), ["dmarc-not-aligned"]);
}

#[test]
fn a_fix_is_a_record_to_paste() {
    let found = report(dns(Ask::Texts("bounce.acme.example".into()), texts(&["v=spf1 include:x.example -all"])));
    assert_eq!(found.findings[0].code, "spf-invalid");
    let found = report(dns(Ask::Texts("bounce.acme.example".into()), texts(&["v=spf1 ip4:192.0.2.1 ~all"])));
    let want = "Publish this record:\nbounce.acme.example. IN TXT \"v=spf1 ip4:203.0.113.5 ip4:192.0.2.1 ~all\"";
    assert_eq!(found.findings[0].fix, want);
    assert_eq!(found.findings[0].details, ["ip1 (203.0.113.5): softfail"]);
    let port: crate::campaign::ports::Finding = found.findings[0].clone().into();
    assert_eq!(port.check, "spf-missing-source");
}

/// A filter on loopback that reads what comes and gives one answer.
async fn filter(answer: String) -> String {
    let listener = crate::seam::net::listen("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let listener = crate::seam::net::adopt(listener).expect("adopted");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut read = Vec::new();
        while !read.ends_with(b"the end\r\n") {
            let mut buffer = [0; 1_024];
            match stream.read(&mut buffer).await {
                Ok(n) if n > 0 => read.extend_from_slice(&buffer[..n]),
                _ => break,
            }
        }
        stream.write_all(answer.as_bytes()).await.expect("written");
    });
    address
}

#[test]
fn filters_score_the_sample() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let scored =
            r#"{"score":6.5,"required_score":15.0,"symbols":{"A":{"score":0.5},"B":{"score":6},"C":{"score":-1}}}"#;
        let rspamd = filter(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{scored}", scored.len()));
        let spamd = filter("SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1.5 / 5.0\r\n\r\nHTML_ONLY\r\n".into());
        let rspamd = rspamd.await;
        let config = crate::config::Check {
            rspamd: Some(format!("http://{rspamd}")),
            spamassassin: Some(spamd.await),
            spam_threshold: None,
        };
        let scores = Scorers(&config).score(b"Subject: x\r\n\r\nthe end\r\n").await;
        let scores: Vec<SpamScore> = scores.into_iter().map(|score| score.expect("scored")).collect();
        assert_eq!((scores[0].score, scores[0].required), (6.5, 15.0));
        assert_eq!(scores[0].symbols, ["B (6.0)", "A (0.5)"]);
        assert_eq!((scores[1].score, scores[1].required), (1.5, 5.0));
        // Both have answered once and are gone.
        let scores = Scorers(&config).score(b"x").await;
        assert!(scores.iter().all(Result::is_err), "{scores:?}");
        let found = spam::check(&Scorers(&config), Some(b"x"), None).await;
        assert!(found.iter().all(|f| f.code == "spam-unreachable" && f.severity == Severity::Warning));
        assert_eq!(found.len(), 2);
    });
}
