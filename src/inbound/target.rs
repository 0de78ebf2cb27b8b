//! To whom of us a mail comes: return paths, and a few addresses that each bounce domain has.

use super::Inbound;
use crate::links::{ReturnPath, ReturnPathError, UNSUBSCRIBE_LOCAL_PART};
use crate::queue::intake::Refusal;
use crate::types::{Mailbox, Name};

/// The local parts at a tenant's bounce domain to which providers send reports of complaints (RFC 5965): give one of them where you register
/// for a feedback loop.
pub const COMPLAINTS_LOCAL_PARTS: [&str; 2] = ["fbl", "abuse"];

/// The local parts at a tenant's bounce domain to which reports on authentication come: what `rua=mailto:` of `_dmarc` and of `_smtp._tls` names. Either
/// takes either kind.
pub const REPORTS_LOCAL_PARTS: [&str; 2] = ["dmarc-reports", "tls-reports"];

/// The local part that every host with a mail server has (RFC 5321 §4.5.1).
pub const POSTMASTER_LOCAL_PART: &str = "postmaster";

/// To whom of us a mail comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The return path of one recipient of one message.
    Return {
        /// Whose mail it was.
        tenant: Name,
        /// Which.
        path: ReturnPath,
    },
    /// Reports of complaints: the token is in the mail that they enclose.
    Complaints {
        /// Whose bounce domain it is.
        tenant: Name,
    },
    /// Unsubscribes: the token is the subject (RFC 2369 §3.2).
    Unsubscribes {
        /// Whose bounce domain it is.
        tenant: Name,
    },
    /// Reports on authentication.
    Reports {
        /// Whose bounce domain it is; none for an address of the configuration.
        tenant: Option<Name>,
    },
    /// Mail for people (RFC 5321 §4.5.1, RFC 2142).
    Postmaster {
        /// Whose bounce domain it is; none for the host itself.
        tenant: Option<Name>,
    },
}

impl Target {
    /// In a word, for the log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Target::Return { .. } => "return path",
            Target::Complaints { .. } => "complaints",
            Target::Unsubscribes { .. } => "unsubscribes",
            Target::Reports { .. } => "reports",
            Target::Postmaster { .. } => "postmaster",
        }
    }
}

impl Inbound {
    /// What an address is to us.
    ///
    /// # Errors
    /// It is none of ours, or not any more: 550 5.1.1, which is all that a stranger learns.
    pub fn target(&self, mailbox: &Mailbox) -> Result<Target, Refusal> {
        let unknown = || Refusal::new(550, "5.1.1", 422, format!("<{mailbox}>: unknown bounce address"));
        let config = self.parts.config.load();
        if config.bounces.report_addresses.iter().any(|own| own.canonical() == mailbox.canonical()) {
            return Ok(Target::Reports { tenant: None });
        }
        let local = mailbox.local_part();
        let for_people = local.eq_ignore_ascii_case(POSTMASTER_LOCAL_PART);
        if for_people && Self::people(&config).is_none() {
            self.parts.metrics.refused("postmaster");
            return Err(Refusal::new(451, "4.3.5", 503, "No postmaster is configured, try again later"));
        }
        if for_people && config.hostname.eq_ignore_ascii_case(mailbox.domain().as_str()) {
            return Ok(Target::Postmaster { tenant: None });
        }
        let owner = config.tenants.iter().find(|t| t.bounce_domain.as_ref() == Some(mailbox.domain()));
        let Some(tenant) = owner.map(|t| t.name.clone()) else {
            self.parts.metrics.refused("foreign");
            return Err(unknown());
        };
        if for_people {
            return Ok(Target::Postmaster { tenant: Some(tenant) });
        }
        if REPORTS_LOCAL_PARTS.iter().any(|known| local.eq_ignore_ascii_case(known)) {
            return Ok(Target::Reports { tenant: Some(tenant) });
        }
        if local.eq_ignore_ascii_case(UNSUBSCRIBE_LOCAL_PART) {
            return Ok(Target::Unsubscribes { tenant });
        }
        if COMPLAINTS_LOCAL_PARTS.iter().any(|known| local.eq_ignore_ascii_case(known)) {
            return Ok(Target::Complaints { tenant });
        }
        match self.parts.links.open_return_path(&tenant, local, self.parts.clock.now()) {
            Ok(path) => Ok(Target::Return { tenant, path }),
            Err(error) => {
                self.parts.metrics.refused(match error {
                    ReturnPathError::Foreign => "foreign",
                    ReturnPathError::Forged => "forged",
                    ReturnPathError::Expired => "expired",
                });
                Err(unknown())
            }
        }
    }
}
