//! Codes in words: the reply code (RFC 5321 §4.2) and the enhanced status code (RFC 3463).

use std::sync::LazyLock;

use regex::Regex;

use crate::bounce::classify::Phase;

#[expect(clippy::expect_used, reason = "the patterns are constants, which the tests compile")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

/// The first enhanced status code that stands alone: not a part of an address, a version or a date.
pub fn enhanced_in(text: &str) -> Option<String> {
    static CODE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?:^|[\s(\[#:=<,;\-])([245]\.[0-9]\.[0-9]{1,3})(?:$|[\s)\],:;>\-]|\.(?:\s|$))"));
    CODE.captures(text).map(|found| found[1].to_owned())
}

/// The first reply code of a refusal, where it stands as one: at a beginning, and followed by words, an enhanced code or nothing.
pub fn smtp_code_in(text: &str) -> Option<u16> {
    static CODE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?im)(?:^|said:|<<<|reply:|error:?|smtp;|status:?|\]:|response:|code|[\s:(\[>,'\x22])\s*([45][0-5][0-9])(?:[ \-][^0-9.]|[ \-][245]\.[0-9]\.[0-9]|$|[:,;#)])",
        )
    });
    CODE.captures(text).and_then(|found| found[1].parse().ok())
}

/// What a refusal answered to, as many mailers tell it.
pub fn phase_in(text: &str) -> Option<Phase> {
    static TOLD: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)(?:in reply to|in response to|after|sent|>>>|smtp command|said after|during|command:?|\[)[\s:]*(?:the |sending |to )?(end of data|end of message|e?smtp|ehlo|helo|mail|rcpt|recipient|data|bdat|\.|starttls|connect|pipelined end of data)",
        )
    });
    // The command that a mailer shows last before the reply is the one that was refused.
    let told = TOLD.captures_iter(text).last()?;
    match told[1].to_ascii_lowercase().as_str() {
        "rcpt" | "recipient" => Some(Phase::Rcpt),
        "mail" => Some(Phase::Mail),
        "data" | "bdat" | "." | "end of data" | "end of message" | "pipelined end of data" => Some(Phase::Data),
        _ => Some(Phase::Connect),
    }
}

/// Whether a status says no more than that it failed.
pub fn is_vague(status: &str) -> bool {
    matches!(status, "5.0.0" | "4.0.0" | "5.5.0" | "5.3.0" | "5.1.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_where_they_stand_as_such() {
        for (text, code, enhanced) in [
            ("550 5.1.1 <a@b.example>... User unknown", Some(550), Some("5.1.1")),
            ("host mx.b.example[192.0.2.1] said: 554-5.7.1 no", Some(554), Some("5.7.1")),
            ("smtp;552 5.2.2 over quota", Some(552), Some("5.2.2")),
            ("(#4.4.3)I'm not going to try again", None, Some("4.4.3")),
            ("192.0.2.5.1.1 at 10.0.5.2.2", None, None),
            ("Exim 4.92.3 (Debian) in 2004", None, None),
            ("421 try later", Some(421), None),
        ] {
            assert_eq!((smtp_code_in(text), enhanced_in(text).as_deref()), (code, enhanced), "{text}");
        }
    }
}
