//! What happens in a run, and when: all of it follows from the seed.

use std::time::Duration;

use super::clients::Mail;
use super::log::Ms;
use super::peers::Mood;
use crate::config::{Config, HumanDuration, LimitRule, Pool, PoolSource, Rate, Source, TlsPolicy};
use crate::queue::intake::testing::tenant;
use crate::queue::testing::name;
use crate::seam::random::Seeded;

/// Hosts of receivers. The first is in order all the time; the last takes our notifications, and is, too.
pub(super) const HOSTS: usize = 7;
/// Domains of recipients: `d0.test` is at the first host and nothing ever happens to it.
pub(super) const DOMAINS: u64 = 8;
/// How long things go wrong.
pub(super) const TROUBLE_MS: Ms = 2 * 3_600_000;
/// When a recipient is given up.
pub(super) const EXPIRE: Duration = Duration::from_secs(5 * 3_600);
/// The tenants.
pub(super) const TENANTS: [&str; 3] = ["acme", "beta", "gamma"];

/// What DNS answers.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The host of each domain.
    pub mx: Vec<usize>,
    /// Domains whose questions fail for now.
    pub failing: Vec<usize>,
    /// All questions fail for now.
    pub broken: bool,
    /// The longest time of an answer.
    pub slow_ms: u64,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Op {
    HandIn(Vec<Mail>),
    Mood(usize, Mood),
    Names(Names),
    /// The system's clock is set, by so many milliseconds.
    Jump(i64),
    /// The process dies, and another one starts after so many milliseconds.
    Crash(Ms),
    Suspend {
        domain: u64,
        secs: Option<u64>,
    },
    ResumeAll,
    Retry,
    Purge {
        domain: u64,
    },
    Reroute {
        domain: u64,
    },
}

/// A run to be.
pub(super) struct Plan {
    pub seed: u64,
    pub config: Config,
    /// In order of time.
    pub ops: Vec<(Ms, Op)>,
}

impl Plan {
    pub(super) fn count(&self, which: impl Fn(&Op) -> bool) -> u64 {
        self.ops.iter().filter(|(_, op)| which(op)).count() as u64
    }
}

impl Plan {
    /// What is done to the process itself, for those who look into a failure.
    pub(super) fn told(&self) -> String {
        let mild = |op: &Op| matches!(op, Op::HandIn(_) | Op::Mood(..) | Op::Names(_));
        let ops = self.ops.iter().filter(|(_, op)| !mild(op)).map(|(at, op)| format!("{at}: {op:?}"));
        ops.collect::<Vec<_>>().join(", ")
    }
}

/// A configuration with two sources, and limits that are reached.
fn config(dice: &mut Seeded) -> Config {
    let pick = |dice: &mut Seeded, from: &[u32]| from[dice.below(from.len() as u64) as usize];
    let mut config = Config { hostname: "mta.example".into(), ..Config::default() };
    config.tenants = TENANTS.iter().map(|t| tenant(t, &[&format!("{t}.example")])).collect();
    let source = |n: u8| Source {
        name: name(&format!("s{n}")),
        address: Some([10, 8, 8, n].into()),
        ehlo: None,
        connections: None,
        message_rate: None,
    };
    config.sources = vec![source(1), source(2)];
    let pool = |pool: &str, source: &str| Pool {
        name: name(pool),
        sources: vec![PoolSource { name: name(source), weight: 1 }],
    };
    config.pools = vec![pool("default", "s1"), pool("other", "s2")];
    config.delivery.tls = TlsPolicy::None;
    config.delivery.allow_private_addresses = true;
    config.delivery.max_unsettled = pick(dice, &[4, 32, 256]);
    config.delivery.flight_depth = pick(dice, &[0, 1, 4]);
    config.retry.schedule = [30, 120, 600, 1_800].map(HumanDuration::secs).into();
    config.retry.expire_after = HumanDuration::secs(EXPIRE.as_secs());
    config.storage.window_entries = pick(dice, &[300, 1_000, 100_000]);
    config.shaping.default = LimitRule {
        connections: Some(pick(dice, &[1, 2, 5])),
        connection_rate: Some(Rate { count: pick(dice, &[10, 30]), per: Duration::from_secs(60) }),
        message_rate: Some(match dice.below(3) {
            0 => Rate { count: 1, per: Duration::from_secs(1) },
            1 => Rate { count: 5, per: Duration::from_secs(1) },
            _ => Rate { count: 90, per: Duration::from_secs(60) },
        }),
        messages_per_connection: Some(pick(dice, &[1, 3, 20])),
    };
    config
}

fn mood(dice: &mut Seeded) -> Mood {
    let fine = Mood { latency_ms: 1 + dice.below(200), flaps: dice.below(2) == 0, ..Mood::default() };
    match dice.below(8) {
        0 => Mood { refuses: true, ..fine },
        1 => Mood { hangs: true, ..fine },
        2 => Mood { trouble: 60, ..fine },
        3 => Mood { trouble: 15, mute: 5, ..fine },
        4 => Mood { unknown: 30, trouble: 3, ..fine },
        5 => Mood { mute: 25, ..fine },
        6 => Mood { latency_ms: 20_000, ..fine },
        _ => fine,
    }
}

pub(super) fn names_in_order() -> Names {
    let mx = (0..DOMAINS as usize).map(|d| d % (HOSTS - 1)).collect();
    Names { mx, failing: Vec::new(), broken: false, slow_ms: 3 }
}

fn names(dice: &mut Seeded) -> Names {
    let mut names = names_in_order();
    match dice.below(5) {
        0 => names.broken = true,
        1 => names.failing = (1..DOMAINS as usize).filter(|_| dice.below(2) == 0).collect(),
        2 => names.slow_ms = 6_000,
        3 => names.mx[1..].iter_mut().for_each(|host| *host = dice.below(HOSTS as u64 - 1) as usize),
        _ => {}
    }
    names
}

/// Trouble of all kinds for two hours.
pub(super) fn trouble(seed: u64) -> Plan {
    let mut dice = Seeded::new(seed);
    let config = config(&mut dice);
    let mut ops = Vec::new();
    let mut number = 0;
    let mut mail = |dice: &mut Seeded, domains: u64| {
        number += 1;
        let tenant = TENANTS[dice.below(3) as usize];
        let to = |i: u64, dice: &mut Seeded| format!("u{number}-{i}@d{}.test", dice.below(domains));
        let recipients = (0..1 + dice.below(4)).map(|i| to(i, dice)).collect();
        Mail { tag: format!("{tenant}-{number}"), tenant, marketing: dice.below(3) != 0, recipients }
    };
    // A rush at the beginning reaches the limits.
    for _ in 0..4 {
        ops.push((0, Op::HandIn((0..20).map(|_| mail(&mut dice, 3)).collect())));
    }
    for _ in 0..20 + dice.below(20) {
        let at = dice.below(TROUBLE_MS);
        ops.push((at, Op::HandIn((0..1 + dice.below(6)).map(|_| mail(&mut dice, DOMAINS)).collect())));
    }
    for host in 1..HOSTS - 1 {
        ops.push((0, Op::Mood(host, mood(&mut dice))));
        for _ in 0..dice.below(6) {
            ops.push((dice.below(TROUBLE_MS), Op::Mood(host, mood(&mut dice))));
        }
    }
    for _ in 0..dice.below(6) {
        ops.push((dice.below(TROUBLE_MS), Op::Names(names(&mut dice))));
    }
    for _ in 0..dice.below(4).saturating_sub(1) {
        let by = [3_600_000, -3_600_000, 30 * 86_400_000, -30 * 86_400_000_i64][dice.below(4) as usize];
        ops.push((dice.below(TROUBLE_MS), Op::Jump(by)));
    }
    for _ in 0..dice.below(8).saturating_sub(4) {
        ops.push((dice.below(TROUBLE_MS), Op::Crash(dice.below(60_000))));
    }
    for _ in 0..dice.below(8) {
        let domain = 1 + dice.below(DOMAINS - 1);
        let op = match dice.below(6) {
            0 | 1 => Op::Suspend { domain, secs: (dice.below(2) == 0).then(|| 60 + dice.below(1_800)) },
            2 => Op::ResumeAll,
            3 => Op::Retry,
            4 => Op::Purge { domain },
            _ => Op::Reroute { domain },
        };
        ops.push((dice.below(TROUBLE_MS), op));
    }
    ops.sort_by_key(|(at, _)| *at);
    Plan { seed, config, ops }
}

/// Three tenants hand in the same at the same time for one host, which is in order.
pub(super) fn fair(seed: u64) -> Plan {
    let mut dice = Seeded::new(seed);
    let config = config(&mut dice);
    let mails = |tenant: &'static str| {
        let mail = |n: u64| Mail {
            tag: format!("{tenant}-{:03}", n + 100),
            tenant,
            marketing: true,
            recipients: vec![format!("{tenant}{n}@d0.test")],
        };
        Op::HandIn((0..60).map(mail).collect())
    };
    Plan { seed, config, ops: TENANTS.iter().map(|tenant| (0, mails(tenant))).collect() }
}
