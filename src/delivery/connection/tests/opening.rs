//! Openings: which hosts and addresses are tried, which TLS is good enough, and whose failure it is.

use super::*;
use crate::seam::net::TcpNetwork;
use crate::shaping::SourceTrouble;

#[test]
fn the_next_host_takes_over() {
    let good = || Some(Script::new(&["PIPELINING"]));
    let greets = |greeting| Some(Script { greeting, ..Script::new(&[]) });
    for first in [None, greets("421 busy"), greets("554 no"), greets(DROP), greets("nonsense")] {
        let scene = Scene::new(first, good()).jobs(jobs(1)).run();
        scene.check("250");
        assert_eq!(*scene.seen.connects.borrow(), [at(FIRST), at(SECOND)], "by preference");
        assert_eq!(&*scene.queue.opened.borrow()[0].host, "mx2.r.example");
    }
    let scene = Scene::new(None, None).jobs(jobs(1)).run();
    let failure = scene.failure().expect("no host answered");
    assert_eq!((failure.severity, failure.stage), (Severity::Temporary, "connecting"));
    assert_eq!(scene.queue.given.get(), 0);
}

#[test]
fn a_dead_host_is_waited_for_once() {
    let scene = Scene::new(None, Some(Script::new(&[]))).jobs(jobs(1));
    let connector = scene.connector();
    on_thread(scene.connection_of(connector.clone()));
    scene.queue.jobs.borrow_mut().push_back(job(1, &["b@r.example"]));
    on_thread(scene.connection_of(connector));
    scene.check("250 250");
    assert_eq!(*scene.seen.connects.borrow(), [at(FIRST), at(SECOND), at(SECOND)]);
}

#[test]
fn a_host_without_an_address_is_for_good_only_when_all_are() {
    let mut scene = Scene::new(None, None);
    scene.zones = Zones::new();
    let failure = scene.run().failure().expect("a failure");
    assert_eq!((failure.severity, failure.stage), (Severity::Permanent, "resolving"));
    let mut scene = Scene::new(None, None);
    scene.zones = Zones::new().failing("mx1.r.example");
    assert_eq!(scene.run().failure().expect("a failure").severity, Severity::Temporary);
}

#[test]
fn private_and_own_addresses_are_refused() {
    let check = |address: &str, own: Option<&str>, enhanced: &str| {
        let mut scene = Scene::new(Some(Script::new(&[])), Some(Script::new(&[])));
        scene.config.delivery.allow_private_addresses = false;
        let name = Name::parse("ip1").expect("a name");
        scene.config.sources = vec![Source {
            name,
            address: own.map(|a| a.parse().expect("an address")),
            ehlo: None,
            connections: None,
            message_rate: None,
        }];
        let address = address.parse().expect("an address");
        scene.zones = Zones::new().address("mx1.r.example", address).address("mx2.r.example", address);
        let scene = scene.jobs(jobs(1)).run();
        let failure = scene.failure().expect("refused");
        assert_eq!(failure.reply.enhanced.as_deref(), Some(enhanced), "{address}");
        assert_eq!(failure.severity, Severity::Permanent);
        assert!(scene.seen.connects.borrow().is_empty(), "{address} was contacted");
    };
    check("127.0.0.1", None, "5.4.4");
    check("10.0.0.1", None, "5.4.4");
    check("::ffff:169.254.169.254", None, "5.4.4");
    check("8.8.8.8", Some("8.8.8.8"), "5.4.6");
}

#[test]
fn a_route_may_lead_into_a_private_network() {
    let mut scene = Scene::new(Some(Script::new(&[])), None);
    scene.config.delivery.allow_private_addresses = false;
    scene.plan.route = Some("*".into());
    scene.jobs(jobs(1)).run().check("250");
}

#[test]
fn a_thousand_hosts_with_a_hundred_addresses_are_bounded() {
    let mut scene = Scene::new(None, None);
    scene.plan.hosts.clear();
    for i in 0..1_000u32 {
        let name: Arc<str> = format!("mx{i}.r.example").into();
        for k in 0..100u32 {
            scene.zones = scene.zones.address(&name, IpAddr::from((0x0b00_0000 + i * 100 + k).to_be_bytes()));
        }
        scene.plan.hosts.push(PlanHost { name, preference: 10, port: 25, address: None });
    }
    let scene = scene.run();
    assert_eq!(scene.seen.connects.borrow().len(), TRIES_MAX);
}

fn server_tls() -> Arc<rustls::ServerConfig> {
    let key = rcgen::generate_simple_self_signed(vec!["mx1.r.example".into()]).expect("a certificate");
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("a key");
    serving(key.cert.der().clone(), private)
}

fn serving(
    cert: rustls::pki_types::CertificateDer<'static>,
    private: rustls::pki_types::PrivateKeyDer<'static>,
) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], private)
        .expect("a configuration");
    Arc::new(config)
}

#[test]
fn opportunistic_tls_takes_any_certificate() {
    let script = Script { tls: Some(server_tls()), ..Script::new(&["PIPELINING", "STARTTLS"]) };
    let scene = Scene::new(Some(script), None).jobs(jobs(3)).run();
    scene.check("250 250 250");
    let tls = scene.queue.opened.borrow()[0].tls.clone().expect("TLS");
    assert!(tls.starts_with("TLSv1.3 TLS13_"), "{tls}");
    assert_eq!(scene.commands("EHLO"), 2, "EHLO anew after STARTTLS");
}

#[test]
fn opportunistic_tls_falls_back_to_clear_on_the_same_host() {
    // The peer promises STARTTLS and then closes instead of a handshake.
    let scene = Scene::new(Some(Script::new(&["STARTTLS"])), None).jobs(jobs(1)).run();
    scene.check("250");
    assert_eq!(*scene.seen.connects.borrow(), [at(FIRST), at(FIRST)]);
    assert_eq!(scene.queue.opened.borrow()[0].tls, None);
}

#[test]
fn required_and_verified_tls_never_fall_back() {
    let broken = || Some(Script::new(&["STARTTLS"]));
    let mut scene = Scene::new(broken(), broken());
    scene.plan.tls = TlsPolicy::Required;
    let scene = scene.jobs(jobs(1)).run();
    assert_eq!((scene.queue.given.get(), scene.commands("MAIL")), (0, 0));
    assert_eq!(scene.failure().expect("refused").severity, Severity::Temporary);

    let mut scene = Scene::new(Some(Script::new(&[])), None);
    scene.plan.tls = TlsPolicy::Required;
    scene.plan.hosts.truncate(2);
    let scene = scene.jobs(jobs(1)).run();
    assert_eq!(scene.queue.given.get(), 0);

    // A certificate that nobody signed is good for "required" and bad for "verified".
    for (policy, delivered) in [(TlsPolicy::Required, true), (TlsPolicy::Verified, false)] {
        let script = Script { tls: Some(server_tls()), ..Script::new(&["STARTTLS"]) };
        let mut scene = Scene::new(Some(script), None);
        scene.plan.tls = policy;
        let scene = scene.jobs(jobs(1)).run();
        assert_eq!(scene.queue.given.get() == 1, delivered, "{policy:?}");
    }
}

#[test]
fn credentials_go_under_tls_only() {
    let mut scene = Scene::new(Some(Script::new(&["AUTH PLAIN"])), None);
    scene.plan.credentials = Some(Arc::new(("user".into(), "secret".into())));
    let scene = scene.jobs(jobs(1)).run();
    assert_eq!((scene.queue.given.get(), scene.commands("AUTH")), (0, 0));
}

#[test]
fn what_this_host_lacks_is_nobodys_failure() {
    let lacks: [(fn() -> ConnectError, SourceTrouble); 2] = [
        (|| ConnectError::Source(std::io::ErrorKind::AddrNotAvailable.into()), SourceTrouble::Address),
        (|| ConnectError::Exhausted(std::io::Error::from_raw_os_error(libc::EMFILE)), SourceTrouble::Exhausted),
    ];
    for (trouble, want) in lacks {
        let mut scene = Scene::new(Some(Script::new(&[])), Some(Script::new(&[]))).jobs(jobs(1));
        scene.trouble = Some(trouble);
        let connector = scene.connector();
        on_thread(scene.connection_of(connector.clone()));
        let failure = scene.failure().expect("a failure");
        assert_eq!((failure.source_trouble(), failure.severity), (Some(want), Severity::Temporary));
        assert!(failure.reply.text.starts_with("source default"), "{}", failure.reply.text);
        assert_eq!(scene.queue.given.get(), 0);
        assert_eq!(*scene.seen.connects.borrow(), [at(FIRST)], "no other host is tried");
        assert!(!connector.is_unreachable(at(FIRST)), "the host is not blamed");
    }
}

#[test]
fn a_socket_without_its_address_is_told_from_a_dead_host() {
    let check = |local: &str, remote: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (local, remote) = (local.parse().expect("an address"), at(remote));
        let connected = async { TcpNetwork.connect(remote, Some(local), Duration::from_secs(5)).await };
        runtime.block_on(connected).err().expect("fails")
    };
    // RFC 5737: an address for documentation is nobody's. Port 1 on loopback is closed.
    assert!(matches!(check("192.0.2.77", "127.0.0.1:1"), ConnectError::Source(_)));
    assert!(matches!(check("127.0.0.1", "127.0.0.1:1"), ConnectError::Remote(_)));
}

#[test]
fn no_address_is_for_good_and_the_other_family_is_for_now() {
    let check = |zones: Zones, local: Option<&str>, severity: Severity, words: &str| {
        let mut scene = Scene::new(None, None);
        scene.zones = zones;
        scene.local = local.map(|a| a.parse().expect("an address"));
        let failure = scene.run().failure().expect("a failure");
        assert_eq!((failure.severity, failure.stage), (severity, "resolving"), "{}", failure.reply.text);
        assert!(failure.reply.text.contains(words), "{}", failure.reply.text);
    };
    let nodata = || Zones::new().empty("mx1.r.example").empty("mx2.r.example");
    for local in [None, Some("192.0.2.9"), Some("2001:db8::9")] {
        check(nodata(), local, Severity::Permanent, "no such record");
        check(Zones::new(), local, Severity::Permanent, "does not exist");
        // One NXDOMAIN, one NODATA.
        check(Zones::new().empty("mx1.r.example"), local, Severity::Permanent, "no address of");
        // One that nobody knows about now.
        check(nodata().failing("mx2.r.example"), local, Severity::Temporary, "no address of mx2");
    }
    let six = nodata().address("mx1.r.example", IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
    let words = "mx1.r.example has only IPv6 addresses, and the source has only IPv4 (192.0.2.9)";
    check(six, Some("192.0.2.9"), Severity::Temporary, words);
    let four = nodata().address("mx1.r.example", at(FIRST).ip());
    check(four, Some("2001:db8::9"), Severity::Temporary, "has only IPv4 addresses, and the source has only IPv6");
}

/// An authority of our own, and a peer's TLS with its certificate for `name`.
fn signed_tls(name: &str) -> (rustls::RootCertStore, Arc<rustls::ServerConfig>) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let cert = cert.signed_by(&key, &issuer).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).expect("a root");
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    (roots, serving(cert.der().clone(), private))
}

#[test]
fn verified_tls_wants_a_known_authority_and_the_hosts_name() {
    let check = |name: &str, known: bool, delivered: bool, words: &str| {
        let (roots, tls) = signed_tls(name);
        let script = Script { tls: Some(tls), ..Script::new(&["STARTTLS", "PIPELINING"]) };
        let mut scene = Scene::new(Some(script), None);
        scene.plan.tls = TlsPolicy::Verified;
        scene.plan.hosts.retain(|h| &*h.name == "mx1.r.example");
        scene.authority = Some(if known { roots } else { signed_tls(name).0 });
        let scene = scene.jobs(jobs(2)).run();
        if delivered {
            return scene.check("250 250");
        }
        assert_eq!((scene.queue.given.get(), scene.commands("MAIL")), (0, 0), "{name}");
        let failure = scene.failure().expect("refused");
        assert_eq!((failure.severity, failure.stage), (Severity::Temporary, "in the TLS handshake"));
        assert!(failure.reply.text.contains(words), "{}", failure.reply.text);
    };
    check("mx1.r.example", true, true, "");
    check("mx1.other.example", true, false, "not valid for name");
    check("mx1.r.example", false, false, "certificate");
}
