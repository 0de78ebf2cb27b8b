//! The resolver against a small server on loopback that answers as the test says.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, MessageType};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{MX, PTR, TXT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::metrics::Registry;

/// Answers questions for names by their first label; counts those over UDP and over TCP.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tcp: Arc<AtomicUsize>,
}

/// The answer to a question, or nothing at all.
fn answer(query: &Message, udp: bool) -> Option<Vec<u8>> {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_available = true;
    let question = query.queries.first()?.clone();
    let name = question.name().clone();
    let label = name.iter().next().map(|l| String::from_utf8_lossy(l).into_owned())?;
    let mx = |p: u16, h: &str| {
        Record::from_rdata(name.clone(), 60, RData::MX(MX::new(p, Name::from_ascii(h).expect("a name"))))
    };
    match (label.as_str(), question.query_type()) {
        ("good", RecordType::MX) => {
            reply.add_answer(mx(10, "MX1.example."));
            reply.add_answer(mx(20, "mx2.example."));
        }
        ("null", RecordType::MX) => {
            reply.add_answer(mx(0, "."));
        }
        ("good", RecordType::A) => {
            let data = RData::A(std::net::Ipv4Addr::new(192, 0, 2, 1).into());
            reply.add_answer(Record::from_rdata(name.clone(), 60, data));
        }
        ("_dmarc", RecordType::TXT) => {
            // Two records, the first in two strings.
            let long = TXT::new(vec!["v=DMARC1; ".into(), "p=none".into()]);
            for txt in [long, TXT::new(vec!["x".into()])] {
                reply.add_answer(Record::from_rdata(name.clone(), 60, RData::TXT(txt)));
            }
        }
        // 192.0.2.1, and the last digit of 2001:db8::1.
        ("1", RecordType::PTR) => {
            let host = Name::from_ascii("MTA1.example.").expect("a name");
            reply.add_answer(Record::from_rdata(name.clone(), 60, RData::PTR(PTR(host))));
        }
        ("large", RecordType::MX) if udp => reply.metadata.truncation = true,
        ("large", RecordType::MX) => {
            for i in 0..50 {
                reply.add_answer(mx(i, &format!("mx{i}.example.")));
            }
        }
        ("good" | "nodata", _) => {}
        ("fail", _) => reply.metadata.response_code = ResponseCode::ServFail,
        ("silent", _) => return None,
        _ => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    reply.to_vec().ok()
}

async fn server() -> Server {
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = udp.local_addr().expect("an address");
    let tcp = tokio::net::TcpListener::bind(address).await.expect("the same port over TCP");
    let (asked, over_tcp) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((n, from)) = udp.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = Message::from_vec(&buffer[..n]).ok().and_then(|q| answer(&q, true)) {
                let _ = udp.send_to(&reply, from).await;
            }
        }
    });
    let count = over_tcp.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                while let Ok(n) = stream.read_u16().await {
                    let mut buffer = vec![0; usize::from(n)];
                    let _ = stream.read_exact(&mut buffer).await;
                    if let Some(reply) = Message::from_vec(&buffer).ok().and_then(|q| answer(&q, false)) {
                        let _ = stream.write_u16(reply.len() as u16).await;
                        let _ = stream.write_all(&reply).await;
                    }
                }
            });
        }
    });
    Server { address, asked, tcp: over_tcp }
}

fn resolver(server: &Server) -> Resolver {
    let options = ResolverOptions {
        servers: vec![server.address],
        timeout: Duration::from_millis(600),
        cache_size: 100_000,
        max_concurrent: 4,
    };
    Resolver::new(&options, DnsMetrics::register(&Registry::new())).expect("a resolver")
}

#[tokio::test]
async fn answers_and_refusals_are_told_apart() {
    let server = server().await;
    let resolver = resolver(&server);
    let good = resolver.mx("good.example").await.expect("records");
    let hosts: Vec<_> = good.records.iter().map(|r| (r.preference, &*r.host)).collect();
    assert_eq!(hosts, [(10, "mx1.example"), (20, "mx2.example")]);
    assert_eq!(resolver.mx("null.example").await.expect("records").records[0].host.as_ref(), "");
    assert_eq!(resolver.mx("nodata.example").await, Err(DnsError::NoData));
    assert_eq!(resolver.mx("unknown.example").await, Err(DnsError::NxDomain));
    assert!(matches!(resolver.mx("fail.example").await, Err(DnsError::Temporary(_))));
    // A name with an A and no AAAA has an address.
    let addresses = resolver.addresses("good.example", Family::Any).await.expect("an address");
    assert_eq!(addresses.records, [IpAddr::from([192, 0, 2, 1])]);
    assert_eq!(resolver.addresses("good.example", Family::V6).await, Err(DnsError::NoData));
}

#[tokio::test]
async fn texts_are_joined_and_addresses_have_names() {
    let server = server().await;
    let resolver = resolver(&server);
    let texts = resolver.txt("_dmarc.good.example").await.expect("records");
    assert_eq!(texts.records, ["v=DMARC1; p=none", "x"]);
    assert_eq!(resolver.txt("nodata.example").await, Err(DnsError::NoData));
    for address in ["192.0.2.1", "2001:db8::1"] {
        let names = resolver.names(address.parse().expect("an address")).await.expect("a name");
        assert_eq!(names.records.iter().map(|name| &**name).collect::<Vec<_>>(), ["mta1.example"]);
    }
    assert_eq!(resolver.names(IpAddr::from([192, 0, 2, 9])).await, Err(DnsError::NxDomain));
    assert_eq!(reverse_name(IpAddr::from([192, 0, 2, 9])), "9.2.0.192.in-addr.arpa");
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let server = server().await;
    let answer = resolver(&server).mx("large.example").await.expect("records");
    assert_eq!(answer.records.len(), 50);
    assert_eq!(server.tcp.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn answers_and_failures_are_remembered() {
    let server = server().await;
    let resolver = resolver(&server);
    for name in ["good.example", "fail.example", "silent.example", "unknown.example"] {
        let first = resolver.mx(name).await;
        let asked = server.asked.load(Ordering::Relaxed);
        assert!(asked > 0);
        assert_eq!(resolver.mx(name).await.map(|a| a.records), first.map(|a| a.records));
        assert_eq!(server.asked.load(Ordering::Relaxed), asked, "{name} was asked again");
    }
    assert!(matches!(resolver.mx("silent.example").await, Err(DnsError::Temporary(_))));
    assert!(resolver.0.metrics.cached.get() >= 4);
}
