//! The parts of the demo that need no daemon.

use super::report::{Report, Row};
use super::setup::{PROVIDERS, Stage, provider_of, provider_of_domain, write_recipient};

#[test]
fn the_config_is_valid_and_routes_every_recipient_to_its_provider() {
    let stage = Stage::set(1, Some("-----BEGIN PRIVATE KEY-----\n")).expect("loopback");
    let text = std::fs::read_to_string(stage.config_file()).expect("written");
    let config: crate::config::Config = toml::from_str(&text).expect("valid");
    assert_eq!(config.routes.len(), PROVIDERS.len() + 1);
    assert_eq!(config.dkim.len(), 1);
    for number in 0..200 {
        let mut address = Vec::new();
        write_recipient(number, &mut address);
        let address = String::from_utf8(address).expect("ascii");
        let domain = address.split_once('@').expect("an address").1;
        assert_eq!(provider_of(number), provider_of_domain(domain));
        let route = config.routes.get(domain).unwrap_or(&config.routes["*"]);
        assert_eq!(route.hosts, [stage.sink().address(provider_of(number)).to_string()]);
    }
    let folder = stage.folder().to_owned();
    drop(stage);
    assert!(!folder.exists());
}

#[test]
fn shares_hold_in_every_hundred() {
    for (provider, (name, _, share)) in PROVIDERS.iter().enumerate() {
        let count = (300..400).filter(|n| provider_of(*n) == provider).count() as u64;
        assert_eq!(count, *share, "{name}");
    }
}

#[test]
fn counts_that_differ_are_told() {
    let mut report = Report::of(vec![Row { name: "a", accepted: 10, ..Row::default() }], 10);
    assert!(report.render().contains("do NOT agree"));
    assert_eq!(report.problems(), ["a: 10 accepted, 0 ended"]);
    report = {
        let mut row = Row { name: "a", accepted: 10, ..Row::default() };
        row.tally.delivered = 9;
        row.tally.bounced = 1;
        row.seen.taken = 8;
        row.seen.rejected = 1;
        Report::of(vec![row], 10)
    };
    assert_eq!(report.problems(), ["a: 9 delivered events, but 8 arrived"]);
}
