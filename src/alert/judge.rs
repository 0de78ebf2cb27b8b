//! What was seen becomes findings: one for each threshold and subject, with how bad it is now.

use std::time::Duration;

use super::shares::{Shares, Totals};
use super::{AlertName, CLEAR_SHARE, Disk, Observed, words};
use crate::config::Alerts;
use crate::types::{Name, Timestamp};

/// What one threshold says about one subject.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which threshold.
    pub name: AlertName,
    /// About what.
    pub subject: String,
    /// Whose, where it is one tenant's.
    pub tenant: Option<Name>,
    /// How bad.
    pub level: Level,
    /// How long it must be bad before it is told.
    pub after: Duration,
    /// Since when it is bad, where that is known better than by looking.
    pub since: Option<Timestamp>,
    /// The values.
    pub summary: String,
    /// The likely cause.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// How bad it is. Between the threshold and a fifth below it nothing changes: neither begins an alert nor ends one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// The threshold is crossed.
    Bad,
    /// Neither.
    Between,
    /// Well below it.
    Good,
}

/// The shares, which need a memory.
#[derive(Debug, Default)]
pub(super) struct Judge {
    tenants: Shares<Name>,
    paths: Shares<(String, String)>,
    began: Option<Timestamp>,
}

impl Judge {
    /// All findings. A threshold of zero finds nothing.
    pub(super) fn judge(&mut self, config: &Alerts, seen: &Observed, now: Timestamp) -> Vec<Finding> {
        let mut found = Vec::new();
        let began = *self.began.get_or_insert(now);
        // While the window is not full, too small a sample says nothing; later it says that there is hardly any mail.
        let full = now.since(began) >= config.window.0;
        let mut share = |rule: Rule, part: u64, whole: u64, subject: String, tenant: Option<Name>, detail: &[&str]| {
            if rule.limit > 0.0 {
                let level = level_of(&rule, config.minimum, part, whole, full);
                let summary = words::share(rule.name, part, whole, rule.limit, config.window);
                found.push(words::explained(rule.name, subject, tenant, level, summary, detail));
            }
        };
        for (tenant, counts) in &seen.tenants {
            let totals = [counts.delivered, counts.bounced, counts.late_bounces, counts.complained];
            let [delivered, bounced, late, complained] = self.tenants.take(tenant, totals, config.window.0, now);
            let (subject, of) = (tenant.to_string(), Some(tenant.clone()));
            let rule = Rule { name: AlertName::BounceRate, limit: config.bounce_rate };
            share(rule, bounced + late, delivered + bounced, subject.clone(), of.clone(), &[tenant.as_str()]);
            let rule = Rule { name: AlertName::ComplaintRate, limit: config.complaint_rate };
            share(rule, complained, delivered, subject, of, &[tenant.as_str()]);
        }
        for path in &seen.paths {
            let key = (path.source.clone(), path.provider.clone());
            let totals: Totals = [path.attempts, path.deferred, 0, 0];
            let [attempts, deferred, ..] = self.paths.take(&key, totals, config.window.0, now);
            let rule = Rule { name: AlertName::DeferralRate, limit: config.deferral_rate };
            let detail = [path.source.as_str(), path.provider.as_str()];
            share(rule, deferred, attempts, format!("{} to {}", path.source, path.provider), None, &detail);
        }
        found.extend(overdue(config, seen, now));
        found.extend(seen.disk.and_then(|disk| disk_free(config, disk)));
        held(config, seen, now, &mut found);
        found
    }
}

/// A share and its threshold.
#[derive(Clone, Copy)]
struct Rule {
    name: AlertName,
    limit: f64,
}

fn level_of(rule: &Rule, minimum: u64, part: u64, whole: u64, full: bool) -> Level {
    if whole < minimum {
        return if full { Level::Good } else { Level::Between };
    }
    let share = part as f64 / whole.max(1) as f64;
    if share > rule.limit {
        Level::Bad
    } else if share > rule.limit * CLEAR_SHARE {
        Level::Between
    } else {
        Level::Good
    }
}

fn overdue(config: &Alerts, seen: &Observed, now: Timestamp) -> Option<Finding> {
    let limit = config.queue_age.0;
    let overdue = seen.overdue.as_ref().filter(|_| !limit.is_zero())?;
    let age = now.since(overdue.since);
    let level = if age > limit {
        Level::Bad
    } else if age > limit.mul_f64(CLEAR_SHARE) {
        Level::Between
    } else {
        Level::Good
    };
    let summary = words::overdue(overdue, age, config.queue_age);
    let detail = [overdue.domain.as_str(), overdue.held_by.as_deref().unwrap_or("")];
    Some(words::explained(AlertName::QueueAge, "node".into(), None, level, summary, &detail))
}

fn disk_free(config: &Alerts, disk: Disk) -> Option<Finding> {
    if disk.total == 0 {
        return None;
    }
    let share = disk.free as f64 / disk.total as f64;
    // Above what intake needs there must be something left, whatever the share says.
    let level = if share < config.disk_free || disk.free < disk.min_free {
        Level::Bad
    } else if share < (config.disk_free / CLEAR_SHARE).min(0.99) || disk.free < disk.min_free / 4 * 5 {
        Level::Between
    } else {
        Level::Good
    };
    let summary = words::disk(disk, config.disk_free);
    Some(words::explained(AlertName::DiskFree, "node".into(), None, level, summary, &[]))
}

/// What is listed only while it is bad: sources that are held, mail that was stopped, webhooks that fail.
fn held(config: &Alerts, seen: &Observed, now: Timestamp, found: &mut Vec<Finding>) {
    let bad = |name, subject, tenant, summary, detail: &[&str]| {
        words::explained(name, subject, tenant, Level::Bad, summary, detail)
    };
    for held in seen.held.iter().filter(|_| !config.source_held.0.is_zero()) {
        let subject = format!("{} to {}", held.source, held.provider);
        let detail = [held.source.as_str(), held.provider.as_str(), held.reason.as_str()];
        let finding = bad(AlertName::SourceHeld, subject, None, words::held(held), &detail);
        found.push(Finding { after: config.source_held.0, ..finding });
    }
    for stopped in &seen.stopped {
        let (subject, id) = (format!("suspension {}", stopped.id), stopped.id.to_string());
        let summary = words::stopped(stopped);
        found.push(bad(AlertName::MailStopped, subject, stopped.tenant.clone(), summary, &[&id]));
    }
    for hook in seen.webhooks.iter().filter(|_| !config.webhook_failing.0.is_zero()) {
        let summary = words::webhook(hook, now);
        let finding =
            bad(AlertName::WebhookFailing, hook.name.to_string(), hook.tenant.clone(), summary, &[hook.name.as_str()]);
        found.push(Finding { after: config.webhook_failing.0, since: Some(hook.since), ..finding });
    }
}
