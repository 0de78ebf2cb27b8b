//! Limits of a provider over all of its sites, and what is learned or planned on top of them.

use super::*;
use crate::shaping::{Budget, Control};

/// Domains with an MX host each, all of one provider.
fn tenants_of_microsoft(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("t{i}.mail.protection.outlook.com")).collect()
}

fn with_provider(change: impl FnOnce(&mut crate::config::Provider)) -> Config {
    let mut config = fast();
    config.adaptation.enabled = false;
    config.providers = crate::config::built_in().clone();
    change(config.providers.get_mut("microsoft").expect("built in"));
    config
}

fn rate(count: u32, secs: u64) -> Rate {
    Rate { count, per: Duration::from_secs(secs) }
}

fn submit_to_all(world: &mut World, domains: &[String], each: u64) {
    for (at, domain) in domains.iter().enumerate() {
        for n in 0..each {
            world.submit(at as u64 * each + n, "acme", Marketing, &[&format!("u{n}@{domain}")]);
        }
    }
}

/// The most that was received in any time of this length.
fn most_in(world: &World, window: Duration) -> usize {
    let mut at: Vec<Timestamp> = world.received_at.iter().map(|(at, ..)| *at).collect();
    at.sort();
    (0..at.len()).map(|i| at[i..].iter().take_while(|t| t.since(at[i]) < window).count()).max().unwrap_or(0)
}

fn set_control(world: &mut World, control: Control) {
    let id = world.scheduler.path_id(0, &"microsoft".into()).expect("something went there");
    world.scheduler.set_control(id, control);
    world.scheduler.finish();
    world.carry_out();
}

#[test]
fn connections_of_a_provider_count_over_all_of_its_sites() {
    let mut world = World::new(51, with_provider(|p| p.connections = Some(3)));
    let domains = tenants_of_microsoft(40);
    submit_to_all(&mut world, &domains, 5);
    let mut most = 0;
    for _ in 0..30_000 {
        world.run_until(world.now.after(Duration::from_millis(10)));
        most = most.max(world.scheduler.totals.connections);
    }
    assert_eq!((world.received.len(), most), (200, 3));
}

#[test]
fn several_rates_of_a_provider_hold_at_once_over_all_of_its_sites() {
    let rates = [rate(5, 1), rate(60, 60)];
    let mut world = World::new(52, with_provider(|p| p.message_rate = rates.into_iter().collect()));
    let domains = tenants_of_microsoft(30);
    submit_to_all(&mut world, &domains, 10);
    world.run_for(200);
    let got = world.received.len();
    assert!((180..=201).contains(&got), "one a second: {got}");
    // A transaction takes up to 20 ms.
    assert!(most_in(&world, Duration::from_millis(980)) <= 5);
    assert!(most_in(&world, Duration::from_millis(59_980)) <= 60);
    world.run_for(150);
    assert_eq!(world.received.len(), 300, "nobody is forgotten");
}

#[test]
fn what_waits_for_a_provider_costs_nothing() {
    let mut world = World::new(53, with_provider(|p| p.message_rate = [rate(1, 60)].into_iter().collect()));
    let domains = tenants_of_microsoft(2_000);
    submit_to_all(&mut world, &domains, 1);
    world.run_for(300);
    let (steps, received) = (world.scheduler.steps(), world.received.len());
    world.run_for(600);
    let (steps, received) = (world.scheduler.steps() - steps, world.received.len() - received);
    assert!((9..=10).contains(&received), "{received}");
    assert!(steps < 6_000, "{steps} turns for {received} messages");
}

#[test]
fn a_hold_a_ceiling_and_a_budget_are_kept_and_explained() {
    let mut world = World::new(54, with_provider(|p| p.connections = Some(5)));
    let domains = tenants_of_microsoft(3);
    submit_to_all(&mut world, &domains, 1);
    world.run_for(10);
    assert_eq!(world.received.len(), 3);
    let explain = |world: &mut World| {
        let matcher = by_domain(&domains[0]);
        let found: Vec<Explanation> = ask(world, |reply| Command::Explain { matcher, limit: 1, reply });
        found.into_iter().next().expect("one").verdict
    };

    let until = world.now.after(Duration::from_secs(100));
    set_control(&mut world, Control { held: Some((until, "421 4.7.0 later".into())), ..Control::default() });
    for (at, domain) in domains.iter().enumerate() {
        for n in 0..100 {
            world.submit(1_000 + at as u64 * 100 + n, "acme", Marketing, &[&format!("v{n}@{domain}")]);
        }
    }
    world.run_for(90);
    assert_eq!(world.received.len(), 3);
    assert!(explain(&mut world).starts_with("waits: provider held, until"));

    set_control(&mut world, Control { ceiling_rate: Some(rate(60, 60)), ..Control::default() });
    world.run_for(60);
    let got = world.received.len();
    assert!((55..=63).contains(&got), "one a second: {got}");

    let budget = Budget { left: 0, of: 50, until: world.now.after(Duration::from_secs(50)) };
    set_control(&mut world, Control { warmup: Some(budget), ..Control::default() });
    let got = world.received.len();
    world.run_for(40);
    assert!(world.received.len() <= got + 5, "only what was under way");
    assert!(explain(&mut world).starts_with("waits: warm-up, until"));
    world.run_for(60);
    assert_eq!(world.received.len(), 303);
}

#[test]
fn a_reload_changes_the_limits_of_a_provider_at_once() {
    let mut world = World::new(55, with_provider(|p| p.message_rate = [rate(1, 3_600)].into_iter().collect()));
    let domains = tenants_of_microsoft(20);
    submit_to_all(&mut world, &domains, 1);
    world.run_for(100);
    assert!(world.received.len() <= 1);
    let config = with_provider(|p| p.message_rate = [rate(100, 1)].into_iter().collect());
    world.scheduler.reconfigure(world.now, Arc::new(config));
    world.carry_out();
    world.run_for(60);
    assert_eq!(world.received.len(), 20);
}
