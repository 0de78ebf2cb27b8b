//! Records and results by RFC 7208: its examples (appendix A), its bounds (§4.6.4), its macros (§7.4).

use std::collections::HashMap;

use super::*;

/// The zone of appendix A, with one record for `example.com`.
fn zone(record: &str) -> HashMap<Ask, Said> {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let addresses = |list: &[&str]| Said::Addresses(list.iter().map(|text| ip(text)).collect());
    let texts = |list: &[&str]| Said::Texts(list.iter().map(|text| (*text).to_owned()).collect());
    let a = |name: &str| Ask::Addresses(name.to_owned());
    HashMap::from([
        (Ask::Texts("example.com".into()), texts(&["other", record])),
        (a("example.com"), addresses(&["192.0.2.10", "192.0.2.11"])),
        (a("amy.example.com"), addresses(&["192.0.2.65"])),
        (a("bob.example.com"), addresses(&["192.0.2.66"])),
        (a("mail-a.example.com"), addresses(&["192.0.2.129"])),
        (a("mail-b.example.com"), addresses(&["192.0.2.130"])),
        (a("mail-c.example.org"), addresses(&["192.0.2.140"])),
        (Ask::Hosts("example.com".into()), texts(&["mail-a.example.com", "mail-b.example.com"])),
        (Ask::Hosts("example.org".into()), texts(&["mail-c.example.org"])),
        (Ask::Names(ip("192.0.2.10")), texts(&["example.com"])),
        (Ask::Names(ip("192.0.2.65")), texts(&["amy.example.com"])),
        (Ask::Names(ip("192.0.2.140")), texts(&["mail-c.example.org"])),
        (Ask::Names(ip("10.0.0.4")), texts(&["bob.example.com"])),
        (a("mary.mobile-users._spf.example.com"), addresses(&["127.0.0.2"])),
        (a("3.2.0.192.in-addr._spf.example.com"), addresses(&["127.0.0.2"])),
        (Ask::Texts("_spf.example.com".into()), texts(&["v=spf1 ip4:203.0.113.0/24 -all"])),
        (Ask::Texts("soft.example.com".into()), texts(&["v=spf1 ~all"])),
        (Ask::Texts("loop.example.com".into()), texts(&["v=spf1 include:loop.example.com -all"])),
        (Ask::Texts("two.example.com".into()), texts(&["v=spf1 -all", "v=spf1 +all"])),
        (Ask::Texts("busy.example.com".into()), Said::Unknown("SERVFAIL".into())),
    ])
}

fn check(record: &str, ip: &str, want: &str) {
    let zone = zone(record);
    let ip = ip.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let got = runtime.block_on(check_host(&zone, ip, "example.com", "mary@example.com", "mta.example.com"));
    assert_eq!(got.as_str(), want, "{record} {ip}: {got:?}");
}

#[test]
fn the_examples_of_appendix_a() {
    check("v=spf1 +all", "198.51.100.1", "pass");
    check("v=spf1 a -all", "192.0.2.10", "pass");
    check("v=spf1 a -all", "192.0.2.12", "fail");
    check("v=spf1 a:example.org -all", "192.0.2.10", "fail");
    check("v=spf1 mx -all", "192.0.2.129", "pass");
    check("v=spf1 mx -all", "192.0.2.10", "fail");
    check("v=spf1 mx:example.org -all", "192.0.2.140", "pass");
    check("v=spf1 mx mx:example.org -all", "192.0.2.130", "pass");
    check("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.131", "pass");
    check("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.143", "pass");
    check("v=spf1 mx/30 -all", "192.0.2.132", "fail");
    check("v=spf1 ptr -all", "192.0.2.10", "pass");
    check("v=spf1 ptr -all", "192.0.2.65", "pass");
    check("v=spf1 ptr -all", "192.0.2.140", "fail");
    check("v=spf1 ptr -all", "10.0.0.4", "fail");
    check("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.129", "pass");
    check("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.65", "fail");
}

#[test]
fn mechanisms_and_qualifiers() {
    check("V=SPF1 IP4:192.0.2.1 -ALL", "192.0.2.1", "pass");
    check("v=spf1 ?all", "192.0.2.1", "neutral");
    check("v=spf1 ip4:192.0.2.1", "192.0.2.2", "neutral");
    check("v=spf1 ~all", "192.0.2.1", "softfail");
    check("v=spf1 ip4:0.0.0.0/0 -all", "192.0.2.1", "pass");
    check("v=spf1 ip6:2001:db8::/32 -all", "2001:db8:1::1", "pass");
    check("v=spf1 ip6:::/0 -all", "2001:db8:1::1", "pass");
    check("v=spf1 ip6:2001:db8::/32 -all", "192.0.2.1", "fail");
    check("v=spf1 ip4:192.0.2.1 -all", "::ffff:192.0.2.1", "pass");
    check("v=spf1 include:_spf.example.com -all", "203.0.113.9", "pass");
    check("v=spf1 include:_spf.example.com ~all", "192.0.2.1", "softfail");
    check("v=spf1 include:soft.example.com -all", "192.0.2.1", "fail");
    check("v=spf1 redirect=_spf.example.com", "203.0.113.9", "pass");
    check("v=spf1 redirect=_spf.example.com", "192.0.2.1", "fail");
    check("v=spf1 redirect=_spf.example.com ?all", "192.0.2.1", "neutral");
    check("v=spf1 unknown=x exp=e.example.com -all", "192.0.2.1", "fail");
    check("v=spf1 exists:%{l}.mobile-users._spf.%{d} -all", "192.0.2.1", "pass");
    check("v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all", "192.0.2.3", "pass");
    check("v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all", "192.0.2.4", "fail");
}

#[test]
fn errors_and_bounds() {
    check("nothing", "192.0.2.1", "none");
    check("v=spf10 +all", "192.0.2.1", "none");
    for bad in ["ip4:300.0.0.1", "ip4:192.0.2.0/33", "ip4", "a:", "include", "allx", "foo:bar", "exists:%{z}", "all:x"]
    {
        check(&format!("v=spf1 {bad} -all"), "192.0.2.1", "permerror");
    }
    check("v=spf1 include:nowhere.example.com -all", "192.0.2.1", "permerror");
    check("v=spf1 redirect=nowhere.example.com", "192.0.2.1", "permerror");
    check("v=spf1 include:two.example.com -all", "192.0.2.1", "permerror");
    check("v=spf1 include:busy.example.com -all", "192.0.2.1", "temperror");
    check("v=spf1 ip4:192.0.2.1 include:busy.example.com -all", "192.0.2.1", "pass");
    check("v=spf1 include:loop.example.com -all", "192.0.2.1", "permerror");
    let ten = " a".repeat(10);
    check(&format!("v=spf1{ten} -all"), "192.0.2.1", "fail");
    check(&format!("v=spf1{ten} a -all"), "192.0.2.1", "permerror");
    let void = |n| (0..n).map(|i| format!(" a:void{i}.example.com")).collect::<String>();
    check(&format!("v=spf1{} -all", void(2)), "192.0.2.1", "fail");
    check(&format!("v=spf1{} -all", void(3)), "192.0.2.1", "permerror");
}

/// §7.4.
#[test]
fn macros() {
    let none = HashMap::new();
    let ip = "192.0.2.3".parse().expect("an address");
    let sender = "strong-bad@email.example.com";
    let run = Run { dns: &none, ip, sender, helo: "h.example", lookups: 0, voids: 0 };
    for (text, want) in [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l-}", "strong.bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{h}%%%_%-", "h.example% %20"),
    ] {
        assert_eq!(run.expand(text, "email.example.com").as_deref(), Ok(want), "{text}");
    }
    for bad in ["%", "%x", "%{", "%{d0}", "%{}", "%{d!}"] {
        assert!(run.expand(bad, "x.example").is_err(), "{bad}");
    }
}

#[test]
fn the_record_to_paste_keeps_what_is_there() {
    let missing = ["203.0.113.5", "2001:db8::5"].map(|ip| ip.parse().expect("an address"));
    assert_eq!(
        record_with(Some("v=spf1 include:x.example ~all"), &missing),
        "v=spf1 ip4:203.0.113.5 ip6:2001:db8::5 include:x.example ~all"
    );
    assert_eq!(record_with(None, &missing[..1]), "v=spf1 ip4:203.0.113.5 -all");
}
