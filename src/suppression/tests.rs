use std::time::Duration;

use super::testing::{store, suppressions};
use super::*;
use crate::types::Timestamp;

const START: Timestamp = Timestamp::from_millis(1_795_456_549_012);

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).expect("an address")
}

fn list(tenant: &str, list: &str) -> Scope {
    Scope::of(name(tenant), Some(name(list)))
}

#[tokio::test]
async fn nothing_suppressed_costs_no_read() {
    let (s, memory) = suppressions(Clock::manual(START));
    let all: Vec<Mailbox> = (0..100).map(|n| mailbox(&format!("p{n}@x.example"))).collect();
    let verdicts = s.check_many(&name("acme"), None, Class::Marketing, &all).await.expect("read");
    assert!(verdicts.len() == 100 && verdicts.iter().all(Option::is_none));
    s.add(s.entry(Scope::Global, Reason::Manual, &mailbox("other@x.example"), "ops")).await.expect("added");
    let before = memory.lock().reads;
    assert!(s.check_many(&name("acme"), None, Class::Marketing, &all).await.expect("read").iter().all(Option::is_none));
    assert_eq!(memory.lock().reads, before, "no fingerprint, no read");
}

#[tokio::test]
async fn what_blocks_whom() {
    let (s, _) = suppressions(Clock::manual(START));
    let (acme, beta, news) = (name("acme"), name("beta"), name("news"));
    let add = async |scope: Scope, reason, address: &str| {
        s.add(s.entry(scope, reason, &mailbox(address), "test")).await.expect("added");
    };
    add(Scope::Global, Reason::HardBounce, "gone@x.example").await;
    add(Scope::Tenant(acme.clone()), Reason::Complaint, "angry@x.example").await;
    add(Scope::Tenant(acme.clone()), Reason::Unsubscribe, "left@x.example").await;
    add(list("acme", "news"), Reason::Unsubscribe, "newsless@x.example").await;
    let check = async |tenant: &Name, list: Option<&Name>, class, address: &str| {
        let verdict = s.check(tenant, list, class, &mailbox(address)).await.expect("read");
        verdict.map(|v| format!("{} {}", v.scope, v.reason)).unwrap_or_default()
    };
    use Class::{Marketing, Transactional};
    for (tenant, list, class, address, expected) in [
        (&acme, None, Transactional, "gone@x.example", "global hard_bounce"),
        // Addresses are compared in their canonical form.
        (&beta, None, Marketing, "Gone@X.Example", "global hard_bounce"),
        (&acme, None, Transactional, "angry@x.example", "tenant complaint"),
        (&beta, None, Marketing, "angry@x.example", ""),
        (&acme, None, Marketing, "left@x.example", "tenant unsubscribe"),
        // An unsubscribe never blocks transactional mail.
        (&acme, Some(&news), Transactional, "left@x.example", ""),
        (&acme, Some(&news), Marketing, "newsless@x.example", "list unsubscribe"),
        (&acme, Some(&beta), Marketing, "newsless@x.example", ""),
        (&acme, None, Marketing, "newsless@x.example", ""),
        (&beta, Some(&news), Marketing, "newsless@x.example", ""),
    ] {
        assert_eq!(check(tenant, list, class, address).await, expected, "{tenant} {list:?} {class} {address}");
    }
    // The order of the answers is that of the question.
    let asked = ["a@x.example", "left@x.example", "b@x.example", "gone@x.example"].map(mailbox);
    let got = s.check_many(&acme, None, Marketing, &asked).await.expect("read");
    assert_eq!(
        got.iter().map(|v| v.map(|v| v.reason)).collect::<Vec<_>>(),
        [None, Some(Reason::Unsubscribe), None, Some(Reason::HardBounce)]
    );
}

#[tokio::test]
async fn a_reason_neither_hides_nor_ends_another() {
    let (s, _) = suppressions(Clock::manual(START));
    let (acme, address) = (name("acme"), mailbox("a@x.example"));
    let scope = Scope::Tenant(acme.clone());
    s.add(s.entry(scope.clone(), Reason::Complaint, &address, "fbl")).await.expect("added");
    s.add(s.entry(scope.clone(), Reason::Unsubscribe, &address, "link")).await.expect("added");
    let verdict = s.check(&acme, None, Class::Transactional, &address).await.expect("read");
    assert_eq!(verdict.map(|v| v.reason), Some(Reason::Complaint));
    let removed = s.remove(&scope, Some(Reason::Complaint), &address).await.expect("removed");
    assert_eq!(removed.len(), 1);
    assert_eq!(s.check(&acme, None, Class::Transactional, &address).await.expect("read"), None);
    assert!(s.check(&acme, None, Class::Marketing, &address).await.expect("read").is_some());
    assert!(s.remove(&Scope::Global, None, &address).await.expect("removed").is_empty(), "only this scope");
}

#[tokio::test]
async fn an_entry_expires_and_keeps_its_beginning() {
    let clock = Clock::manual(START);
    let (s, memory) = suppressions(clock.clone());
    let (acme, address) = (name("acme"), mailbox("a@x.example"));
    let mut entry = s.entry(Scope::Tenant(acme.clone()), Reason::HardBounce, &address, "event 7");
    entry.expires = Some(START.after(Duration::from_secs(60)));
    assert!(s.add(entry.clone()).await.expect("added").1);
    clock.advance(Duration::from_secs(30));
    let again = s.entry(Scope::Tenant(acme.clone()), Reason::HardBounce, &address, "event 8");
    let (stored, new) = s.add(Entry { expires: entry.expires, ..again }).await.expect("added");
    assert!(!new && stored.since == START);
    clock.advance(Duration::from_secs(30));
    assert_eq!(s.check(&acme, None, Class::Marketing, &address).await.expect("read"), None);
    assert!(s.get(Some(&acme), &address).await.expect("read").is_empty());
    assert_eq!(memory.lock().table.len(), 1);
    assert_eq!(s.sweep().await.expect("swept"), 1);
    assert!(memory.lock().table.is_empty());
}

#[tokio::test]
async fn a_start_finds_all_again() {
    let (ledger, reader, memory) = store();
    let clock = Clock::manual(START);
    let open = async || Suppressions::open(reader.clone(), ledger.clone(), clock.clone()).await;
    let s = open().await.expect("opened");
    let address = mailbox("a@x.example");
    s.add(s.entry(list("acme", "news"), Reason::Unsubscribe, &address, "link")).await.expect("added");
    let again = open().await.expect("opened");
    let found = again.check(&name("acme"), Some(&name("news")), Class::Marketing, &address).await.expect("read");
    assert!(found.is_some());
    // Another key would find nothing: it must not be replaced silently.
    memory.lock().state.insert(STATE_KEY.to_vec(), vec![9; 33]);
    assert_eq!(open().await.err(), Some(SuppressionError::Key));
}

#[tokio::test]
async fn an_erased_entry_has_only_the_hash_and_blocks() {
    let (s, memory) = suppressions(Clock::manual(START));
    let (acme, address) = (name("acme"), mailbox("person@x.example"));
    for scope in [Scope::Global, Scope::Tenant(acme.clone()), list("acme", "news"), list("beta", "news")] {
        let mut entry = s.entry(scope, Reason::Manual, &address, "person@x.example asked");
        entry.note = "called from 555-0199, person@x.example".into();
        s.add(entry).await.expect("added");
    }
    assert_eq!(s.erase(std::slice::from_ref(&acme), &address).await.expect("erased"), 3);
    let left: Vec<Entry> = s.get(Some(&acme), &address).await.expect("read");
    assert!(left.len() == 2 && left.iter().all(|e| e.address.is_none() && e.source.is_empty() && e.note.is_empty()));
    assert!(s.check(&acme, None, Class::Transactional, &address).await.expect("read").is_some());
    let plain =
        |(key, value): (&Vec<u8>, &Vec<u8>)| !key.starts_with(b"beta") && value.windows(6).any(|w| w == b"person");
    assert!(!memory.lock().table.iter().any(plain));
    assert_eq!(s.erase(&[acme], &address).await.expect("erased"), 0);
}

#[tokio::test]
async fn pages_reach_every_entry_once() {
    let (s, _) = suppressions(Clock::manual(START));
    for n in 0..25 {
        let tenant = if n % 2 == 0 { "acme" } else { "acme-2" };
        let scope = if n % 5 == 0 { list(tenant, "news") } else { Scope::Tenant(name(tenant)) };
        s.add(s.entry(scope, Reason::Manual, &mailbox(&format!("p{n}@x.example")), "ops")).await.expect("added");
    }
    let count = async |which: Filtered, limit| {
        let (mut after, mut seen, mut pages) = (None, std::collections::BTreeSet::new(), 0);
        loop {
            let page = s.list(&which, after, limit).await.expect("read");
            pages += 1;
            for entry in page.entries {
                assert!(seen.insert((entry.scope, entry.hash)), "twice");
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return (seen.len(), pages),
            }
        }
    };
    assert_eq!(count(Filtered::default(), 10).await, (25, 3));
    let acme = Filtered { of: Owner::Tenant(name("acme")), ..Filtered::default() };
    assert_eq!(count(acme.clone(), 100).await, (13, 1), "acme-2 is somebody else");
    assert_eq!(count(Filtered { list: Some(name("news")), ..acme }, 1).await.0, 3);
    assert_eq!(count(Filtered { of: Owner::Node, ..Filtered::default() }, 10).await, (0, 1));
}

#[test]
fn a_record_of_version_1_is_read() {
    // The octets as they are on disk: keys and values of this form must be read for ever.
    let mut key = b"acme\0".to_vec();
    key.extend_from_slice(&[0xab; 16]);
    key.extend_from_slice(b"\x03news");
    let value =
        [b"\x01\0\0\x01\xa2\x09\x7d\x4e\x94\0\0\0\0\0\0\0\0".as_slice(), b"\0\x0ba@x.example\0\x04link\0\0"].concat();
    let entry = Entry::decode(&key, &value).expect("readable");
    assert_eq!(entry.scope, list("acme", "news"));
    assert_eq!((entry.reason, entry.expires, &*entry.source, &*entry.note), (Reason::Unsubscribe, None, "link", ""));
    assert_eq!(entry.address, Some(mailbox("a@x.example")));
    assert_eq!((entry.key(), entry.encode()), (key.clone(), value.clone()));
    for cut in 0..value.len() {
        assert_eq!(Entry::decode(&key, &value[..cut]), None, "cut at {cut}");
    }
    assert_eq!(Entry::decode(&key[..20], &value), None);
}

fn options(s: Scope) -> ImportOptions {
    ImportOptions { scope: s, any_owner: false, reason: Reason::Manual, source: "crm".into(), note: String::new() }
}

#[tokio::test]
async fn an_import_in_any_pieces() {
    let file = "\u{feff}Email,Reason,list,expires,note,score\r\n\
        a@x.example,,,,\"two\nlines, \"\"quoted\"\"\",1\r\n\
        not an address,,,,,\r\n\
        b@x.example,unsubscribe,news,2027-01-31,,\r\n\
        c@x.example,whim,,,,\r\n\
        d@x.example,,,2020-01-01,,\r\n\
        \r\n\
        A@X.example,,,,again,";
    for size in [1, 7, 4096] {
        let (s, _) = suppressions(Clock::manual(START));
        let mut import = s.importer(options(Scope::Tenant(name("acme"))));
        for piece in file.as_bytes().chunks(size) {
            import.feed(piece).await.expect("fed");
        }
        let report = import.finish().await.expect("finished");
        assert_eq!((report.rows, report.added, report.invalid), (6, 3, 3), "{report:?}");
        let lines: Vec<u64> = report.errors.iter().map(|e| e.line).collect();
        assert_eq!(lines, [4, 6, 7], "as an editor counts them: {:?}", report.errors);
        assert_eq!(report.ignored_columns, ["score"]);
        let a = s.get(Some(&name("acme")), &mailbox("a@x.example")).await.expect("read");
        assert_eq!((a.len(), &*a[0].note), (1, "again"));
        let b = s.get(Some(&name("acme")), &mailbox("b@x.example")).await.expect("read");
        assert_eq!((&b[0].scope, b[0].reason), (&list("acme", "news"), Reason::Unsubscribe));
        assert_eq!(b[0].expires.map(Timestamp::rfc3339).as_deref(), Some("2027-01-31T00:00:00.000Z"));
    }
}

#[tokio::test]
async fn an_export_can_be_imported_again() {
    let (s, memory) = suppressions(Clock::manual(START));
    let mut note = s.entry(list("acme", "news"), Reason::Complaint, &mailbox("a@x.example"), "fbl");
    note.note = "said, \"no\"".into();
    s.add(note).await.expect("added");
    s.add(s.entry(Scope::Global, Reason::HardBounce, &mailbox("b@x.example"), "event 1")).await.expect("added");
    let before = memory.lock().table.clone();
    let page = s.list(&Filtered::default(), None, 100).await.expect("read");
    let csv: String = std::iter::once(format!("{CSV_HEADER}\n")).chain(page.entries.iter().map(csv_line)).collect();
    memory.lock().table.clear();
    let mut import = s.importer(ImportOptions { any_owner: true, ..options(Scope::Global) });
    import.feed(csv.as_bytes()).await.expect("fed");
    assert_eq!(import.finish().await.expect("finished").added, 2);
    assert_eq!(memory.lock().table, before);
}

#[tokio::test]
async fn an_import_stays_with_its_tenant_and_in_bounds() {
    let (s, memory) = suppressions(Clock::manual(START));
    let mut import = s.importer(options(Scope::Tenant(name("acme"))));
    import.feed(b"email,tenant,scope\na@x.example,beta,\nb@x.example,,global\nc@x.example,acme,\n").await.expect("fed");
    let report = import.finish().await.expect("finished");
    assert_eq!((report.added, report.invalid), (1, 2), "{:?}", report.errors);

    // An endless line: refused, not kept.
    let mut import = s.importer(options(Scope::Tenant(name("acme"))));
    let endless = vec![b'a'; RECORD_LEN_MAX + 1];
    assert_eq!(import.feed(&endless).await, Err(ImportError::Records(RecordsError(1))));
    let mut import = s.importer(options(Scope::Tenant(name("acme"))));
    assert_eq!(import.feed(b"name,town\n").await, Err(ImportError::Columns));

    // A file that is only addresses; a thousand a commit.
    let commits = memory.lock().commits;
    let mut import = s.importer(options(Scope::Tenant(name("acme"))));
    let file: String = (0..2_500).map(|n| format!("p{n}@x.example\n")).collect();
    import.feed(file.as_bytes()).await.expect("fed");
    let report = import.finish().await.expect("finished");
    assert_eq!((report.rows, report.added, memory.lock().commits - commits), (2_500, 2_500, 3));
}
