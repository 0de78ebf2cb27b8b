//! Tests of the session by golden dialogs, and of the driver over loopback.

mod dialogs;
mod driver;
mod logins;
