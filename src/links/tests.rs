use super::*;
use crate::store::{Change, LedgerRequest, ReadRequest};
use crate::types::{CampaignNo, Mailbox, MessageId, Name, QueueId, RowId, Timestamp};

fn token() -> UnsubscribeToken {
    let row = RowId { campaign: CampaignNo(7), step: 0, queue: QueueId(70_000), slot: 0, seq: 123_456 };
    UnsubscribeToken {
        tenant: Name::parse("acme").expect("a name"),
        message: Some(row.message_id()),
        list: Name::parse("news").ok(),
        address: Mailbox::parse("jane.doe@example.com").expect("an address"),
        test: false,
    }
}

#[test]
fn a_token_comes_back_whole() {
    let links = Links::ephemeral();
    let full = token();
    let long = "x".repeat(64);
    let message = MessageId::new(Timestamp::from_millis(1_795_456_549_012), u128::MAX);
    for token in [
        full.clone(),
        UnsubscribeToken { test: true, ..full.clone() },
        UnsubscribeToken { list: None, message: None, ..full.clone() },
        UnsubscribeToken { message: Some(message), ..full.clone() },
        UnsubscribeToken {
            tenant: Name::parse(&long).expect("a name"),
            list: Name::parse(&long).ok(),
            address: Mailbox::parse(&format!("{long}@{}.example", vec!["y".repeat(60); 3].join(".")))
                .expect("an address"),
            ..full.clone()
        },
        UnsubscribeToken { address: Mailbox::parse("zoë@münchen.example").expect("an address"), ..full },
    ] {
        let sealed = links.seal_unsubscribe(&token);
        assert!(sealed.len() <= TOKEN_LEN_MAX);
        assert_eq!(links.open_unsubscribe(&sealed), Ok(token.clone()));
        assert_eq!(sealed, links.seal_unsubscribe(&token), "a message is the same at each attempt");
    }
}

#[test]
fn nobody_reads_or_forges_one() {
    let links = Links::ephemeral();
    let sealed = links.seal_unsubscribe(&token());
    assert!(sealed.len() <= 80, "{} characters", sealed.len());
    let octets = URL_SAFE_NO_PAD.decode(&sealed).expect("base64url");
    assert!(!octets.windows(4).any(|w| w == b"jane" || w == b"acme"));
    // Any one bit: the key's number, the text, the tag.
    for at in 0..octets.len() {
        let mut forged = octets.clone();
        forged[at] ^= 1;
        assert_eq!(links.open_unsubscribe(&URL_SAFE_NO_PAD.encode(&forged)), Err(TokenError), "octet {at}");
    }
    for cut in 0..sealed.len() {
        assert_eq!(links.open_unsubscribe(&sealed[..cut]), Err(TokenError));
    }
    for other in ["", "%", "token", &"A".repeat(TOKEN_LEN_MAX + 1), &format!("{sealed}=")] {
        assert_eq!(links.open_unsubscribe(other), Err(TokenError), "{other}");
    }
    assert_eq!(Links::ephemeral().open_unsubscribe(&sealed), Err(TokenError), "another node's");
    let other = UnsubscribeToken { address: Mailbox::parse("jane.dof@example.com").expect("an address"), ..token() };
    assert_ne!(links.seal_unsubscribe(&other)[..20], sealed[..20], "one letter changes all of it");
}

#[test]
fn links_for_the_web_and_for_mail() {
    let links = Links::ephemeral();
    let sealed = links.seal_unsubscribe(&token());
    for base in ["https://l.example", "https://l.example/"] {
        assert_eq!(links.unsubscribe_url(base, &token()), format!("https://l.example/u/{sealed}"));
    }
    let mailto = links.unsubscribe_mailto(&Domain::parse("bounce.acme.example").expect("a domain"), &token());
    assert_eq!(mailto, format!("mailto:unsubscribe@bounce.acme.example?subject={sealed}"));
    let found = find_token(&format!("Re: [Fwd: {sealed}] please")).next().map(str::to_owned);
    assert_eq!(found, Some(sealed));
    assert_eq!(find_token("please take me off your list").next(), None);
}

type State = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that keeps records of state only.
fn store() -> (Reader, Ledger, Arc<parking_lot::Mutex<State>>) {
    let state = Arc::new(parking_lot::Mutex::new(State::new()));
    let (reader, mut reads) = Reader::channel(4);
    let (ledger, mut submits) = Ledger::channel();
    let shared = state.clone();
    std::thread::spawn(move || {
        while let Some(request) = reads.blocking_recv() {
            if let ReadRequest::State { reply, .. } = request {
                let all: State = shared.lock().clone();
                let _ = reply.send(Ok(all.into_iter().map(|(k, v)| (k.into(), v.into())).collect()));
            }
        }
    });
    let shared = state.clone();
    std::thread::spawn(move || {
        while let Some(LedgerRequest::Submit { changes, reply, .. }) = submits.submits.blocking_recv() {
            for change in changes {
                if let Change::PutState { key, value } = change {
                    shared.lock().insert(key, value);
                }
            }
            let _ = reply.send(Ok(()));
        }
    });
    (reader, ledger, state)
}

#[tokio::test]
async fn old_links_open_after_restarts_and_new_keys() {
    let (reader, ledger, state) = store();
    let clock = Clock::manual(Timestamp::from_millis(1_795_456_549_012));
    let open = async || Links::open(&reader, ledger.clone(), clock.clone()).await;
    let first = open().await.expect("opened").seal_unsubscribe(&token());
    let links = open().await.expect("opened");
    assert_eq!(links.seal_unsubscribe(&token()), first, "the same key after a restart");
    assert_eq!(links.rotate().await, Ok(1));
    let second = links.seal_unsubscribe(&token());
    assert_ne!(first, second);
    let again = open().await.expect("opened");
    assert_eq!(again.seal_unsubscribe(&token()), second, "the newest key makes them");
    assert_eq!(again.open_unsubscribe(&first), Ok(token()));
    assert_eq!(state.lock().keys().cloned().collect::<Vec<_>>(), [b"key/link/000".to_vec(), b"key/link/001".to_vec()]);
    // A damaged record is told, and never replaced: its links would be dead.
    state.lock().insert(b"key/link/000".to_vec(), vec![1, 2, 3]);
    assert_eq!(open().await.err(), Some(RingError::Record("key/link/000".into())));
}

#[test]
fn a_token_costs_microseconds() {
    let links = Links::ephemeral();
    let token = token();
    let started = std::time::Instant::now();
    const ROUNDS: u32 = 1_000;
    for _ in 0..ROUNDS {
        assert!(links.unsubscribe_url("https://l.example", &token).len() > 60);
    }
    let each = started.elapsed() / ROUNDS;
    assert!(each < std::time::Duration::from_micros(500), "{each:?}, even without optimisation");
}
