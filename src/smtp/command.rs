//! The commands of a client (RFC 5321 §4.1 and its extensions), parsed once into values that can't be wrong.
//!
//! 1. The verb is looked up, in any case,
//! 2. a path is taken between its angle brackets, quotes respected, and must be followed by a space or the line's end,
//! 3. parameters are checked against the verb; an unknown one is refused, one given twice too.
//!
//! What is refused comes back as the [`Reply`] that says so.

use super::params::{self, Params};
use super::reply::Reply;
use crate::types::{AddressError, Mailbox, Notify, Ret, ReversePath};

/// The longest EHLO argument in octets: a host name or an address literal (RFC 5321 §4.5.3.1.2).
const HELO_MAX: usize = 255;

/// A command.
#[derive(Clone, PartialEq, Debug)]
pub enum Command<'a> {
    /// `EHLO`: the client's name.
    Ehlo(&'a str),
    /// `HELO`.
    Helo(&'a str),
    /// `STARTTLS` (RFC 3207).
    StartTls,
    /// `AUTH` (RFC 4954).
    Auth {
        /// The mechanism.
        mechanism: Mechanism,
        /// The initial response, still in base64.
        initial: Option<&'a str>,
    },
    /// `MAIL`.
    Mail(MailFrom),
    /// `RCPT`.
    Rcpt(RcptTo),
    /// `DATA`.
    Data,
    /// `BDAT` (RFC 3030).
    Bdat {
        /// Octets that follow.
        size: u64,
        /// Whether it is the last chunk.
        last: bool,
    },
    /// `RSET`.
    Rset,
    /// `NOOP`.
    Noop,
    /// `VRFY`.
    Vrfy,
    /// `HELP`.
    Help,
    /// `QUIT`.
    Quit,
}

/// A mechanism of AUTH.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Two prompts; never standardised, widely used.
    Login,
}

/// `MAIL`.
#[derive(Clone, PartialEq, Debug)]
pub struct MailFrom {
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// `SIZE` (RFC 1870).
    pub size: Option<u64>,
    /// Whether `BODY=8BITMIME` was said (RFC 6152).
    pub eight_bit: bool,
    /// Whether `SMTPUTF8` was said (RFC 6531).
    pub smtputf8: bool,
    /// `RET` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461 §4.4), in xtext, checked.
    pub envid: Option<Box<str>>,
}

/// `RCPT`.
#[derive(Clone, PartialEq, Debug)]
pub struct RcptTo {
    /// Where to; `None` is `<postmaster>` of this host (RFC 5321 §4.1.1.3).
    pub mailbox: Option<Mailbox>,
    /// `NOTIFY` (RFC 3461 §4.1).
    pub notify: Notify,
    /// `ORCPT` (RFC 3461 §4.2), in xtext, checked.
    pub orcpt: Option<Box<str>>,
}

/// A command that is refused.
#[derive(Clone, PartialEq, Debug)]
pub struct Refused {
    /// What is answered.
    pub reply: Reply,
    /// Whether the session must end: what follows can't be told from commands, or the client speaks something else.
    pub fatal: bool,
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Refused { reply, fatal: false }
    }
}

/// Parses a command line without its CRLF.
pub fn parse(line: &[u8]) -> Result<Command<'_>, Refused> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Err(Reply::new(500, "5.5.2", "The command is not valid UTF-8").into());
    };
    let line = line.trim_end_matches([' ', '\t']);
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_start_matches(' ');
    let verb_is = |name: &str| verb.eq_ignore_ascii_case(name);

    if verb_is("MAIL") {
        return Ok(Command::Mail(parse_mail(rest)?));
    }
    if verb_is("RCPT") {
        return Ok(Command::Rcpt(parse_rcpt(rest)?));
    }
    if verb_is("BDAT") {
        // Octets follow that we can't count: to go on would be to take them for commands.
        return parse_bdat(rest).map_err(|reply| Refused { reply, fatal: true });
    }
    if verb_is("EHLO") {
        return Ok(Command::Ehlo(parse_helo(rest)?));
    }
    if verb_is("HELO") {
        return Ok(Command::Helo(parse_helo(rest)?));
    }
    if verb_is("AUTH") {
        return Ok(parse_auth(rest)?);
    }
    // RFC 5321 §4.1.1.9: NOOP, VRFY and HELP may have an argument, which is not looked at.
    if verb_is("NOOP") {
        return Ok(Command::Noop);
    }
    if verb_is("VRFY") {
        return Ok(Command::Vrfy);
    }
    if verb_is("HELP") {
        return Ok(Command::Help);
    }
    for (name, command) in
        [("DATA", Command::Data), ("RSET", Command::Rset), ("QUIT", Command::Quit), ("STARTTLS", Command::StartTls)]
    {
        if verb_is(name) {
            return if rest.is_empty() { Ok(command) } else { Err(syntax("No argument is allowed here").into()) };
        }
    }
    // RFC 5321 §4.2.4: known, and never offered.
    if ["EXPN", "SEND", "SOML", "SAML", "TURN", "ETRN"].into_iter().any(verb_is) {
        return Err(Reply::new(502, "5.5.1", "Not offered here").into());
    }
    // A browser or proxy that was led here: what follows is its user's, not a client's (cross-protocol scripting).
    if ["GET", "POST", "PUT", "CONNECT", "OPTIONS"].into_iter().any(verb_is) {
        return Err(Refused { reply: Reply::new(500, "5.5.2", "This is SMTP"), fatal: true });
    }
    Err(Reply::new(500, "5.5.2", "Command not recognized").into())
}

fn syntax(text: &'static str) -> Reply {
    Reply::new(501, "5.5.4", text)
}

/// A host name or an address literal. Underscores are not allowed by RFC 5321 §4.1.2 and sent by many; brackets,
/// spaces and controls would break the `Received` field that the name goes into.
fn parse_helo(rest: &str) -> Result<&str, Reply> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if rest.is_empty() || rest.len() > HELO_MAX || !rest.bytes().all(ok) {
        return Err(syntax("A host name or an address literal is expected"));
    }
    Ok(rest)
}

fn parse_auth(rest: &str) -> Result<Command<'_>, Reply> {
    let (name, initial) = rest.split_once(' ').map_or((rest, None), |(name, initial)| (name, Some(initial)));
    let mechanism = match name {
        _ if name.eq_ignore_ascii_case("PLAIN") => Mechanism::Plain,
        _ if name.eq_ignore_ascii_case("LOGIN") => Mechanism::Login,
        "" => return Err(syntax("Say AUTH PLAIN or AUTH LOGIN")),
        _ => return Err(Reply::new(504, "5.5.4", "Only PLAIN and LOGIN are offered")),
    };
    Ok(Command::Auth { mechanism, initial })
}

fn parse_bdat(rest: &str) -> Result<Command<'_>, Reply> {
    let (size, tail) = rest.split_once(' ').unwrap_or((rest, ""));
    let last = match tail.trim() {
        "" => false,
        word if word.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(syntax("Say BDAT size [LAST]")),
    };
    // RFC 3030 §2: 1 to 20 digits; `parse` alone would take a sign.
    if size.is_empty() || size.len() > 20 || !size.bytes().all(|b| b.is_ascii_digit()) {
        return Err(syntax("Say BDAT size [LAST]"));
    }
    let size = size.parse().map_err(|_| Reply::new(552, "5.3.4", "The chunk is too large"))?;
    Ok(Command::Bdat { size, last })
}

fn parse_mail(rest: &str) -> Result<MailFrom, Reply> {
    let (path, tail) = take_path(rest, "FROM:").ok_or_else(|| syntax("Say MAIL FROM:<address>"))?;
    let mut params = Params::split(tail)?;
    let size = params.take("SIZE").map(params::size).transpose()?;
    let eight_bit = params.take("BODY").map(params::body).transpose()?.unwrap_or(false);
    let smtputf8 = params.take_flag("SMTPUTF8")?;
    let ret = params.take("RET").map(params::ret).transpose()?;
    let envid = params.take("ENVID").map(params::envid).transpose()?;
    params.take("AUTH").map(params::auth).transpose()?;
    params.finish()?;
    if !smtputf8 && !path.is_ascii() {
        // RFC 6531 §3.5.
        return Err(Reply::new(553, "5.6.7", "The address needs SMTPUTF8 among the parameters of MAIL"));
    }
    let reverse_path = if path.is_empty() {
        ReversePath::Null
    } else {
        ReversePath::Mailbox(Mailbox::parse(path).map_err(|e| bad_address(path, e, "5.1.7"))?)
    };
    Ok(MailFrom { reverse_path, size, eight_bit, smtputf8, ret, envid })
}

fn parse_rcpt(rest: &str) -> Result<RcptTo, Reply> {
    let (path, tail) = take_path(rest, "TO:").ok_or_else(|| syntax("Say RCPT TO:<address>"))?;
    let mut params = Params::split(tail)?;
    let notify = params.take("NOTIFY").map(params::notify).transpose()?.unwrap_or(Notify::Default);
    let orcpt = params.take("ORCPT").map(params::orcpt).transpose()?;
    params.finish()?;
    let mailbox = if path.eq_ignore_ascii_case("postmaster") {
        None
    } else {
        Some(Mailbox::parse(path).map_err(|e| bad_address(path, e, "5.1.3"))?)
    };
    Ok(RcptTo { mailbox, notify, orcpt })
}

fn bad_address(path: &str, error: AddressError, enhanced: &'static str) -> Reply {
    let text = match error {
        AddressError::Form
        | AddressError::LocalPart
        | AddressError::Domain
        | AddressError::Literal
        | AddressError::Routed => format!("<{path}>: {error}"),
    };
    Reply::new(553, enhanced, text)
}

/// Splits `FROM:<path> parameters`. Spaces between the colon and the bracket are wrong and common.
fn take_path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let head = rest.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let inner = rest[keyword.len()..].trim_start_matches(' ').strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let tail = &inner[at + 1..];
                return (tail.is_empty() || tail.starts_with(' ')).then_some((&inner[..at], tail));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str, code: u16, enhanced: &str) {
        match parse(line.as_bytes()) {
            Err(r) => assert_eq!((r.reply.code, r.reply.enhanced), (code, enhanced), "{line:?}: {:?}", r.reply),
            Ok(command) => panic!("{line:?} was taken for {command:?}"),
        }
    }

    fn mail(line: &str) -> MailFrom {
        match parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn rcpt(line: &str) -> RcptTo {
        match parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => rcpt,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn mail_with_all_parameters() {
        let got = mail(
            "mail from: <a@b.example> SIZE=12345 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B314159 AUTH=e+3Dmc2@b.example",
        );
        assert_eq!(got.reverse_path.to_string(), "a@b.example");
        assert_eq!((got.size, got.eight_bit, got.smtputf8), (Some(12345), true, true));
        assert_eq!((got.ret, got.envid.as_deref()), (Some(Ret::Headers), Some("QQ+2B314159")));
        assert_eq!(mail("MAIL FROM:<>").reverse_path, ReversePath::Null);
        assert_eq!(mail("MAIL FROM:<\"a>b\"@c.example>").reverse_path.to_string(), "\"a>b\"@c.example");
    }

    #[test]
    fn rcpt_with_dsn() {
        let got = rcpt("RCPT TO:<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bx@b.example");
        assert_eq!(got.notify, Notify::On { success: true, failure: false, delay: true });
        assert_eq!(got.orcpt.as_deref(), Some("rfc822;a+2Bx@b.example"));
        assert_eq!(rcpt("RCPT TO:<Postmaster>").mailbox, None);
        assert_eq!(rcpt("RCPT TO:<a@b.example> NOTIFY=NEVER").notify, Notify::Never);
    }

    #[test]
    fn refuses_bad_parameters() {
        refused("MAIL FROM:<a@b.example> SIZE=-1", 501, "5.5.4");
        refused("MAIL FROM:<a@b.example> SIZE=1 SIZE=2", 501, "5.5.4");
        refused("MAIL FROM:<a@b.example> BODY=BINARYMIME", 501, "5.5.4");
        refused("MAIL FROM:<a@b.example> ENVID=x+0D+0AQUIT", 501, "5.5.4");
        refused("MAIL FROM:<a@b.example> FOO=bar", 555, "5.5.4");
        refused("MAIL FROM:<a@b.example> SMTPUTF8=yes", 501, "5.5.4");
        refused("MAIL FROM:<\u{fc}@b.example>", 553, "5.6.7");
        refused("RCPT TO:<a@b.example> NOTIFY=NEVER,FAILURE", 501, "5.5.4");
        refused("RCPT TO:<a@b.example> ORCPT=rfc822;a+0A@b", 501, "5.5.4");
        refused("RCPT TO:<a@b.example>RCPT TO:<v@t.example>", 501, "5.5.4");
        refused("RCPT TO:a@b.example", 501, "5.5.4");
        refused("RCPT TO:<a@b.example", 501, "5.5.4");
    }

    #[test]
    fn refuses_relay_tricks() {
        for path in [
            "u%v@us.example",
            "\"u@v\"@us.example",
            "@us.example:u@v.example",
            "v!u@us.example",
            "u@v@us.example",
            "u@[127.0.0.1]",
            "u@us.example.",
            "plain",
        ] {
            refused(&format!("RCPT TO:<{path}>"), 553, "5.1.3");
        }
    }

    #[test]
    fn bdat_sizes() {
        assert_eq!(parse(b"BDAT 0 LAST"), Ok(Command::Bdat { size: 0, last: true }));
        for line in ["BDAT", "BDAT x", "BDAT -1", "BDAT 1 FIRST", "BDAT 99999999999999999999", "BDAT 1e3"] {
            assert!(parse(line.as_bytes()).is_err_and(|r| r.fatal), "{line:?}");
        }
    }

    #[test]
    fn ehlo_names_are_names() {
        assert_eq!(parse(b"EHLO [IPv6:::1]"), Ok(Command::Ehlo("[IPv6:::1]")));
        for line in ["EHLO", "EHLO a b", "EHLO a(b", "EHLO \u{fc}", "EHLO a\u{1b}", "HELO a>b"] {
            refused(line, 501, "5.5.4");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in proptest::collection::vec(proptest::num::u8::ANY, 0..300), verb in 0usize..6) {
            let mut full = ["", "MAIL FROM:<", "RCPT TO:<", "BDAT ", "AUTH ", "EHLO "][verb].as_bytes().to_vec();
            full.extend_from_slice(&line);
            let _ = parse(&full);
        }
    }
}
