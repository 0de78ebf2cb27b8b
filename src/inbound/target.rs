//! To whom of us a mail comes: return paths, and a few addresses that each bounce domain has.

use super::Inbound;
use crate::links::{ReturnPath, ReturnPathError, UNSUBSCRIBE_LOCAL_PART};
use crate::queue::intake::Refusal;
use crate::types::{Mailbox, Name};

/// The local parts at a tenant's bounce domain to which providers send reports of complaints (RFC 5965): give one of them where you register
/// for a feedback loop.
pub const COMPLAINTS_LOCAL_PARTS: [&str; 2] = ["fbl", "abuse"];

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
}

impl Target {
    /// In a word, for the log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Target::Return { .. } => "return path",
            Target::Complaints { .. } => "complaints",
            Target::Unsubscribes { .. } => "unsubscribes",
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
        let owner = config.tenants.iter().find(|t| t.bounce_domain.as_ref() == Some(mailbox.domain()));
        let Some(tenant) = owner.map(|t| t.name.clone()) else {
            self.parts.metrics.refused("foreign");
            return Err(unknown());
        };
        let local = mailbox.local_part();
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
