//! Alerts and the reports of authentication.

use std::time::Duration;

use super::{Check, at};
use crate::config::RouteHost;

/// The longest window of the shares: they are kept in memory, a count a minute.
const WINDOW_MAX: Duration = Duration::from_secs(86_400);
/// The shortest.
const WINDOW_MIN: Duration = Duration::from_secs(300);

impl Check<'_> {
    pub(super) fn alerts(&mut self) {
        let alerts = &self.config.alerts;
        let shares = [
            ("bounce_rate", alerts.bounce_rate),
            ("complaint_rate", alerts.complaint_rate),
            ("deferral_rate", alerts.deferral_rate),
            ("disk_free", alerts.disk_free),
        ];
        for (key, share) in shares {
            if !(0.0..1.0).contains(&share) {
                self.error(at!["alerts", key], format!("{share} is not a share"), "from 0 to below 1, as 0.05 for 5 %");
            }
        }
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&alerts.window.0) {
            self.error(at!["alerts", "window"], format!("{} is out of bounds", alerts.window), "from 5m to 1d");
        }
        self.at_least(at!["alerts", "minimum"], alerts.minimum, 1);
        if alerts.repeat.0 > Duration::ZERO && alerts.repeat.0 < Duration::from_secs(300) {
            self.error(
                at!["alerts", "repeat"],
                format!("{} is too often", alerts.repeat),
                "at least 5m, or 0s for once",
            );
        }
        if let Some(server) = &alerts.mail_server
            && let Err(e) = server.parse::<RouteHost>()
        {
            self.error(at!["alerts", "mail_server"], e, "as \"smtp.example.net:587\"");
        }
        if alerts.mail_username.is_some() != alerts.mail_password_file.is_some() {
            self.error(
                at!["alerts", "mail_username"],
                "a login needs both a name and a password",
                "give mail_username and mail_password_file, or neither",
            );
        }
        if let Some(file) = &alerts.mail_password_file {
            self.password_file(at!["alerts", "mail_password_file"], file);
        }
        if alerts.mail_to.is_empty() && (alerts.mail_server.is_some() || alerts.mail_from.is_some()) {
            self.warn(at!["alerts", "mail_to"], "no mail is sent, since nobody is to get one", "");
        }
    }
}
