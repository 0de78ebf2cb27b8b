//! What a submitter asks of notifications (RFC 3461).

use std::fmt;

/// `NOTIFY` of one recipient (RFC 3461 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Notify {
    /// Not given: a failure is reported, a delay may be.
    Default,
    /// `NEVER`: nothing is reported.
    Never,
    /// The events that are reported.
    On {
        /// `SUCCESS`: delivered, or relayed to a host without DSN.
        success: bool,
        /// `FAILURE`.
        failure: bool,
        /// `DELAY`.
        delay: bool,
    },
}

impl Notify {
    /// Whether success is reported.
    pub fn success(self) -> bool {
        matches!(self, Notify::On { success: true, .. })
    }

    /// Whether failure is reported.
    pub fn failure(self) -> bool {
        matches!(self, Notify::Default | Notify::On { failure: true, .. })
    }

    /// Whether a delay is reported.
    pub fn delay(self) -> bool {
        matches!(self, Notify::Default | Notify::On { delay: true, .. })
    }

    /// One octet for the store.
    pub fn to_byte(self) -> u8 {
        match self {
            Notify::Default => 0,
            Notify::Never => 8,
            Notify::On { success, failure, delay } => {
                16 | u8::from(success) | u8::from(failure) << 1 | u8::from(delay) << 2
            }
        }
    }

    /// From the octet of the store; `None` for one that was never written.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Notify::Default),
            8 => Some(Notify::Never),
            16..=23 => Some(Notify::On { success: byte & 1 != 0, failure: byte & 2 != 0, delay: byte & 4 != 0 }),
            _ => None,
        }
    }
}

impl fmt::Display for Notify {
    /// The value of the parameter; nothing for the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notify::Default => Ok(()),
            Notify::Never => f.write_str("NEVER"),
            Notify::On { success, failure, delay } => {
                let names = [(*success, "SUCCESS"), (*failure, "FAILURE"), (*delay, "DELAY")];
                let mut first = true;
                for (_, name) in names.iter().filter(|(on, _)| *on) {
                    if !first {
                        f.write_str(",")?;
                    }
                    f.write_str(name)?;
                    first = false;
                }
                Ok(())
            }
        }
    }
}

/// `RET` of a message (RFC 3461 §4.3): how much of it a failure report returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header.
    Headers,
}
