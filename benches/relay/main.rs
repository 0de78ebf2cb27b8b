//! The source and the sink of the relay benchmark, as processes of their own, so that the CPU of each can be told apart.
//!
//! `relay sink` listens on a free port of loopback and prints its address; for each line on standard input it prints its
//! counters, and it ends with its input. `relay source TARGET …` submits and prints what it did. Both speak JSON, one
//! object a line. `benches/relay/run` starts them and measures; see `docs/benchmarks.md`.

// The lints of the library keep it from printing; this is a program whose output is its purpose.
#![allow(clippy::print_stdout)]

use std::io::BufRead;
use std::sync::Arc;

use anyhow::{Context, bail};
use posthaste::sandbox::source::{Load, Progress, run};
use posthaste::sandbox::{Endpoint, Offers, Profile, Sink};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("sink") => sink(&args[1..]),
        Some("source") => source(&args[1..]),
        _ => {
            println!("run benches/relay/run; see docs/benchmarks.md");
            Ok(())
        }
    }
}

/// The value after `--name`, or the default.
fn option<T: std::str::FromStr>(args: &[String], name: &str, default: T) -> anyhow::Result<T> {
    let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(default) };
    let Some(value) = args.get(at + 1).and_then(|value| value.parse().ok()) else { bail!("{name} needs a value") };
    Ok(value)
}

fn sink(args: &[String]) -> anyhow::Result<()> {
    let chunking = args.iter().any(|arg| arg == "--chunking");
    let profile = Profile { offers: Offers { chunking, ..Offers::default() }, ..Profile::accepting("bench") };
    let sink = Sink::start(vec![Endpoint::local(profile)])?;
    println!("{}", serde_json::json!({ "address": sink.address(0).to_string() }));
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", serde_json::to_string(&sink.counters(0).snapshot())?);
    }
    Ok(())
}

fn source(args: &[String]) -> anyhow::Result<()> {
    let target = args.first().context("source TARGET")?.parse().context("TARGET is address:port")?;
    let domains: u64 = option(args, "--domains", 1_000)?;
    let messages = option(args, "--messages", 200_000)?;
    let run_id: u64 = option(args, "--seed", 1)?;
    let load = Load {
        target,
        sessions: option(args, "--sessions", 100)?,
        messages,
        body_bytes: option(args, "--body", 4_096)?,
        sender: "bench@bench.example".into(),
        recipient: Arc::new(move |number, out| {
            use std::io::Write;
            // Writing into memory can't fail.
            let _ = write!(out, "u{run_id}.{number}@d{}.bench.example", number % domains.max(1));
        }),
        chunking: args.iter().any(|arg| arg == "--chunking"),
        login: None,
        seed: run_id,
    };
    let progress = Arc::new(Progress::new(messages));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(load, progress.clone()));
    let report = serde_json::json!({
        "accepted": progress.accepted(),
        "refused": progress.refused(),
        "retried": progress.retried(),
        "reconnects": progress.reconnects(),
        "last_refusal": progress.last_refusal(),
        "error": ended.as_ref().err().map(ToString::to_string),
        "seconds": ended.map(|took| took.as_secs_f64()).unwrap_or_default(),
    });
    println!("{report}");
    Ok(())
}
