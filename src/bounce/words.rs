//! The words of a report for people: what happened, and what to do about it.

use super::dsn::{Action, Recipient};

/// What a status code (RFC 3463) means for the sender, and what helps. Chosen by subject and detail; the class says only
/// whether it is for good.
pub(super) fn advice(status: &str, action: Action) -> &'static str {
    let mut parts = status.splitn(3, '.').skip(1);
    let (subject, detail) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
    match (action, subject, detail) {
        (Action::Delivered | Action::Relayed | Action::Expanded, _, _) => "",
        (_, "1", "1" | "0" | "6") => {
            "There is no such address there. Check it for typing errors, or reach the recipient in another way."
        }
        (_, "1", "2" | "10") => {
            "The domain of the address does not exist or takes no mail. Check the part behind the @ for typing errors."
        }
        (_, "1", "7" | "8") => "The server did not accept the sender's address. Check it, or ask your administrator.",
        (_, "2", "2") => "The recipient's mailbox is full. Try again later, or reach the recipient in another way.",
        (_, "2", "1") => "The recipient's mailbox is disabled. Reach the recipient in another way.",
        (_, "2", "3") | (_, "3", "4") => "The message is too large for the recipient's server. Send less, or a link.",
        (_, "6", "7") => {
            "The recipient's server does not support international addresses. Use another address, if there is one."
        }
        (_, "6", _) => "The recipient's server can't take a message of this form. Send it as plain text.",
        (_, "7", _) => {
            "The recipient's server refused the message by a rule of its own. What it said is above; its administrator can tell more."
        }
        (Action::Failed, "4", "7") => {
            "It was tried again and again, and is given up now. Send it again later, or reach the recipient in another way."
        }
        (_, "4", "6") => {
            "The recipient's server is not configured properly: mail for it runs in a circle. Its administrator can help."
        }
        (_, "4", _) => "The recipient's server could not be reached. Check the part behind the @ for typing errors.",
        (Action::Failed, _, _) => "What the recipient's server said is above; its administrator can tell more.",
        (Action::Delayed, _, _) => "",
    }
}

/// The first sentences, by what the report is about as a whole.
pub(super) fn opening(action: Action) -> &'static str {
    match action {
        Action::Failed => {
            "Your message could not be delivered to the recipients below. It is not\r\ntried again for them.\r\n"
        }
        Action::Delayed => {
            "Your message could not be delivered yet to the recipients below. It will be\r\ntried again: you need not do anything, and need not send it again.\r\n"
        }
        Action::Delivered => "Your message was delivered to the recipients below, as you asked to be told.\r\n",
        Action::Relayed => {
            "Your message was handed on for the recipients below to a server that does\r\nnot report further. You get no other report, unless it fails there.\r\n"
        }
        Action::Expanded => "Your message was handed to a mailing list for the recipients below.\r\n",
    }
}

/// The subject, by what the report is about as a whole. Known words: people and programs look for them.
pub(super) fn subject(action: Action) -> &'static str {
    match action {
        Action::Failed => "Undelivered mail returned to sender",
        Action::Delayed => "Delayed mail: still being tried",
        Action::Delivered => "Successful mail delivery report",
        Action::Relayed => "Mail relayed to a server without delivery reports",
        Action::Expanded => "Mail handed to a mailing list",
    }
}

/// What happened to one recipient, on one line without its end.
pub(super) fn happened(recipient: &Recipient<'_>) -> String {
    let Some(reply) = recipient.reply else { return String::new() };
    let code = if reply.code > 0 { format!("{} ", reply.code) } else { String::new() };
    let enhanced = reply.enhanced.as_deref().map_or(String::new(), |e| format!("{e} "));
    match (recipient.remote, recipient.host) {
        (true, Some(host)) => format!("The mail server {host} said: {code}{enhanced}{}", reply.text),
        (true, None) => format!("The mail server said: {code}{enhanced}{}", reply.text),
        (false, Some(host)) => format!("With the mail server {host}: {}", reply.text),
        (false, None) => reply.text.to_string(),
    }
}
