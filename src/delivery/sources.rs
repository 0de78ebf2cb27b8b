//! The addresses that mail is sent from: whether this host has them.
//!
//! `posthaste check` and the start of the daemon ask; at run time a source without its address is held, and no destination is blamed.

use crate::config::Config;
use crate::seam::net::can_bind;

/// A warning for each source whose address this host can't send from now.
pub fn unusable(config: &Config) -> Vec<String> {
    let problem = |source: &crate::config::Source| {
        let address = source.address?;
        let error = can_bind(address).err()?;
        let name = source.name.as_str();
        Some(format!("source {name:?}: this host can't send from {address} ({error}); its mail would wait"))
    };
    config.sources.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::types::Name;

    #[test]
    fn an_address_that_is_not_ours_is_told() {
        let source = |name: &str, address: Option<&str>| Source {
            name: Name::parse(name).expect("a name"),
            address: address.map(|a| a.parse().expect("an address")),
            ehlo: None,
            connections: None,
            message_rate: None,
        };
        let sources = vec![
            source("any", None),
            source("ours", Some("127.0.0.1")),
            // RFC 5737: an address for documentation is nobody's.
            source("foreign", Some("192.0.2.77")),
        ];
        let found = unusable(&Config { sources, ..Config::default() });
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("\"foreign\"") && found[0].contains("192.0.2.77"), "{found:?}");
    }
}
