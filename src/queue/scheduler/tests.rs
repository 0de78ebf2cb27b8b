//! Scenarios on the simulated world, a file a subject; what they share is here.

mod adapt;
mod admin;
mod campaigns;
mod endings;
mod limits;
mod memory;
mod providers;
mod whole;

use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::config::{HumanDuration, LimitRule, Pool, PoolSource, Rate, Source};
use crate::event::{EventKind, Severity};
use crate::queue::admin::{Command, Explanation, Matcher, Reply};
use crate::queue::notice::Notice;
use crate::queue::sim::{START, Temper, World};
use crate::queue::testing;
use crate::types::Class::{Marketing, Transactional};

fn after(secs: u64) -> Timestamp {
    START.after(Duration::from_secs(secs))
}

fn dead(secs: u64) -> Temper {
    Temper { dead_until: after(secs), ..Temper::default() }
}

fn fast() -> Config {
    let mut config = Config::default();
    config.shaping.default = LimitRule { connections: Some(10), ..LimitRule::default() };
    config
}

fn ask<T>(world: &mut World, make: impl FnOnce(Reply<T>) -> Command) -> T {
    let (reply, mut answer) = oneshot::channel();
    let now = world.now;
    assert!(world.scheduler.command(now, make(reply)).is_none());
    world.carry_out();
    world.run_until(now.after(Duration::from_millis(10)));
    answer.try_recv().expect("answered").expect("carried out")
}

fn by_domain(domain: &str) -> Matcher {
    Matcher { domain: Some(testing::domain(domain)), ..Matcher::default() }
}
