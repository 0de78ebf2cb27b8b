//! What is told of a DNS in which something is missing, of one in memory, and of a server on loopback.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};

use super::*;
use crate::dkim::{Algorithm, Key, KeySpec, PrivateKey, keygen};
use crate::queue::keys;
use crate::seam::dns::Zones;

const TOML: &str = "hostname = 'mta.example'\ndata_dir = 'd'\n\
    [[sources]]\nname = 'ip1'\naddress = '203.0.113.5'\n[[sources]]\nname = 'inside'\naddress = '10.0.0.1'\n\
    [[tenants]]\nname = 'acme'\ndomains = ['acme.example', '*']\nbounce_domain = 'b.acme.example'\n\
    [[dkim]]\ndomain = 'acme.example'\nselector = 's1'\nalgorithm = 'rsa-sha256'\nkey_file = 'x'\n";

fn texts(texts: &[&str]) -> Said {
    Said::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// A DNS in which all is well.
fn zone() -> HashMap<Ask, Said> {
    let address: IpAddr = "203.0.113.5".parse().expect("an address");
    HashMap::from([
        (Ask::Addresses("mta.example".into()), Said::Addresses(vec![address])),
        (Ask::Names(address), texts(&["MTA.example."])),
        (Ask::Texts("s1._domainkey.acme.example".into()), texts(&["v=DKIM1; k=rsa; p=MIIB"])),
        (Ask::Texts("_dmarc.acme.example".into()), texts(&["v=DMARC1; p=none"])),
        (Ask::Hosts("acme.example".into()), texts(&["mx.acme.example"])),
        (Ask::Hosts("b.acme.example".into()), texts(&["mta.example"])),
        (Ask::Texts("b.acme.example".into()), texts(&["google-site-verification=1", "v=spf1 ip4:203.0.113.5 -all"])),
    ])
}

fn check_zone(change: impl Fn(&mut HashMap<Ask, Said>), want: &[&str]) {
    let config: Config = toml::from_str(TOML).expect("valid");
    let mut zone = zone();
    change(&mut zone);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let found = runtime.block_on(check(&config, &keys::load(&config).ring, &zone));
    let words: Vec<_> =
        found.iter().map(|f| format!("{} {}", if f.is_error { "error" } else { "warning" }, f.words)).collect();
    assert_eq!(words, want);
}

#[test]
fn all_is_well() {
    check_zone(|_| {}, &[]);
}

#[test]
fn an_empty_dns_lacks_everything() {
    check_zone(
        HashMap::clear,
        &[
            "error mta.example (hostname) has no address: add an A or AAAA record",
            "error mta.example (source ip1) does not resolve to 203.0.113.5: add the record",
            "error 203.0.113.5 (source ip1) has no name: ask its owner for a PTR record to mta.example",
            "error s1._domainkey.acme.example: no DKIM record: `posthaste dkim dns` prints it",
            "warning _dmarc.acme.example (tenant acme) has no DMARC policy: large receivers ask for one",
            "error b.acme.example (bounces of tenant acme) has no MX: late bounces get lost",
            "warning b.acme.example (tenant acme) has no SPF record: large receivers ask for one",
        ],
    );
}

#[test]
fn wrong_records_are_told_from_missing_ones() {
    let address: IpAddr = "203.0.113.5".parse().expect("an address");
    check_zone(
        |zone| {
            zone.insert(Ask::Names(address), texts(&["host5.isp.example"]));
            zone.insert(Ask::Texts("s1._domainkey.acme.example".into()), texts(&["v=DKIM1; p="]));
            zone.insert(Ask::Texts("b.acme.example".into()), texts(&["v=spf1 -all", "v=spf1 +all"]));
            zone.insert(Ask::Hosts("acme.example".into()), texts(&[""]));
            zone.insert(Ask::Texts("_dmarc.acme.example".into()), Said::Unknown("SERVFAIL".into()));
        },
        &[
            "warning 203.0.113.5 (source ip1) is called host5.isp.example, and says EHLO mta.example: make the PTR record the EHLO name",
            "error s1._domainkey.acme.example: the key is revoked (p= is empty)",
            "error acme.example (tenant acme) says by a null MX that it takes no mail: receivers refuse its senders",
            "warning _dmarc.acme.example: can't be told now: SERVFAIL",
            "error b.acme.example (tenant acme) has 2 records of the kind SPF record: none counts",
        ],
    );
}

/// The same zone as in `zone`, behind the real resolver's interface.
fn zones() -> Zones {
    let address: IpAddr = "203.0.113.5".parse().expect("an address");
    Zones::new()
        .address("mta.example", address)
        .name(address, "mta.example.")
        .txt("s1._domainkey.acme.example", &["v=DKIM1; k=rsa; ", "p=MIIB"])
        .txt("_dmarc.acme.example", &["v=DMARC1; p=none"])
        .mx("acme.example", 10, "mx.acme.example.")
        .mx("b.acme.example", 10, "mta.example.")
        .txt("b.acme.example", &["google-site-verification=1"])
        .txt("b.acme.example", &["v=spf1 ip4:203.0.113.5 -all"])
}

fn check_zones(zones: Zones, limit: Duration, want: &[&str]) {
    let config: Config = toml::from_str(TOML).expect("valid");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let resolver = Resolver::fixed(zones, DnsMetrics::register(&Registry::new()));
    let found = runtime.block_on(ask_all(&config, &keys::load(&config).ring, &resolver, limit));
    assert_eq!(found.iter().map(|f| f.words.as_str()).collect::<Vec<_>>(), want);
}

#[test]
fn the_resolver_is_asked_as_the_check_wants() {
    check_zones(zones(), CHECK_TIME_MAX, &[]);
    let null_mx = Zones::new()
        .address("mta.example", "203.0.113.6".parse().expect("an address"))
        .name("203.0.113.5".parse().expect("an address"), "other.example.")
        .txt("s1._domainkey.acme.example", &["v=DKIM1; p="])
        .failing("_dmarc.acme.example")
        .mx("acme.example", 0, ".")
        .empty("b.acme.example");
    check_zones(
        null_mx,
        CHECK_TIME_MAX,
        &[
            "mta.example (source ip1) does not resolve to 203.0.113.5: add the record",
            "203.0.113.5 (source ip1) is called other.example, and says EHLO mta.example: make the PTR record the EHLO name",
            "s1._domainkey.acme.example: the key is revoked (p= is empty)",
            "acme.example (tenant acme) says by a null MX that it takes no mail: receivers refuse its senders",
            "_dmarc.acme.example: can't be told now: TXT _dmarc.acme.example: SERVFAIL",
            "b.acme.example (bounces of tenant acme) has no MX: late bounces get lost",
            "b.acme.example (tenant acme) has no SPF record: large receivers ask for one",
        ],
    );
}

#[test]
fn when_time_is_over_nothing_is_asked_and_that_is_told() {
    let over = |name| format!("{name}: can't be told now: the time for all questions is over");
    let names = [
        "mta.example",
        "mta.example",
        "203.0.113.5",
        "s1._domainkey.acme.example",
        "_dmarc.acme.example",
        "b.acme.example",
        "b.acme.example",
    ];
    let mut want: Vec<String> = names.iter().map(over).collect();
    want.push("no question was answered: is [dns] resolvers right, and does one run there?".into());
    check_zones(zones(), Duration::ZERO, &want.iter().map(String::as_str).collect::<Vec<_>>());
}

/// `[dns] resolvers` is who is asked: here a server that knows no name.
#[test]
fn the_resolvers_of_the_configuration_are_asked() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = server.local_addr().expect("an address");
    let count = std::thread::spawn(move || {
        let (mut asked, mut query) = (0, [0; 1500]);
        server.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        while let Ok((n, from)) = server.recv_from(&mut query) {
            if n < 12 {
                return asked;
            }
            // RFC 1035 §4.1.1: a response, recursion available, NXDOMAIN.
            query[2] |= 0x80;
            query[3] = 0x83;
            server.send_to(&query[..n], from).expect("sent");
            asked += 1;
        }
        asked
    });
    let config: Config = toml::from_str(&format!("{TOML}[dns]\nresolvers = ['{address}']\n")).expect("valid");
    assert_eq!(run(&config, &keys::load(&config).ring, true).expect("asked"), Exit::Failure);
    UdpSocket::bind("127.0.0.1:0").and_then(|end| end.send_to(b"end", address)).expect("sent");
    assert!(count.join().expect("ended") >= 8);
}

/// A record that was pasted from the key before, or cut by a form, is there and makes every signature fail.
#[test]
fn the_record_of_another_key_is_told() {
    let made = keygen(Algorithm::Ed25519Sha256).expect("a key");
    let private = PrivateKey::from_pem(made.private_pem.as_bytes(), Algorithm::Ed25519Sha256).expect("a key");
    let key = Key {
        domain: crate::types::Domain::parse("acme.example").expect("valid"),
        selector: "s1".into(),
        algorithm: Algorithm::Ed25519Sha256,
        active_from: None,
        private: Ok(private),
    };
    let ring = KeyRing::new(vec![KeySpec { key, sign_for: Vec::new() }]);
    let check = |record: String, want: &[&str]| {
        let zones = Zones::new().txt("s1._domainkey.acme.example", &[&record]);
        let resolver = Resolver::fixed(zones, DnsMetrics::register(&Registry::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let found = runtime.block_on(ask_all(&Config::default(), &ring, &resolver, CHECK_TIME_MAX));
        assert_eq!(found.iter().map(|f| f.words.as_str()).collect::<Vec<_>>(), want, "{record}");
    };
    let (head, tail) = made.public_base64.split_at(20);
    check(format!("v=DKIM1; k=ed25519; p={head}{tail}"), &[]);
    check(format!("v=DKIM1; k=ed25519; p = {head} {tail} ;"), &[]);
    check(
        format!("v=DKIM1; k=ed25519; p={head}"),
        &[
            "s1._domainkey.acme.example: the record is of another key, so every signature fails: `posthaste dkim dns` prints the right one",
        ],
    );
}
