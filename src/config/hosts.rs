//! The hosts of a route: `host`, `host:port`, `address:port` or `[v6]:port`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::types::Domain;

/// Where a [`RouteHost`] is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteTarget {
    /// By the A and AAAA records of a name (never by its MX).
    Name(Domain),
    /// At an address.
    Address(IpAddr),
}

/// A host of a route, with its port where one is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteHost {
    /// Where it is.
    pub target: RouteTarget,
    /// Its port; default 25, or 465 with `implicit_tls`.
    pub port: Option<u16>,
}

impl RouteHost {
    /// Whether it is certainly this machine: a loopback address or a name within `localhost` (RFC 6761 §6.3).
    pub fn is_loopback(&self) -> bool {
        match &self.target {
            RouteTarget::Address(address) => address.is_loopback(),
            RouteTarget::Name(name) => name.as_str() == "localhost" || name.as_str().ends_with(".localhost"),
        }
    }
}

impl FromStr for RouteHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{text:?} is not a host: {why}");
        let port = |port: &str| match port.parse::<u16>() {
            Ok(0) | Err(_) => Err(bad("the port must be a number from 1 to 65535")),
            Ok(port) => Ok(Some(port)),
        };
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or_else(|| bad("']' is missing"))?;
            let address: Ipv6Addr = address.parse().map_err(|_| bad("no IPv6 address in the brackets"))?;
            let port = match rest.strip_prefix(':') {
                Some(text) => port(text)?,
                None if rest.is_empty() => None,
                None => return Err(bad("only a port may follow the brackets")),
            };
            return Ok(Self { target: RouteTarget::Address(address.into()), port });
        }
        if text.matches(':').count() > 1 {
            return Err(bad("an IPv6 address stands in brackets, as \"[::1]:25\""));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, text)) => (host, port(text)?),
            None => (text, None),
        };
        let target = match host.parse::<IpAddr>() {
            Ok(address) => RouteTarget::Address(address),
            Err(_) => RouteTarget::Name(Domain::parse(host).map_err(|e| bad(&e.to_string()))?),
        };
        Ok(Self { target, port })
    }
}

impl fmt::Display for RouteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            RouteTarget::Name(name) => name.fmt(f)?,
            RouteTarget::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            RouteTarget::Address(address) => address.fmt(f)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_writes_it_back() {
        for text in ["mx.example", "mx.example:26", "127.0.0.1", "127.0.0.1:2626", "[::1]", "[2001:db8::1]:25"] {
            assert_eq!(text.parse::<RouteHost>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn refuses_what_could_be_misread() {
        for text in ["", "::1", "[::1", "[::1]25", "[mx.example]:25", "mx.example:", "mx.example:0", "mx:99999", "a b"]
        {
            assert!(text.parse::<RouteHost>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn knows_this_machine() {
        let is = |text: &str| text.parse::<RouteHost>().expect("valid").is_loopback();
        assert!(is("127.0.0.2:25") && is("[::1]:25") && is("localhost") && is("sink.localhost"));
        assert!(!is("10.0.0.1") && !is("localhost.example"));
    }
}
