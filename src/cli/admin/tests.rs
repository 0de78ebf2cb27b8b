//! The commands against a real API on a real control socket, with stand-ins below it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::csv::{Accounting, HEADER};
use super::human::{count, size, span};
use super::out::{Table, printable, printable_lines};
use super::{AdminCommand, Client, Connection, Out, execute};
use crate::api::Server;
use crate::api::tests::world::{ADMIN, World, full_event, mailbox, name};
use crate::event::EventKind;
use crate::types::MessageId;

#[derive(Parser)]
#[command(name = "posthaste")]
struct Tree {
    #[command(subcommand)]
    command: AdminCommand,
}

/// A sink that can be read afterwards.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a command line against the daemon of this data folder: what it printed, or its one-line error.
async fn run(dir: &Path, line: &str) -> Result<String, String> {
    let socket = dir.join("control.sock");
    let connection = Connection { socket: Some(socket), ..Connection::default() };
    run_over(connection, line).await
}

async fn run_over(connection: Connection, line: &str) -> Result<String, String> {
    let args = std::iter::once("posthaste").chain(line.split(' ').filter(|word| *word != "--json"));
    let tree = Tree::try_parse_from(args).map_err(|e| e.to_string())?;
    let screen = Screen::default();
    let mut out = Out::to(line.contains("--json"), Box::new(screen.clone()));
    let client = Client::new(&connection).map_err(|e| format!("{e:#}"))?;
    execute(&tree.command, &client, &mut out).await.map_err(|e| format!("{e:#}"))?;
    let bytes = screen.0.lock().clone();
    Ok(String::from_utf8(bytes).expect("text"))
}

/// A daemon on a control socket in a folder of its own.
struct Daemon {
    dir: tempfile::TempDir,
    world: World,
    address: std::net::SocketAddr,
    _stop: watch::Sender<bool>,
}

async fn daemon() -> Daemon {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::at(dir.path().to_owned());
    let server = Server::bind(world.api.clone()).await.expect("bound");
    let address = server.tcp_address().expect("a port");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(server.run(stopped));
    Daemon { dir, world, address, _stop: stop }
}

#[test]
fn the_tree_of_commands_is_sound() {
    Tree::command().debug_assert();
    for line in
        ["queue", "message trace", "trace smtp", "events tail", "events export", "backup", "drain", "reload", "status"]
    {
        let help = Tree::try_parse_from(["posthaste"].into_iter().chain(line.split(' ')).chain(["--help"]));
        let help = help.err().expect("help is no command").to_string();
        assert!(help.contains("--socket") && help.contains("--json"), "{line}: {help}");
    }
}

#[tokio::test]
async fn queues_as_tables_and_json() {
    let d = daemon().await;
    let list = run(d.dir.path(), "queue list").await.expect("answered");
    let mut lines = list.lines();
    assert!(lines.next().is_some_and(|l| l.starts_with("DOMAIN        TENANT  POOL")), "{list}");
    assert!(
        lines.next().is_some_and(|l| l.starts_with("slow.example  acme    main") && l.contains("retry due (")),
        "{list}"
    );
    let json = run(d.dir.path(), "queue list --tenant acme --json").await.expect("answered");
    let json: serde_json::Value = serde_json::from_str(&json).expect("json");
    assert_eq!((json.as_array().map(Vec::len), json[0]["count"].as_u64()), (Some(1), Some(2)));
    let summary = run(d.dir.path(), "queue summary").await.expect("answered");
    assert!(summary.starts_with("waiting      3 recipients in 2 queues, 12.0 KiB\n"), "{summary}");
    let explain = run(d.dir.path(), "queue explain slow.example").await.expect("answered");
    assert!(explain.contains("WAIT  site connections: 3 of 3  [shaping.default.connections]"), "{explain}");
    assert!(explain.contains("verdict  waits for a connection to mx.example"), "{explain}");
}

#[tokio::test]
async fn queues_are_steered() {
    let d = daemon().await;
    let done = run(d.dir.path(), "queue suspend slow.example --reason ticket --for 2h").await.expect("answered");
    assert!(done.starts_with("suspended: #1 domain slow.example, until 2026-11-23 19:55:49Z"), "{done}");
    let done = run(d.dir.path(), "queue resume 1").await.expect("answered");
    assert!(done.starts_with("resumed: #1 "), "{done}");
    let error = run(d.dir.path(), "queue resume slow.example").await.expect_err("none left");
    assert_eq!(error, "no suspension is like that (404)");
    let done = run(d.dir.path(), "queue purge --domain slow.example --older-than 2d").await.expect("answered");
    assert_eq!(done, "purged: 2 recipients in 1 queues; 1 are in an attempt and were left alone\n");
    let error = run(d.dir.path(), "queue purge").await.expect_err("everything must be said");
    assert!(error.starts_with("match: it is empty"), "{error}");
    let error = run(d.dir.path(), "queue reroute --all --to nowhere").await.expect_err("no such pool");
    assert_eq!(error, "not found: pool nowhere (404)");
}

#[tokio::test]
async fn a_message_is_followed_on_one_screen() {
    let d = daemon().await;
    let id = crate::api::tests::messages_queued(&d.world);
    let life = run(d.dir.path(), &format!("message trace {id}")).await.expect("answered");
    for part in [
        &format!("message {id}  queued"),
        "  from      a@acme.example",
        "b@slow.example  deferred       1",
        "c@fast.example  delivered      1",
        "attempt 1, at mx.slow.example [192.0.2.25], TLSv1.3 TLS13_AES_256_GCM_SHA384",
        "450 4.2.1 try, \"later\"",
        "next attempt 2026-11-23 17:56:49Z (",
    ] {
        assert!(life.contains(part), "{part:?} in\n{life}");
    }
    // The entry's last reply has an escape meant for the terminal.
    let show = run(d.dir.path(), "queue show").await.expect("answered");
    assert!(!show.contains('\u{1b}') && show.contains("\\u{1b}[31mlater"), "{show}");
    let raw = run(d.dir.path(), &format!("queue show --raw {id}")).await.expect("answered");
    assert_eq!(raw, "Subject: x\r\n\r\nhi\r\n");
    let trace = run(d.dir.path(), "message trace b@slow.example").await.expect("answered");
    assert!(trace.contains(&format!("message {id}")) && trace.contains("deferred"), "{trace}");
    let error = run(d.dir.path(), "message trace nonsense").await.expect_err("neither");
    assert!(error.contains("neither the id of a message nor an address"), "{error}");
}

#[tokio::test]
async fn events_are_read_to_the_end() {
    let d = daemon().await;
    for _ in 0..1_500 {
        d.world.fake.event(EventKind::Delivered, "acme", |e| e.recipient = Some(mailbox("b@c.example")));
    }
    let all = run(d.dir.path(), "events export").await.expect("answered");
    assert_eq!(all.lines().count(), 1_500);
    let tail = run(d.dir.path(), "events tail -n 3").await.expect("answered");
    assert_eq!(tail.lines().count(), 3);
    assert!(tail.lines().all(|l| l.contains("delivered") && l.ends_with("acme  b@c.example")), "{tail}");
    let csv = run(d.dir.path(), "events export --csv --after 1499").await.expect("answered");
    assert_eq!(csv.lines().collect::<Vec<_>>().len(), 2);
    assert!(csv.starts_with("type,timeLogged,timeQueued,"), "{csv}");
}

#[tokio::test]
async fn control_commands() {
    let d = daemon().await;
    let status = run(d.dir.path(), "status").await.expect("answered");
    assert!(status.contains("on mta1.test: running") && status.contains("3 recipients in 2 queues"), "{status}");
    let error = run(d.dir.path(), "reload").await.expect_err("a bad file");
    assert!(error.starts_with("posthaste.toml:3:1: unknown key"), "{error}");
    assert!(!error.contains('\n'), "one line");
    let done = run(d.dir.path(), "backup /tmp/b").await.expect("answered");
    assert_eq!(done, "/tmp/b: 4.9 KiB, up to event 7\n");
    let done = run(d.dir.path(), "drain").await.expect("answered");
    assert!(done.starts_with("intake has ended"), "{done}");
}

#[tokio::test]
async fn over_http_with_a_key_file() {
    let d = daemon().await;
    let key = d.dir.path().join("key");
    let over = |text: &str| {
        std::fs::write(&key, text).expect("written");
        Connection { url: Some(format!("http://{}", d.address)), key_file: Some(key.clone()), ..Connection::default() }
    };
    let done = run_over(over(&format!("{ADMIN}\n")), "queue summary").await.expect("answered");
    assert!(done.starts_with("waiting      3 recipients"), "{done}");
    let error = run_over(over("wrong"), "queue summary").await.expect_err("not a key");
    assert_eq!(error, "this API key is not known (401): see --key-file");
    let bad = Connection { url: Some("ftp://x".into()), ..over(ADMIN) };
    assert!(run_over(bad, "status").await.expect_err("not http").contains("expected http://host:port"));
}

#[tokio::test]
async fn a_missing_daemon_is_said_with_its_socket() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = run(dir.path(), "status").await.expect_err("nobody is there");
    assert!(
        error.starts_with(&format!("no daemon answers on {}", dir.path().join("control.sock").display())),
        "{error}"
    );
    let config = dir.path().join("posthaste.toml");
    std::fs::write(&config, "data_dir = \"data\"\n[http]\naddress = 1\n").expect("written");
    let connection = Connection { config: Some(config), ..Connection::default() };
    let error = run_over(connection, "status").await.expect_err("nobody is there");
    assert!(error.contains(&dir.path().join("data/control.sock").display().to_string()), "{error}");
}

#[test]
fn accounting_rows_have_their_columns() {
    let mut accounting = Accounting::default();
    let mut accepted = full_event();
    accepted.event = EventKind::Accepted;
    accepted.sender = Some("origin@acme.example".into());
    assert!(
        accounting
            .row(&accepted)
            .is_some_and(|row| row.starts_with("r,2026-11-23 17:55:49Z,2026-11-23 17:55:40Z,origin@"))
    );
    let mut deferred = full_event();
    deferred.sender = None;
    let row = accounting.row(&deferred).expect("a type");
    // The quotes and the comma of the reply are quoted; the sender is remembered.
    assert_eq!(
        row,
        format!(
            "t,2026-11-23 17:55:49Z,2026-11-23 17:55:40Z,origin@acme.example,b@slow.example,,delayed,4.2.1,\
             \"smtp;450 try, \"\"later\"\"\",mx.slow.example [192.0.2.25],,http,crm,smtp,192.0.2.10,192.0.2.25,,4096,ip1,spring,{}",
            MessageId::new(crate::types::Timestamp::from_millis(1_795_456_540_000), 1)
        )
    );
    assert_eq!(HEADER.split(',').count(), 21);
    let mut purged = full_event();
    purged.event = EventKind::Purged;
    assert_eq!(accounting.row(&purged), None);
    let mut bounced = full_event();
    bounced.event = EventKind::Bounced;
    bounced.tenant = name("acme");
    if let Some(reply) = &mut bounced.smtp {
        (reply.code, reply.enhanced) = (550, Some("5.1.1".into()));
    }
    assert!(accounting.row(&bounced).is_some_and(|row| row.starts_with("b,") && row.contains(",bad-mailbox,")));
}

#[test]
fn forms_for_people() {
    let s = std::time::Duration::from_secs;
    assert_eq!([size(0), size(1_023), size(4_200), size(5 << 30)], ["0 B", "1023 B", "4.1 KiB", "5.0 GiB"]);
    assert_eq!([count(7), count(1_234), count(1_234_567)], ["7", "1,234", "1,234,567"]);
    assert_eq!([span(s(0)), span(s(65)), span(s(7_800)), span(s(270_000))], ["0ms", "1m05s", "2h10m", "3d3h"]);
    assert_eq!(printable_lines("a\u{1b}b\n    hint: c"), "a\\u{1b}b\n    hint: c");
    assert_eq!(printable("a\u{1b}[2J\u{202e}b\tc"), "a\\u{1b}[2J\\u{202e}b c");
    let mut table = Table::new(&["NAME", "#N", "LAST"]);
    table.row(["ä".into(), "7".into(), String::new()]);
    table.row(["long name".into(), "1,234".into(), "x\r\ny".into()]);
    assert_eq!(table.render(), ["NAME           N  LAST", "ä              7", "long name  1,234  x\\u{d}\\u{a}y"]);
}

#[tokio::test]
async fn suppressions_by_hand_and_by_file() {
    let d = daemon().await;
    let at = async |line: &str| run(d.dir.path(), line).await;
    let added = at("suppression add a@x.example --tenant acme --list news --note asked").await.expect("added");
    assert!(added.contains("acme/news") && added.contains("manual"), "{added}");
    assert!(at("suppression add b@x.example").await.expect_err("whose").contains("tenant"));
    let file = d.dir.path().join("in.csv");
    std::fs::write(&file, "email,reason\nb@x.example,complaint\nnobody\n").expect("written");
    let report = at(&format!("suppression import {} --tenant acme", file.display())).await.expect("imported");
    assert!(report.contains("2 rows: 1 added") && report.contains("line 3: "), "{report}");
    assert_eq!(at("suppression list --tenant acme").await.expect("listed").lines().count(), 3);
    assert!(at("suppression show b@x.example").await.expect("shown").contains("complaint"));
    assert!(
        at("suppression export --tenant acme").await.expect("written").contains("b@x.example,complaint,tenant,acme,")
    );
    assert!(at("suppression remove a@x.example --tenant acme").await.expect_err("other scope").contains("404"));
    assert!(at("suppression remove a@x.example --tenant acme --all").await.expect("removed").starts_with("1 removed"));
}
