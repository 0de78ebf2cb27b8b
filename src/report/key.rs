//! The keys of cells: resolution, scope, split, time, name; so that a time series, and a table over a time, are each one range.
//!
//! `resolution (1) scope split (1) time (4) name`. A scope is `a`; `t` tenant NUL; `c` tenant NUL campaign NUL; `n` number (4). How many
//! names a time has stands under `#` and the same key up to the time.

use crate::types::{CampaignNo, Name};

/// How long a cell is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Resolution {
    /// Five minutes, kept for 7 days.
    FiveMinutes,
    /// An hour, kept for 90 days.
    Hour,
    /// A day (UTC), kept for ever.
    Day,
}

impl Resolution {
    /// All of them.
    pub const ALL: [Resolution; 3] = [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];

    /// How long it is, in milliseconds.
    pub const fn ms(self) -> u64 {
        match self {
            Resolution::FiveMinutes => 300_000,
            Resolution::Hour => 3_600_000,
            Resolution::Day => 86_400_000,
        }
    }

    /// How long its cells are kept, in milliseconds; `None`: for ever.
    pub const fn kept_ms(self) -> Option<u64> {
        match self {
            Resolution::FiveMinutes => Some(7 * 86_400_000),
            Resolution::Hour => Some(90 * 86_400_000),
            Resolution::Day => None,
        }
    }

    /// Its word: `5min`, `hour`, `day`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Resolution::FiveMinutes => "5min",
            Resolution::Hour => "hour",
            Resolution::Day => "day",
        }
    }

    pub(super) const fn byte(self) -> u8 {
        match self {
            Resolution::FiveMinutes => b'5',
            Resolution::Hour => b'h',
            Resolution::Day => b'd',
        }
    }

    /// Which one a time lies in.
    pub const fn bucket(self, ms: u64) -> u32 {
        let bucket = ms / self.ms();
        if bucket > u32::MAX as u64 { u32::MAX } else { bucket as u32 }
    }
}

/// Whose mail.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// All.
    All,
    /// A tenant's.
    Tenant(Name),
    /// Single messages of a tenant that name a campaign.
    Label(Name, Name),
    /// The rows of a campaign, by its number, which is never used again.
    Campaign(CampaignNo),
}

impl Scope {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Scope::All => out.push(b'a'),
            Scope::Tenant(tenant) => put_tenant(out, tenant.as_str()),
            Scope::Label(tenant, label) => put_label(out, tenant.as_str(), label.as_str()),
            Scope::Campaign(no) => put_campaign(out, *no),
        }
    }
}

pub(super) fn put_tenant(out: &mut Vec<u8>, tenant: &str) {
    out.push(b't');
    out.extend_from_slice(tenant.as_bytes());
    out.push(0);
}

pub(super) fn put_label(out: &mut Vec<u8>, tenant: &str, label: &str) {
    out.push(b'c');
    out.extend_from_slice(tenant.as_bytes());
    out.push(0);
    out.extend_from_slice(label.as_bytes());
    out.push(0);
}

pub(super) fn put_campaign(out: &mut Vec<u8>, no: CampaignNo) {
    out.push(b'n');
    out.extend_from_slice(&no.0.to_be_bytes());
}

/// By what it is broken down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Split {
    /// Not at all.
    Total,
    /// By the recipients' provider.
    Provider,
    /// By the source that sent it.
    Source,
    /// By the recipients' domain: of an hour or a day, not of 5 minutes.
    Domain,
    /// By tenant; of all mail only.
    Tenant,
    /// By the campaign that single messages and rows name; of a tenant's mail only.
    Campaign,
    /// By groups of replies that are alike; of an hour or a day.
    Reply,
}

impl Split {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Split::Total => b'+',
            Split::Provider => b'p',
            Split::Source => b's',
            Split::Domain => b'd',
            Split::Tenant => b't',
            Split::Campaign => b'c',
            Split::Reply => b'r',
        }
    }

    /// The most names of one cell's time; what comes later counts as `(other)`.
    pub const fn names_max(self) -> u32 {
        match self {
            Split::Total => u32::MAX,
            Split::Provider | Split::Source => 500,
            Split::Domain => 500,
            Split::Tenant | Split::Campaign => 1_000,
            Split::Reply => 200,
        }
    }
}

/// Where a cell stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub(super) Vec<u8>);

impl Key {
    /// What all keys of a range begin with.
    pub fn prefix(resolution: Resolution, scope: &Scope, split: Split) -> Vec<u8> {
        let mut out = vec![resolution.byte()];
        scope.put(&mut out);
        out.push(split.byte());
        out
    }

    pub(super) fn new(mut prefix: Vec<u8>, bucket: u32, name: &str) -> Self {
        prefix.extend_from_slice(&bucket.to_be_bytes());
        prefix.extend_from_slice(name.as_bytes());
        Self(prefix)
    }

    /// How many names there are beside it: the key without its name.
    pub(super) fn names(&self, name: &str) -> Vec<u8> {
        let head = self.0.len() - name.len();
        [b"#", &self.0[..head]].concat()
    }

    /// The same place under another name.
    pub(super) fn renamed(&self, from: &str, to: &str) -> Self {
        let head = self.0.len() - from.len();
        Self([&self.0[..head], to.as_bytes()].concat())
    }
}

/// The time and the name of a key that begins with a prefix.
pub(super) fn parse(prefix: &[u8], key: &[u8]) -> Option<(u32, String)> {
    let (bucket, name) = key.strip_prefix(prefix)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*bucket), String::from_utf8_lossy(name).into_owned()))
}

/// How long scope and split of a key are, so that the time is found in any key; `None` for what is no cell.
pub(super) fn head_len(key: &[u8]) -> Option<usize> {
    let rest = key.get(1..)?;
    let nul = |from: usize| rest.get(from..)?.iter().position(|b| *b == 0).map(|at| from + at + 1);
    let scope = match rest.first()? {
        b'a' => 1,
        b't' => nul(1)?,
        b'c' => nul(nul(1)?)?,
        b'n' => 5,
        _ => return None,
    };
    Some(1 + scope + 1)
}
