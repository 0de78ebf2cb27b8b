//! Webhooks: their URLs, secrets and bounds.

use super::{Check, at};
use crate::config::{WEBHOOK_BATCH_MAX, WEBHOOK_TIMEOUT_MAX_S, WEBHOOKS_MAX, parse_webhook_secrets};

impl Check<'_> {
    pub(super) fn webhooks(&mut self) {
        let config = self.config;
        if config.webhooks.len() > WEBHOOKS_MAX {
            self.error(at!["webhooks"], format!("more than {WEBHOOKS_MAX} webhooks"), "");
        }
        let names = config.webhooks.iter().enumerate().map(|(i, w)| (at!["webhooks", i, "name"], w.name.as_str()));
        self.unique("webhook", names);
        for (i, webhook) in config.webhooks.iter().enumerate() {
            let at = at!["webhooks", i];
            if let Some(tenant) = &webhook.tenant
                && self.is_whole("tenants")
            {
                self.known(at.join("tenant"), "tenant", tenant, config.tenants.iter().map(|t| &t.name));
            }
            match webhook.target() {
                Err(message) => self.error(at.join("url"), message, "as \"https://app.example.com/hooks/mail\""),
                Ok(target) => {
                    // What a name leads to is checked at each request; an address is told at once.
                    let private =
                        target.is_localhost() || target.host.parse().is_ok_and(crate::types::is_private_address);
                    if private && !webhook.allow_private {
                        self.error(
                            at.join("url"),
                            format!("{} is a loopback, private or special address", target.host),
                            "allow_private = true, if that is what is meant",
                        );
                    }
                    if !target.tls && !private {
                        self.warn(
                            at.join("url"),
                            "events with their addresses go over the network unencrypted",
                            "use https://",
                        );
                    }
                }
            }
            if webhook.batch == 0 || webhook.batch > WEBHOOK_BATCH_MAX {
                let hint = format!("1 to {WEBHOOK_BATCH_MAX}");
                self.error(at.join("batch"), format!("{} events in a request", webhook.batch), &hint);
            }
            let timeout = webhook.timeout.0.as_secs();
            if timeout == 0 || timeout > WEBHOOK_TIMEOUT_MAX_S {
                let hint = format!("1s to {WEBHOOK_TIMEOUT_MAX_S}s");
                self.error(at.join("timeout"), format!("{} is no time for an answer", webhook.timeout), &hint);
            }
            if let Some(text) = self.secret(&at.join("secret_file"), &webhook.secret_file)
                && let Err(message) = parse_webhook_secrets(&text)
            {
                let hint = "printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\" > FILE; chmod 600 FILE";
                self.error(at.join("secret_file"), message, hint);
            }
            if let Some(file) = &webhook.authorization_file
                && let Some(text) = self.secret(&at.join("authorization_file"), file)
            {
                let line = text.trim();
                if line.is_empty() || !line.bytes().all(|b| (0x20..0x7f).contains(&b)) {
                    self.error(at.join("authorization_file"), "must hold one line of printable ASCII", "");
                }
            }
        }
    }
}
