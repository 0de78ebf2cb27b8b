//! Routing over zones in memory.

use super::*;
use crate::metrics::Registry;
use crate::metrics::delivery::DnsMetrics;
use crate::seam::dns::Zones;

fn route(hosts: &[&str]) -> Route {
    Route {
        hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
        tls: TlsPolicy::None,
        implicit_tls: false,
        username: None,
        password_file: None,
        connections: 20,
        messages_per_connection: 0,
        connection_rate: None,
        message_rate: None,
    }
}

fn config() -> Config {
    Config { hostname: "mta.s.example".into(), ..Config::default() }
}

fn resolve_with(config: Config, zones: Zones, domains: &[&str]) -> Vec<Resolution> {
    let metrics = DnsMetrics::register(&Registry::new());
    let router = Router::new(Arc::new(ArcSwap::from_pointee(config)), Resolver::fixed(zones, metrics));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let now = Timestamp::from_millis(1_000_000);
    let one = |d: &&str| runtime.block_on(router.resolve(&Domain::parse(d).expect("a domain"), now));
    domains.iter().map(one).collect()
}

fn resolve(config: Config, zones: Zones, domain: &str) -> Resolution {
    resolve_with(config, zones, &[domain]).remove(0)
}

fn show(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Plan(plan) => {
            let host = |h: &PlanHost| format!("{}:{}", h.name, h.port);
            plan.hosts.iter().map(host).collect::<Vec<_>>().join(" ")
        }
        Resolution::Failed(f) => {
            let severity = if f.severity == Severity::Permanent { "permanent" } else { "temporary" };
            format!("{severity} {} {}", f.reply.code, f.reply.enhanced.as_deref().unwrap_or("-"))
        }
    }
}

fn check(zones: Zones, want: &str) {
    assert_eq!(show(&resolve(config(), zones, "r.example")), want);
}

#[test]
fn mx_rules() {
    let ip = IpAddr::from([203, 0, 113, 1]);
    // By preference; equal ones are shuffled at each connection, not here.
    let both = Zones::new().mx("r.example", 20, "B.R.example").mx("r.example", 10, "a.r.example.");
    check(both, "a.r.example:25 b.r.example:25");
    // RFC 7505: at once and for good.
    check(Zones::new().mx("r.example", 0, "."), "permanent 556 5.1.10");
    // A root beside real hosts is no host.
    check(Zones::new().mx("r.example", 0, ".").mx("r.example", 5, "a.r.example"), "a.r.example:25");
    // Implicit MX: only where there is no MX record at all.
    check(Zones::new().address("r.example", ip), "r.example:25");
    check(Zones::new().empty("r.example"), "permanent 550 5.1.2");
    check(Zones::new().address("r.example", ip).mx("r.example", 10, "gone.r.example"), "gone.r.example:25");
    check(Zones::new(), "permanent 550 5.1.2");
    // A dead zone bounces nothing.
    check(Zones::new().failing("r.example"), "temporary 0 4.4.3");
}

#[test]
fn we_and_what_is_worse_go() {
    let mx = |z: Zones, p, h| z.mx("r.example", p, h);
    let zones = mx(mx(mx(Zones::new(), 10, "a.r.example"), 20, "MTA.s.example"), 30, "c.r.example");
    check(zones, "a.r.example:25");
    check(mx(mx(Zones::new(), 10, "mta.s.example"), 30, "c.r.example"), "permanent 550 5.4.6");
    check(mx(mx(Zones::new(), 10, "mta.s.example"), 10, "a.r.example"), "permanent 550 5.4.6");
}

#[test]
fn a_thousand_mx_are_bounded_and_the_best_stay() {
    let mut zones = Zones::new();
    for i in 0..1_000u16 {
        zones = zones.mx("r.example", 1_000 - i, &format!("mx{i}.r.example"));
    }
    let Resolution::Plan(plan) = resolve(config(), zones, "r.example") else { panic!("no plan") };
    assert_eq!(plan.hosts.len(), HOSTS_MAX);
    assert_eq!(&*plan.hosts[0].name, "mx999.r.example");
}

#[test]
fn domains_with_the_same_hosts_share_a_site() {
    let zones = Zones::new()
        .mx("a.example", 10, "mx1.h.example")
        .mx("a.example", 20, "mx2.h.example")
        .mx("b.example", 5, "mx2.h.example")
        .mx("b.example", 5, "mx1.h.example")
        .mx("c.example", 5, "mx1.h.example")
        .mx("g.example", 5, "aspmx.l.google.com");
    let found = resolve_with(config(), zones, &["a.example", "b.example", "c.example", "g.example"]);
    let plans: Vec<_> = found.iter().map(|r| if let Resolution::Plan(p) = r { p } else { panic!("no plan") }).collect();
    assert_eq!(plans[0].site, plans[1].site);
    assert_ne!(plans[0].site, plans[2].site);
    assert_eq!((&*plans[2].provider, &*plans[3].provider), ("other", "google"));
}

#[test]
fn routes_by_exactness() {
    let mut config = config();
    for (pattern, host) in [
        ("exact.example", "127.0.0.1:2626"),
        ("*.example", "wild.internal"),
        ("*.deep.example", "[::1]:25"),
        ("*", "relay.internal:587"),
    ] {
        config.routes.insert(pattern.into(), route(&[host]));
    }
    let domains = ["exact.example", "x.exact.example", "a.b.deep.example", "deep.example", "example", "other.test"];
    let found = resolve_with(config, Zones::new(), &domains);
    let want = [
        "127.0.0.1:2626",
        "wild.internal:25",
        "::1:25",
        "wild.internal:25",
        "relay.internal:587",
        "relay.internal:587",
    ];
    assert_eq!(found.iter().map(show).collect::<Vec<_>>(), want);
    let (Resolution::Plan(a), Resolution::Plan(b)) = (&found[4], &found[5]) else { panic!("no plan") };
    assert!(Arc::ptr_eq(a, b), "a default route makes one plan for all domains");
    assert_eq!(a.route.as_deref(), Some("*"));
}

#[test]
fn hosts_of_a_route_in_all_forms() {
    let check = |text: &str, want: Option<(&str, u16, bool)>| {
        let got = parse_host(text, 25, 0);
        let got = got.as_ref().map(|h| (&*h.name, h.port, h.address.is_some()));
        assert_eq!(got, want, "{text:?}");
    };
    check("relay.example", Some(("relay.example", 25, false)));
    check("Relay.example:2525", Some(("relay.example", 2525, false)));
    check("localhost:2525", Some(("localhost", 2525, false)));
    check("192.0.2.1", Some(("192.0.2.1", 25, true)));
    check("192.0.2.1:26", Some(("192.0.2.1", 26, true)));
    check("[2001:db8::1]:26", Some(("2001:db8::1", 26, true)));
    check("[2001:db8::1]", Some(("2001:db8::1", 25, true)));
    check("2001:db8::1", Some(("2001:db8::1", 25, true)));
    for bad in ["", "a b", "host:port", "host:99999", "-x.example", "a\r\nb.example"] {
        check(bad, None);
    }
}

#[test]
fn a_missing_password_holds_the_mail() {
    let mut config = config();
    let mut smart = route(&["relay.example:587"]);
    smart.username = Some("user".into());
    smart.password_file = Some("/nonexistent/password".into());
    config.routes.insert("*".into(), smart);
    assert_eq!(show(&resolve(config, Zones::new(), "r.example")), "temporary 0 4.3.5");
}
