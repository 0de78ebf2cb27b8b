//! What a peer offers in its reply to EHLO (RFC 5321 §4.1.1.1).

use super::Reply;

/// What a peer offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// SIZE (RFC 1870): the limit in octets, 0 where the peer names none; `None` where SIZE is not offered.
    pub size: Option<u64>,
    /// AUTH PLAIN (RFC 4616).
    pub auth_plain: bool,
    /// AUTH LOGIN.
    pub auth_login: bool,
    /// LIMITS RCPTMAX (RFC 9422): recipients a transaction.
    pub rcpt_max: Option<u32>,
    /// LIMITS RCPTDOMAINMAX (RFC 9422): recipient domains a transaction.
    pub rcpt_domain_max: Option<u32>,
    /// LIMITS MAILMAX (RFC 9422): transactions a session.
    pub mail_max: Option<u32>,
}

impl Capabilities {
    /// Reads the reply to EHLO. What is malformed counts as not offered.
    pub fn parse(reply: &Reply) -> Self {
        let mut caps = Self::default();
        for line in reply.lines().skip(1) {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => caps.pipelining = true,
                "CHUNKING" => caps.chunking = true,
                "8BITMIME" => caps.eight_bit = true,
                "SMTPUTF8" => caps.smtputf8 = true,
                "DSN" => caps.dsn = true,
                "STARTTLS" => caps.starttls = true,
                // A limit that fits no u64 is no limit for us.
                "SIZE" => caps.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                "AUTH" => caps.auth(words),
                "LIMITS" => caps.limits(words),
                // Old servers write "AUTH=LOGIN PLAIN".
                other => {
                    if let Some(first) = other.strip_prefix("AUTH=") {
                        caps.auth(std::iter::once(first).chain(words));
                    }
                }
            }
        }
        caps
    }

    fn auth<'a>(&mut self, mechanisms: impl Iterator<Item = &'a str>) {
        for mechanism in mechanisms {
            self.auth_plain |= mechanism.eq_ignore_ascii_case("PLAIN");
            self.auth_login |= mechanism.eq_ignore_ascii_case("LOGIN");
        }
    }

    fn limits<'a>(&mut self, limits: impl Iterator<Item = &'a str>) {
        for limit in limits {
            let Some((name, value)) = limit.split_once('=') else { continue };
            // RFC 9422 §4: values are 1 to 999999; anything else is ignored.
            let Some(value) = value.parse::<u32>().ok().filter(|v| (1..=999_999).contains(v)) else { continue };
            match name.to_ascii_uppercase().as_str() {
                "RCPTMAX" => self.rcpt_max = Some(value),
                "RCPTDOMAINMAX" => self.rcpt_domain_max = Some(value),
                "MAILMAX" => self.mail_max = Some(value),
                _ => {}
            }
        }
    }
}
