//! `posthaste send`: what programs know as `sendmail`.
//!
//! 1. Read the message from standard input, and find sender and recipients (`message`),
//! 2. hand it to a submission server by SMTP: TLS and AUTH as asked,
//! 3. exit with what became of it, in the codes of `sysexits.h`.
//!
//! All or nothing: when one recipient is refused nothing is sent, so that a repeated call makes no duplicates.

mod message;

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mail_send::smtp::message::Parameters;
use mail_send::{Credentials, SmtpClient, SmtpClientBuilder};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};

use self::message::Prepared;
use super::{Exit, print};

/// The largest message that is read. Servers refuse much smaller ones.
const MESSAGE_BYTES_MAX: u64 = 256 << 20;

/// How long the server may take for one reply. RFC 5321 §4.5.3.2 allows up to 10 minutes after the final dot.
const REPLY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long the connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Send a message from standard input, as sendmail does.
///
/// Reads a message with its header fields and hands it to a submission server. Adds a From field where there is none. When one
/// recipient is refused nothing is sent. A link named `sendmail` to this program is this command.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  posthaste send -f app@example.com jane@example.net < message.eml
  posthaste send -t < message.eml                    recipients from To, Cc and Bcc
  posthaste send --server mta1.example.com:587 --user app --password-file app.password -t < message.eml

Exit codes (sysexits.h): 0 accepted; 64 wrong arguments; 65 message or address wrong; 69 refused for good;
74 can't read the message or a file; 75 not now, try again; 76 no proper SMTP or TLS; 77 user or password refused.")]
pub(super) struct Send {
    /// The envelope sender, to which bounces go; `<>` or an empty one for none. Default: the From field's address.
    #[arg(short = 'f', short_alias = 'r', long = "from", value_name = "ADDRESS")]
    from: Option<String>,
    /// Take the recipients from To, Cc and Bcc, and remove Bcc.
    #[arg(short = 't', long = "read-recipients")]
    read_recipients: bool,
    /// A line with a single dot does not end the message.
    #[arg(short = 'i', long = "ignore-dots")]
    ignore_dots: bool,
    /// The sender's name for a From field that is added.
    #[arg(short = 'F', long = "full-name", value_name = "NAME")]
    full_name: Option<String>,
    /// Options that sendmail knows: `-oi` is `-i`; others are ignored.
    #[arg(short = 'o', value_name = "OPTION", hide = true)]
    options: Vec<String>,
    /// The submission server.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:587", env = "POSTHASTE_SERVER")]
    server: String,
    /// TLS: `auto` is none on loopback, implicit on port 465 and STARTTLS, required, everywhere else.
    #[arg(long, value_enum, default_value_t = TlsMode::Auto)]
    tls: TlsMode,
    /// The user for AUTH.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The file with the password; its first line counts.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Say nothing on success; without this the server's reply is printed.
    #[arg(short, long)]
    quiet: bool,
    /// The recipients.
    #[arg(value_name = "RECIPIENT")]
    recipients: Vec<String>,
}

/// How the connection is made safe.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum TlsMode {
    Auto,
    None,
    Starttls,
    Implicit,
}

/// Why it was not sent: the words, and what to exit with.
#[derive(Debug)]
struct Refusal {
    exit: Exit,
    words: String,
}

impl Refusal {
    fn new(exit: Exit, words: impl Into<String>) -> Self {
        Self { exit, words: words.into() }
    }
}

impl Send {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self.send() {
            Ok(reply) => {
                if !self.quiet {
                    print(&reply)?;
                }
                Ok(Exit::Success)
            }
            Err(refusal) => {
                eprintln!("posthaste send: {}", refusal.words);
                Ok(refusal.exit)
            }
        }
    }

    fn send(&self) -> Result<String, Refusal> {
        let (host, port) = host_and_port(&self.server)?;
        let password = self.password()?;
        let mut raw = Vec::new();
        std::io::stdin()
            .lock()
            .take(MESSAGE_BYTES_MAX + 1)
            .read_to_end(&mut raw)
            .map_err(|e| Refusal::new(Exit::SendIo, format!("can't read the message: {e}")))?;
        if raw.len() as u64 > MESSAGE_BYTES_MAX {
            return Err(Refusal::new(Exit::SendData, format!("the message is larger than {MESSAGE_BYTES_MAX} octets")));
        }
        let dots_are_text = self.ignore_dots || self.options.iter().any(|option| option == "i");
        let prepared = message::prepare(
            &raw,
            &message::Asked {
                from: self.from.as_deref(),
                full_name: self.full_name.as_deref(),
                recipients: &self.recipients,
                read_recipients: self.read_recipients,
                dot_ends: !dots_are_text,
            },
        )
        .map_err(|words| Refusal::new(Exit::SendData, words))?;
        let credentials = match (&self.user, password) {
            (Some(user), Some(secret)) => Some(Credentials::Plain { username: user.clone(), secret }),
            _ => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Refusal::new(Exit::SendIo, format!("can't start: {e}")))?;
        runtime.block_on(submit(&host, port, mode(self.tls, &host, port), credentials, &prepared))
    }

    fn password(&self) -> Result<Option<String>, Refusal> {
        let Some(file) = &self.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(file)
            .map_err(|e| Refusal::new(Exit::SendIo, format!("can't read {}: {e}", file.display())))?;
        Ok(Some(text.lines().next().unwrap_or("").to_owned()))
    }
}

fn host_and_port(server: &str) -> Result<(String, u16), Refusal> {
    let wrong = || Refusal::new(Exit::SendUsage, format!("{server:?} is not a server: host:port"));
    let (host, port) = server.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

fn mode(asked: TlsMode, host: &str, port: u16) -> TlsMode {
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match asked {
        TlsMode::Auto if port == 465 => TlsMode::Implicit,
        TlsMode::Auto if loopback => TlsMode::None,
        TlsMode::Auto => TlsMode::Starttls,
        other => other,
    }
}

async fn submit(
    host: &str,
    port: u16,
    tls: TlsMode,
    credentials: Option<Credentials<String>>,
    message: &Prepared,
) -> Result<String, Refusal> {
    let connector = tls_connector().map_err(|words| Refusal::new(Exit::SendProtocol, words))?;
    let mut builder = SmtpClientBuilder::new_with_tls_connector(host.to_owned(), port, connector)
        .implicit_tls(tls == TlsMode::Implicit)
        .timeout(CONNECT_TIMEOUT);
    if host.contains(':') {
        builder.addr = format!("[{host}]:{port}");
    }
    if let Some(credentials) = credentials {
        builder = builder.credentials(credentials);
    }
    let local_host = builder.local_host.clone();
    let explain = |e: mail_send::Error| refusal(e, &builder.addr);
    if tls == TlsMode::None {
        let client = builder.connect_plain().await.map_err(explain)?;
        transact(client, &local_host, message).await.map_err(|(words, e)| refusal(e, &words))
    } else {
        let client = builder.connect().await.map_err(explain)?;
        transact(client, &local_host, message).await.map_err(|(words, e)| refusal(e, &words))
    }
}

/// One transaction; with an error it tells at what it happened.
async fn transact<T: AsyncRead + AsyncWrite + Unpin>(
    mut client: SmtpClient<T>,
    local_host: &str,
    message: &Prepared,
) -> Result<String, (String, mail_send::Error)> {
    client.timeout = REPLY_TIMEOUT;
    let at = |what: &str| {
        let what = what.to_owned();
        move |e| (what, e)
    };
    let offered = client.capabilities(local_host, false).await.map_err(at("EHLO"))?;
    let mut parameters = Parameters::new();
    if message.is_8bit && offered.has_capability(smtp_proto::EXT_8BIT_MIME) {
        parameters.add("BODY=8BITMIME");
    }
    if message.needs_smtputf8 && offered.has_capability(smtp_proto::EXT_SMTP_UTF8) {
        parameters.add("SMTPUTF8");
    }
    client.mail_from(&message.from, &parameters).await.map_err(at(&format!("sender <{}>", message.from)))?;
    for recipient in &message.recipients {
        client.rcpt_to(recipient, &Parameters::new()).await.map_err(at(&format!("recipient <{recipient}>")))?;
    }
    // The client ends the data with a line end of its own: ours would make an empty line.
    let data = message.data.strip_suffix(b"\r\n").unwrap_or(&message.data);
    let reply = client.data(data).await.map_err(at("end of data"))?;
    // The message is the server's now; a QUIT that fails changes nothing.
    let _ = client.quit().await;
    Ok(reply.message().trim().to_owned())
}

fn tls_connector() -> Result<tokio_rustls::TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|e| format!("can't use the system's certificates: {e}"))?
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

fn refusal(error: mail_send::Error, at: &str) -> Refusal {
    use mail_send::Error;
    let words = |error: &Error| match error {
        Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!(
                "{at}: connection refused: no server listens there; start it, or name another by --server HOST:PORT"
            )
        }
        Error::AuthenticationFailed(_) => format!("{at}: {error}; see --user and --password-file"),
        _ => format!("{at}: {error}"),
    };
    let exit = match &error {
        Error::Io(e) if is_certificate(e) => Exit::SendProtocol,
        Error::Io(_) | Error::Timeout => Exit::SendLater,
        Error::UnexpectedReply(reply) | Error::AuthenticationFailed(reply) if (400..500).contains(&reply.code()) => {
            Exit::SendLater
        }
        Error::AuthenticationFailed(_) => Exit::SendLogin,
        Error::UnexpectedReply(reply) if matches!(reply.code(), 530 | 534 | 535 | 538) => Exit::SendLogin,
        Error::UnexpectedReply(reply) if (500..600).contains(&reply.code()) => Exit::SendRefused,
        Error::UnexpectedReply(_)
        | Error::UnparseableReply
        | Error::Tls(_)
        | Error::Base64(_)
        | Error::Auth(_)
        | Error::InvalidTLSName
        | Error::MissingStartTls => Exit::SendProtocol,
        Error::UnsupportedAuthMechanism | Error::MissingCredentials => Exit::SendLogin,
        Error::MissingMailFrom | Error::MissingRcptTo => Exit::SendData,
    };
    Refusal::new(exit, words(&error))
}

/// tokio-rustls wraps what rustls says in an I/O error.
fn is_certificate(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some())
}

#[cfg(test)]
mod tests;
