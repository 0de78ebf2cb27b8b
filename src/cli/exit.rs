//! The exit codes, all of them.

use std::process::ExitCode;

/// What the process exits with. `send` uses the codes of `sysexits.h`, which those who call a sendmail know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 0: it was done.
    Success,
    /// 1: it was not done, and why was said; for `check`: there are errors; for `serve`: the daemon had to stop.
    Failure,
    /// 2: the arguments are wrong (clap's own code).
    Usage,
    /// 2: something of it was not understood; what was is printed. For `bounce read`.
    NotUnderstood,
    /// 64, `EX_USAGE`: `send`'s arguments are wrong.
    SendUsage,
    /// 65, `EX_DATAERR`: the message or an address is wrong.
    SendData,
    /// 69, `EX_UNAVAILABLE`: the server refused it for good.
    SendRefused,
    /// 74, `EX_IOERR`: the message or a file could not be read.
    SendIo,
    /// 75, `EX_TEMPFAIL`: not now; try again later.
    SendLater,
    /// 76, `EX_PROTOCOL`: the server did not speak SMTP as it should, or its certificate is not to be trusted.
    SendProtocol,
    /// 77, `EX_NOPERM`: the server refused user and password.
    SendLogin,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage | Exit::NotUnderstood => 2,
            Exit::SendUsage => 64,
            Exit::SendData => 65,
            Exit::SendRefused => 69,
            Exit::SendIo => 74,
            Exit::SendLater => 75,
            Exit::SendProtocol => 76,
            Exit::SendLogin => 77,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
