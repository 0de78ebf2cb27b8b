//! What peers answer, and what the scheduler makes of it.

use super::*;
use crate::config::{ActionKind, Phase, ReplyRule, RuleAction, TreatAs};
use crate::event::SmtpReply;
use crate::queue::sim::peers::Meter;
use crate::shaping::adapt::State;
use crate::shaping::rules::parse_reply;

const YAHOO: &str = "mta5.am0.yahoodns.net";
const GOOGLE: &str = "aspmx.l.google.com";

fn reply(text: &str) -> SmtpReply {
    parse_reply(text).expect("a reply")
}

fn world(seed: u64, host: &str, config: Config) -> World {
    let mut world = World::new(seed, config);
    for domain in ["one.example", "two.example"] {
        world.hosts.insert(domain.to_owned(), host.to_owned());
    }
    world
}

fn submit(world: &mut World, from: u64, count: u64, tenant: &str, domain: &str) {
    for n in from..from + count {
        world.submit(n, tenant, Marketing, &[&format!("u{n}@{domain}")]);
    }
}

/// Taken a minute, and refused of a thousand attempts, between two times.
fn seen(world: &World, from: Timestamp, until: Timestamp) -> (f64, usize) {
    let attempts = &world.meters["one.example"].attempts;
    let within: Vec<bool> = attempts.iter().filter(|(at, _)| *at >= from && *at < until).map(|(_, no)| *no).collect();
    let refused = within.iter().filter(|no| **no).count();
    let minutes = until.since(from).as_secs_f64() / 60.0;
    ((within.len() - refused) as f64 / minutes, refused * 1_000 / within.len().max(1))
}

fn controller<'a>(world: &'a World, group: &str) -> &'a crate::shaping::adapt::Controller {
    let id = world.scheduler.path_id(0, &group.into()).expect("something went there");
    &world.scheduler.path(id).and_then(|p| p.adaptive.as_ref()).expect("it adapts").controller
}

fn explain_steps(world: &mut World, domain: &str) -> Explanation {
    let matcher = by_domain(domain);
    let found: Vec<Explanation> = ask(world, |reply| Command::Explain { matcher, limit: 1, reply });
    found.into_iter().next().expect("one")
}

fn metered(seed: u64, limit: usize) -> World {
    let mut world = world(seed, YAHOO, fast());
    let meter = Meter::new(limit, reply("421 4.7.0 [TS01] Messages temporarily deferred due to user complaints"));
    world.meters.insert("one.example".to_owned(), meter);
    world
}

#[test]
fn finds_the_rate_of_a_provider_that_limits_and_stays_there() {
    let mut world = metered(71, 120);
    submit(&mut world, 0, 9_000, "acme", "one.example");
    world.run_until(after(3_600));
    let (taken, refused) = seen(&world, after(900), after(3_600));
    assert!((108.0..=120.5).contains(&taken), "{taken} a minute of 120");
    assert!(refused <= 20, "{refused} of a thousand attempts were refused");
    let events: Vec<_> = world.events.iter().filter(|e| e.event == EventKind::Adapted).collect();
    assert!(events.len() < 60, "no flapping: {}", events.len());
    let first = events.iter().find(|e| e.smtp.is_some()).expect("a refusal changed something");
    assert_eq!((first.tenant.as_str(), first.provider.as_deref()), ("acme", Some("yahoo")));
    assert!(first.source.is_some() && first.message_id.is_some() && first.reason.is_some());

    world.meters.get_mut("one.example").expect("there").limit = 60;
    world.run_until(after(4_500));
    let from = world.now;
    world.run_until(from.after(Duration::from_secs(1_200)));
    let (taken, refused) = seen(&world, from, world.now);
    assert!((54.0..=60.5).contains(&taken), "{taken} a minute of 60");
    assert!(refused <= 20, "{refused} of a thousand attempts were refused");
}

#[test]
fn a_restart_remembers_what_was_learned() {
    let mut world = metered(72, 120);
    submit(&mut world, 0, 6_000, "acme", "one.example");
    world.run_until(after(1_200));
    let ceiling = controller(&world, "yahoo").ceiling().expect("it met one");
    world.crash();
    world.run_until(after(1_320));
    let again = controller(&world, "yahoo");
    assert_eq!((again.state(), again.ceiling()), (State::Holding, Some(ceiling)));
    let (taken, refused) = seen(&world, after(1_260), after(2_000).min(world.now));
    assert!(taken > 60.0 && refused == 0, "{taken} a minute, {refused}");
    assert!(world.state.keys().filter(|k| k.starts_with(b"adaptation/")).count() == 1);
}

#[test]
fn a_hold_holds_the_provider_is_explained_and_ends_with_a_few() {
    let mut world = world(73, YAHOO, fast());
    world.says.insert("one.example".to_owned(), reply("421 4.7.0 [TSS05] Messages temporarily deferred"));
    submit(&mut world, 0, 1, "acme", "one.example");
    world.run_for(5);
    submit(&mut world, 10, 300, "acme", "two.example");
    world.run_for(3_600);
    assert_eq!(world.received.len(), 0, "another domain of the provider is held too");
    let told = explain_steps(&mut world, "two.example");
    assert!(told.verdict.starts_with("waits: provider held, until"), "{}", told.verdict);
    let step = told.steps.iter().find(|s| s.name == "adaptation").expect("a step");
    assert!(
        !step.pass && step.detail.contains("rule yahoo-tss05") && step.detail.contains("[TSS05]"),
        "{}",
        step.detail
    );
    let held = told.steps.iter().find(|s| s.detail.contains("held until")).expect("a step");
    assert!(held.detail.contains("rule yahoo-tss05"), "{}", held.detail);

    world.says.clear();
    world.run_until(after(4 * 3_600));
    assert_eq!(world.received.len(), 0);
    world.run_for(15);
    let got = world.received.len();
    assert!((1..=15).contains(&got), "a few first: {got}");
    world.run_for(1_200);
    assert_eq!(world.received.len(), 301);
}

#[test]
fn an_operators_retry_ends_a_hold() {
    let mut world = world(74, YAHOO, fast());
    world.says.insert("one.example".to_owned(), reply("421 4.7.0 [TSS05] Messages temporarily deferred"));
    submit(&mut world, 0, 1, "acme", "one.example");
    world.run_for(5);
    world.says.clear();
    let matcher = by_domain("one.example");
    ask(&mut world, |reply| Command::Retry { matcher, reply });
    world.run_for(60);
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_reply_that_names_the_senders_domain_holds_that_tenant_alone_and_alerts() {
    let mut world = world(75, GOOGLE, fast());
    world.says.insert("one.example".to_owned(), reply("421 4.7.30 DKIM did not pass."));
    submit(&mut world, 0, 1, "acme", "one.example");
    world.run_for(5);
    world.says.clear();
    assert_eq!(world.count(EventKind::Alert), 1);
    assert_eq!(world.count(EventKind::Suspended), 1);
    submit(&mut world, 10, 5, "acme", "one.example");
    submit(&mut world, 20, 5, "beta", "one.example");
    submit(&mut world, 30, 5, "acme", "two.example");
    world.run_for(60);
    assert_eq!(world.received.len(), 10, "others go on");
    let told = explain_steps(&mut world, "one.example");
    assert!(told.verdict.contains("gmail-authentication") && told.verdict.contains("4.7.30"), "{}", told.verdict);
    world.run_for(2 * 3_600);
    assert_eq!(world.received.len(), 16);
}

fn rule(text: &str) -> ReplyRule {
    toml::from_str(text).expect("a rule")
}

#[test]
fn rules_of_the_config_change_severities_and_hold_recipients() {
    let mut config = fast();
    config.rules = vec![
        rule(
            "name = \"soft\"\ncodes = [\"550\"]\npattern = \"odd host\"\nscope = \"recipient\"\ntreat_as = \"temporary\"\nactions = [{ do = \"hold_recipient\", for = \"10h\" }]",
        ),
        rule(
            "name = \"hard\"\ncodes = [\"451\"]\npattern = \"never again\"\nscope = \"recipient\"\ntreat_as = \"permanent\"",
        ),
    ];
    assert_eq!(config.rules[0].treat_as, Some(TreatAs::Temporary));
    let mut world = World::new(76, config);
    world.says.insert("soft.example".to_owned(), reply("550 5.1.1 an odd host"));
    world.says.insert("hard.example".to_owned(), reply("451 4.1.1 never again"));
    submit(&mut world, 0, 1, "acme", "soft.example");
    submit(&mut world, 1, 1, "acme", "hard.example");
    world.run_for(9 * 3_600);
    assert_eq!((world.count(EventKind::Bounced), world.count(EventKind::Deferred)), (1, 1));
    world.says.clear();
    world.run_for(2 * 3_600);
    assert_eq!(world.received.len(), 1, "after its hold");
}

#[test]
fn an_action_waits_for_its_number_of_replies_and_other_sites_keep_their_speed() {
    let mut config = fast();
    let mut own = rule("name = \"many\"\ncodes = [\"451\"]\npattern = \"slow down there\"");
    own.phases = vec![Phase::Rcpt];
    let one = rule(
        "name = \"x\"\ncodes = [\"451\"]\nactions = [{ do = \"hold\", for = \"1h\", after = 3, within = \"1h\" }]",
    );
    let actions: Vec<RuleAction> = one.actions;
    assert_eq!(actions[0].action, ActionKind::Hold);
    own.actions = actions;
    config.rules = vec![own];
    let mut world = World::new(77, config);
    submit(&mut world, 100, 500, "acme", "one.example");
    world.run_for(10);
    assert_eq!(world.received.len(), 500, "no slow start where no provider matched");
    world.says.insert("one.example".to_owned(), reply("451 4.7.1 slow down there"));
    submit(&mut world, 0, 2, "acme", "one.example");
    world.run_for(2);
    assert_eq!(world.count(EventKind::Adapted), 0);
    submit(&mut world, 2, 1, "acme", "one.example");
    world.run_for(2);
    assert_eq!(world.count(EventKind::Adapted), 1);
    world.says.clear();
    submit(&mut world, 3, 5, "acme", "one.example");
    world.run_for(3_000);
    assert_eq!(world.received.len(), 500, "held");
    let kept = |world: &World| world.state.keys().filter(|k| k.starts_with(b"adaptation/")).count();
    assert_eq!(kept(&world), 1);
    world.run_for(2 * 3_600);
    assert_eq!(world.received.len(), 508);
    assert_eq!((kept(&world), world.scheduler.adapting.others()), (0, 0), "nothing is left of it");
}

#[test]
fn a_path_without_mail_is_not_looked_at() {
    let mut world = world(78, YAHOO, fast());
    submit(&mut world, 0, 20, "acme", "one.example");
    world.run_for(600);
    assert_eq!(world.received.len(), 20);
    let steps = world.scheduler.steps();
    world.run_for(3_000);
    assert!(world.scheduler.steps() - steps < 20, "{}", world.scheduler.steps() - steps);
}
