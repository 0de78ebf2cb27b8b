//! How a simulated receiver behaves.
//!
//! A recipient is refused by the first [`Rule`] whose share covers the hash of its address, for the first `times`
//! tries; a [`Fault`] breaks whole sessions. The texts are those that the real providers use.

use std::path::PathBuf;

/// What EHLO announces.
#[derive(Clone, Debug)]
pub struct Offers {
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
    /// SIZE (RFC 1870) in octets; larger messages get 552.
    pub size_max: Option<u64>,
}

impl Default for Offers {
    fn default() -> Self {
        Self { pipelining: true, chunking: false, eight_bit: true, smtputf8: true, dsn: true, size_max: Some(36 << 20) }
    }
}

/// When a rule answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// To RCPT.
    Rcpt,
    /// To the end of the message.
    EndOfData,
}

/// A refusal of a share of the addresses.
#[derive(Clone, Debug)]
pub struct Rule {
    /// How many of a thousand addresses it covers. Rules share the thousand: the second begins where the first ends.
    pub per_mille: u16,
    /// How many tries of an address it refuses; after that the address is taken. `u32::MAX` for ever.
    pub times: u32,
    /// When it answers.
    pub moment: Moment,
    /// The reply, without CRLF at its end; several lines are separated by CRLF. A 421 closes the session.
    pub reply: String,
}

/// A place in a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Right after the connection is open, in place of the greeting.
    Connect,
    /// At EHLO or HELO.
    Ehlo,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// At DATA or BDAT, before any octet of the message.
    Data,
    /// Inside the message.
    MidBody,
    /// After the end of the message, in place of its reply: the message is kept, so the sender can't know.
    FinalReply,
}

/// How sessions break.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends without a word.
    Drop {
        /// Where.
        at: Phase,
        /// How often; later sessions behave.
        times: u32,
    },
    /// 421, then the connection ends.
    ServiceClosing {
        /// Where.
        at: Phase,
        /// How often; later sessions behave.
        times: u32,
    },
    /// Every reply comes one octet at a time.
    ByteByByte {
        /// Milliseconds between octets.
        pause_ms: u64,
    },
    /// EHLO is answered by lines of `250-` without end, up to [`ENDLESS_BYTES_MAX`].
    EndlessReply,
}

/// The most octets of an endless reply: past it the connection ends, so that a sender without a cap fails its test
/// instead of filling the memory.
pub const ENDLESS_BYTES_MAX: usize = 16 << 20;

/// A simulated receiver.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name, for reports: `gmail-like`.
    pub name: String,
    /// Its host name, in greeting and EHLO.
    pub host: String,
    /// What it offers.
    pub offers: Offers,
    /// Whom it refuses.
    pub rules: Vec<Rule>,
    /// How it breaks.
    pub fault: Option<Fault>,
    /// The most connections at a time; the next is greeted by 421. 0 for no limit.
    pub connections_max: u32,
    /// The most messages of a connection; the next MAIL gets 421. 0 for no limit.
    pub messages_per_connection: u32,
    /// Varies which addresses the rules cover.
    pub seed: u64,
    /// Where messages are kept: `N.eml` with the octets (dot-stuffing undone) and `N.json` with the envelope.
    pub store: Option<PathBuf>,
}

impl Profile {
    /// A receiver that takes everything and offers all but CHUNKING.
    pub fn accepting(name: &str) -> Self {
        Self {
            name: name.into(),
            host: format!("mx.{name}.example"),
            offers: Offers::default(),
            rules: Vec::new(),
            fault: None,
            connections_max: 0,
            messages_per_connection: 0,
            seed: 0,
            store: None,
        }
    }

    /// Like Gmail: CHUNKING, unknown users, full mailboxes, and a rate limit at the end of the message.
    pub fn gmail_like() -> Self {
        Self {
            rules: vec![
                Rule::always(
                    10,
                    "550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n550-5.1.1 \
                     double-checking the recipient's email address for typos or\r\n550 5.1.1 unnecessary spaces. \
                     https://support.google.com/mail/?p=NoSuchUser - gsmtp",
                ),
                Rule::first(
                    5,
                    1,
                    Moment::Rcpt,
                    "452-4.2.2 The recipient's inbox is out of storage space. Please direct the\r\n452 4.2.2 \
                     recipient to https://support.google.com/mail/?p=OverQuotaTemp - gsmtp",
                ),
                Rule::first(
                    25,
                    1,
                    Moment::EndOfData,
                    "421-4.7.28 Gmail has detected an unusual rate of mail originating from your IP\r\n421-4.7.28 \
                     address. To protect our users from spam, mail sent from your IP address\r\n421 4.7.28 has been \
                     temporarily rate limited. https://support.google.com/mail/?p=UnsolicitedRateLimitError - gsmtp",
                ),
            ],
            offers: Offers { chunking: true, ..Offers::default() },
            ..Self::accepting("gmail")
        }
    }

    /// Like Yahoo: TSS04 for some, and at most 20 messages a connection.
    pub fn yahoo_like() -> Self {
        Self {
            rules: vec![
                Rule::always(15, "550 5.1.1 <recipient> User unknown; no such mailbox here"),
                Rule::first(
                    30,
                    1,
                    Moment::Rcpt,
                    "421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred due to unexpected volume or user \
                     complaints; see https://postmaster.yahooinc.com/error-codes",
                ),
            ],
            messages_per_connection: 20,
            ..Self::accepting("yahoo")
        }
    }

    /// Like Outlook.com: CHUNKING, a rate limit by reputation, unknown mailboxes.
    pub fn outlook_like() -> Self {
        Self {
            rules: vec![
                Rule::always(
                    12,
                    "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302) \
                     [AM6EUR05FT061.eop-eur05.prod.protection.outlook.com]",
                ),
                Rule::first(
                    40,
                    2,
                    Moment::Rcpt,
                    "451 4.7.650 The mail server [127.0.0.1] has been temporarily rate limited due to IP reputation. \
                     For e-mail delivery information, see https://postmaster.live.com (S775)",
                ),
            ],
            offers: Offers { chunking: true, ..Offers::default() },
            connections_max: 50,
            ..Self::accepting("outlook")
        }
    }

    /// A strict small host: greylists half of the addresses, has unknown users, and offers little.
    pub fn strict() -> Self {
        Self {
            rules: vec![
                Rule::always(30, "550 5.1.1 Recipient address rejected: User unknown in virtual mailbox table"),
                Rule::first(500, 1, Moment::Rcpt, "450 4.2.0 Recipient address rejected: Greylisted, try again later"),
            ],
            offers: Offers { smtputf8: false, dsn: false, size_max: Some(10 << 20), ..Offers::default() },
            connections_max: 10,
            ..Self::accepting("strict")
        }
    }

    /// The rule that covers an address by its hash, if any; pure.
    pub(crate) fn rule_for(&self, address_hash: u64) -> Option<&Rule> {
        let place = (mix(address_hash ^ self.seed) % 1_000) as u16;
        let mut end = 0_u16;
        self.rules.iter().find(|rule| {
            end = end.saturating_add(rule.per_mille);
            place < end
        })
    }
}

impl Rule {
    /// Refuses a share of the addresses at RCPT for ever.
    pub fn always(per_mille: u16, reply: &str) -> Self {
        Self::first(per_mille, u32::MAX, Moment::Rcpt, reply)
    }

    /// Refuses the first `times` tries of a share of the addresses.
    pub fn first(per_mille: u16, times: u32, moment: Moment, reply: &str) -> Self {
        Self { per_mille, times, moment, reply: reply.into() }
    }
}

/// The hash of an address, case ignored: FNV-1a, so that it is the same in every release of the compiler.
pub(crate) fn address_hash(address: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3);
    address.iter().fold(0xcbf2_9ce4_8422_2325, fnv)
}

/// Spreads a hash over all 64 bits (the finaliser of SplitMix64).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
