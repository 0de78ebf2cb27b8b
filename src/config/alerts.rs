//! When an operator is told that something is wrong.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::HumanDuration;
use crate::types::Mailbox;

/// What is watched, from which value on it is told, and to whom. Each alert is an event and a metric, and stands in `posthaste alerts list`.
///
/// An alert ends when its value is a fifth better than its threshold for five minutes.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Alerts {
    /// Whether anything is watched.
    pub enabled: bool,
    /// The share of a tenant's recipients that may bounce, in the session or later. `0` for no alert; so with every threshold here.
    pub bounce_rate: f64,
    /// The share of a tenant's delivered mails that may be complained about.
    pub complaint_rate: f64,
    /// The share of the attempts of one source towards one provider that may be deferred.
    pub deferral_rate: f64,
    /// How many recipients (attempts, for deferrals) a share needs before it is judged.
    pub minimum: u64,
    /// The time over which shares are counted, at most `1d`. They begin anew with each start of the daemon.
    pub window: HumanDuration,
    /// How long mail that is due may wait without an attempt. What waits for its next attempt by `[retry]`, a campaign's pause, window or rate, a
    /// suspension or a warm-up budget does not count; nor do dead hosts, for fewer than `minimum` recipients.
    pub queue_age: HumanDuration,
    /// The share of the disk under `data_dir` that must be free. `storage.min_free`, where intake ends, is told in any case.
    pub disk_free: f64,
    /// How long a source may be held towards a provider, by what the provider answers.
    pub source_held: HumanDuration,
    /// How long a webhook may fail.
    pub webhook_failing: HumanDuration,
    /// How often an alert that goes on is told again. `0s` for once.
    pub repeat: HumanDuration,
    /// Who gets a mail for what begins, goes on and ends; without anybody no mail is sent.
    pub mail_to: Vec<Mailbox>,
    /// From whom. Without it `posthaste@` and the host name.
    pub mail_from: Option<Mailbox>,
    /// A submission server that takes the mails, as `smtp.example.net:587`: one that is not this daemon tells also of trouble in its queues. With
    /// TLS, but on loopback. Without it, or where it takes nothing, they go through the daemon's own queues.
    pub mail_server: Option<String>,
    /// The login at `mail_server`.
    pub mail_username: Option<String>,
    /// The file with its password; the first line counts.
    pub mail_password_file: Option<PathBuf>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            enabled: true,
            bounce_rate: 0.05,
            complaint_rate: 0.003,
            deferral_rate: 0.5,
            minimum: 200,
            window: HumanDuration::secs(3_600),
            queue_age: HumanDuration::secs(4 * 3_600),
            disk_free: 0.1,
            source_held: HumanDuration::secs(900),
            webhook_failing: HumanDuration::secs(3_600),
            repeat: HumanDuration::secs(86_400),
            mail_to: Vec::new(),
            mail_from: None,
            mail_server: None,
            mail_username: None,
            mail_password_file: None,
        }
    }
}
