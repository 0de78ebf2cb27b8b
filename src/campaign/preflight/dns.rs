//! Questions to the DNS and the judgement that several checks share: what `check --dns` and the pre-flight both say of a record.
//!
//! Who asks is a parameter ([`AskDns`]), so that every judgement can be tested without a network. [`Timed`] puts one time limit and
//! one memory around whoever answers: a question that comes too late is not asked, and the same question is asked once.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::seam::dns::{DnsError, Family, Resolver};

/// A question to the DNS.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ask {
    /// A and AAAA records of a name.
    Addresses(String),
    /// The names of an address.
    Names(IpAddr),
    /// TXT records of a name, each as one text.
    Texts(String),
    /// The MX hosts of a domain; a null MX (RFC 7505) is an empty host.
    Hosts(String),
}

/// What was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// To [`Ask::Addresses`].
    Addresses(Vec<IpAddr>),
    /// To all others: names and texts.
    Texts(Vec<String>),
    /// No such name or record.
    Nothing,
    /// Nobody knows at the moment, and why.
    Unknown(String),
}

/// Who answers.
pub trait AskDns: Sync {
    /// One question.
    fn ask(&self, ask: Ask) -> impl Future<Output = Said> + Send;
}

impl AskDns for Resolver {
    async fn ask(&self, ask: Ask) -> Said {
        let said = match ask {
            Ask::Addresses(name) => self.addresses(&name, Family::Any).await.map(|a| Said::Addresses(a.records)),
            Ask::Names(address) => {
                self.names(address).await.map(|a| Said::Texts(a.records.iter().map(ToString::to_string).collect()))
            }
            Ask::Texts(name) => self.txt(&name).await.map(|answer| Said::Texts(answer.records)),
            Ask::Hosts(domain) => {
                self.mx(&domain).await.map(|a| Said::Texts(a.records.iter().map(|mx| mx.host.to_string()).collect()))
            }
        };
        match said {
            Ok(said) => said,
            Err(DnsError::NxDomain | DnsError::NoData) => Said::Nothing,
            Err(DnsError::Temporary(why) | DnsError::Exhausted(why)) => Said::Unknown(why.to_string()),
        }
    }
}

/// What is known from memory: for tests. Every other name does not exist.
impl AskDns for HashMap<Ask, Said> {
    async fn ask(&self, ask: Ask) -> Said {
        self.get(&ask).cloned().unwrap_or(Said::Nothing)
    }
}

/// Answers of another, within one time limit for all questions together, each asked once.
pub struct Timed<'a, D> {
    inner: &'a D,
    end: Instant,
    known: Mutex<HashMap<Ask, Said>>,
    asked: AtomicU32,
    answered: AtomicU32,
}

impl<'a, D: AskDns> Timed<'a, D> {
    /// All questions together may take `limit` from now.
    pub fn new(inner: &'a D, limit: Duration) -> Self {
        Self {
            inner,
            end: Instant::now() + limit,
            known: Mutex::default(),
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
        }
    }

    /// Whether something was asked and nothing answered: that is a resolver that is wrong or away, not a zone.
    pub fn is_deaf(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0 && self.answered.load(Ordering::Relaxed) == 0
    }
}

impl<D: AskDns> AskDns for Timed<'_, D> {
    async fn ask(&self, ask: Ask) -> Said {
        if let Some(said) = self.known.lock().get(&ask) {
            return said.clone();
        }
        let over = || Said::Unknown("the time for all questions is over".into());
        let said = match self.end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => over(),
            left => tokio::time::timeout(left, self.inner.ask(ask.clone())).await.unwrap_or_else(|_| over()),
        };
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answered.fetch_add(u32::from(!matches!(said, Said::Unknown(_))), Ordering::Relaxed);
        self.known.lock().insert(ask, said.clone());
        said
    }
}

/// All results, in the order of the futures, which run at the same time.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for (future, slot) in running.iter_mut().zip(&mut done).filter(|(_, slot)| slot.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(result) => *slot = Some(result),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(done.iter_mut().filter_map(Option::take).collect()) }
    })
    .await
}

/// Names are compared without case and without the final dot.
pub fn same_name(a: &str, b: &str) -> bool {
    a.trim_end_matches('.').eq_ignore_ascii_case(b.trim_end_matches('.'))
}

/// Addresses that the world could see; those behind a translator are not ours to judge.
pub fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_private() && !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => {
            !v6.is_loopback() && !v6.is_unique_local() && !v6.is_unicast_link_local() && !v6.is_unspecified()
        }
    }
}

/// What is wrong with the names of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameTrouble {
    /// The EHLO name does not resolve to the address.
    NotForward,
    /// The address has other names; whether one of them resolves to it.
    OtherName(Vec<String>, bool),
    /// The address has no name.
    NoName,
    /// Nobody can tell about this name or address now, and why.
    Unknown(String, String),
}

/// Forward and back: many receivers refuse a client whose address has no name, or whose name is not its address.
pub async fn check_names(dns: &impl AskDns, ehlo: &str, address: IpAddr) -> Vec<NameTrouble> {
    let mut found = Vec::new();
    match dns.ask(Ask::Addresses(ehlo.to_owned())).await {
        Said::Addresses(addresses) if addresses.contains(&address) => {}
        Said::Unknown(why) => found.push(NameTrouble::Unknown(ehlo.to_owned(), why)),
        _ => found.push(NameTrouble::NotForward),
    }
    match dns.ask(Ask::Names(address)).await {
        Said::Texts(names) if names.iter().any(|name| same_name(name, ehlo)) => {}
        Said::Texts(names) if !names.is_empty() => {
            let mut confirmed = false;
            for name in names.iter().take(PTR_NAMES_MAX) {
                let said = dns.ask(Ask::Addresses(name.clone())).await;
                confirmed |= matches!(said, Said::Addresses(addresses) if addresses.contains(&address));
            }
            found.push(NameTrouble::OtherName(names, confirmed));
        }
        Said::Unknown(why) => found.push(NameTrouble::Unknown(address.to_string(), why)),
        _ => found.push(NameTrouble::NoName),
    }
    found
}

/// The most names of an address that are looked up; RFC 7208 §4.6.4 takes the same number.
const PTR_NAMES_MAX: usize = 10;

/// What is wrong with a DKIM record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyTrouble {
    /// There is none.
    Missing,
    /// Its `p=` is empty.
    Revoked,
    /// There are several TXT records: which one counts is undefined (RFC 6376 §3.6.2.2).
    Several(usize),
    /// It is of another key, so every signature fails.
    OtherKey,
    /// Nobody can tell now, and why.
    Unknown(String),
}

/// `ours` is the public half of the key that signs, as it should stand in the record at `name`.
pub async fn check_key(dns: &impl AskDns, name: &str, ours: Option<&str>) -> Result<(), KeyTrouble> {
    let texts = match dns.ask(Ask::Texts(name.to_owned())).await {
        Said::Texts(texts) => texts,
        Said::Unknown(why) => return Err(KeyTrouble::Unknown(why)),
        _ => Vec::new(),
    };
    // RFC 6376 §3.2, §3.6.1: white space may stand around `=` and within the key; an empty `p=` revokes it.
    let key = |text: &String| tag(text, "p").map(|value| value.split_ascii_whitespace().collect::<String>());
    match texts.iter().find_map(key) {
        Some(key) if key.is_empty() => Err(KeyTrouble::Revoked),
        Some(_) if texts.len() > 1 => Err(KeyTrouble::Several(texts.len())),
        Some(key) if ours.is_some_and(|ours| ours != key) => Err(KeyTrouble::OtherKey),
        Some(_) => Ok(()),
        None => Err(KeyTrouble::Missing),
    }
}

/// The value of a tag in a list `a=b; c=d` (RFC 6376 §3.2), without the white space around it.
pub(super) fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut tags = text.split(';').filter_map(|tag| tag.split_once('='));
    tags.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The one TXT record that begins with `prefix`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OneText {
    /// Exactly one.
    One(String),
    /// None.
    Missing,
    /// Several, which are a permanent error (RFC 7208 §4.5, RFC 9989 §4.10).
    Several(usize),
    /// Nobody can tell now, and why.
    Unknown(String),
}

/// Asks for the TXT record at `name` that begins with `prefix`, a version as `v=spf1`.
pub async fn one_text(dns: &impl AskDns, name: &str, prefix: &str) -> OneText {
    let texts = match dns.ask(Ask::Texts(name.to_owned())).await {
        Said::Texts(texts) => texts,
        Said::Unknown(why) => return OneText::Unknown(why),
        _ => Vec::new(),
    };
    let begins = |text: &String| {
        text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
            && !text[prefix.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    let mut found: Vec<String> = texts.into_iter().filter(begins).collect();
    match found.len() {
        0 => OneText::Missing,
        1 => OneText::One(found.remove(0)),
        n => OneText::Several(n),
    }
}
