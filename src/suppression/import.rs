//! Import of a CSV file as it comes in: memory stays flat however long it is.
//!
//! 1. [`Importer::feed`] takes octets as they come, and cuts them into whole records ([`super::Records`]),
//! 2. the first record names the columns: `email` (or `address`, `recipient`), then any of `reason`, `scope`, `tenant`, `list`, `since`,
//!    `expires`, `source`, `note`; others are passed over and named in the report. A file that begins with an address has no such record,
//!    and its first column is the address,
//! 3. a row that is not valid is counted, and the first hundred are told with line and reason; the others go on,
//! 4. each thousand entries are one commit. What was committed stays when a later part fails, and a repeated import changes nothing.

use serde::{Deserialize, Serialize};

use super::record::{Entry, Reason, Scope};
use super::text::{Records, RecordsError, one_line, parse_time};
use super::{SuppressionError, Suppressions};
use crate::types::{Mailbox, Name};

/// Entries of one commit.
const BATCH: usize = 1_000;

/// The most rows that a report tells one by one.
pub const ROW_ERRORS_MAX: usize = 100;

/// What holds for rows that do not say it themselves.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// How far the entries reach.
    pub scope: Scope,
    /// Whether a row may name another owner than `scope` does, or none (global).
    pub any_owner: bool,
    /// Why.
    pub reason: Reason,
    /// Who imports.
    pub source: String,
    /// A note.
    pub note: String,
}

/// What an import did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImportReport {
    /// Rows that were read, without the one that names the columns.
    pub rows: u64,
    /// Entries that are new.
    pub added: u64,
    /// Entries that were there before, and were renewed.
    pub renewed: u64,
    /// Rows that are not valid.
    pub invalid: u64,
    /// The first of them.
    pub errors: Vec<RowError>,
    /// Columns that mean nothing here.
    pub ignored_columns: Vec<String>,
}

/// A row that was not taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RowError {
    /// The line in the file, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// Why an import ended early. What was committed before stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImportError {
    /// A record is too long.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The first line neither names a column of addresses nor begins with an address.
    #[error("line 1: no column is named email, address or recipient, and it does not begin with an address")]
    Columns,
    /// The store.
    #[error(transparent)]
    Store(#[from] SuppressionError),
}

/// What a column means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Email,
    Reason,
    Scope,
    Tenant,
    List,
    Since,
    Expires,
    Source,
    Note,
    Ignored,
}

/// An import under way.
pub struct Importer {
    suppressions: Suppressions,
    options: ImportOptions,
    records: Records,
    columns: Option<Vec<Column>>,
    pending: Vec<Entry>,
    report: ImportReport,
}

impl Suppressions {
    /// An import that begins.
    pub fn importer(&self, options: ImportOptions) -> Importer {
        Importer {
            suppressions: self.clone(),
            options,
            records: Records::default(),
            columns: None,
            pending: Vec::new(),
            report: ImportReport::default(),
        }
    }
}

impl Importer {
    /// Takes the next part of the file, of any length.
    pub async fn feed(&mut self, octets: &[u8]) -> Result<(), ImportError> {
        match self.records.feed(octets)? {
            Some((line, whole)) => self.rows(line, &whole).await,
            None => Ok(()),
        }
    }

    /// What it did so far.
    pub fn report(&self) -> &ImportReport {
        &self.report
    }

    /// The file has ended. `Ok` means: all valid rows are on disk.
    pub async fn finish(mut self) -> Result<ImportReport, ImportError> {
        if let Some((line, last)) = std::mem::take(&mut self.records).finish() {
            self.rows(line, &last).await?;
        }
        self.commit().await?;
        Ok(self.report)
    }

    async fn rows(&mut self, first: u64, whole: &[u8]) -> Result<(), ImportError> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(whole);
        let mut record = csv::ByteRecord::new();
        let (mut line, mut counted) = (first, 0);
        loop {
            // Octets in memory, lengths as they come: nothing of this reader can fail.
            if !reader.read_byte_record(&mut record).unwrap_or(false) {
                return Ok(());
            }
            // The reader's own count of lines is late by one after CRLF, and blank lines come with the record behind them.
            let begins = record.position().map_or(counted, |at| at.byte() as usize).min(whole.len());
            let blank = whole[begins..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            line += whole[counted..begins + blank].iter().filter(|b| **b == b'\n').count() as u64;
            counted = begins + blank;
            let mut fields = Vec::with_capacity(record.len());
            for field in &record {
                fields.push(std::str::from_utf8(field).map(|f| f.trim_start_matches('\u{feff}').trim()));
            }
            let Ok(fields) = fields.into_iter().collect::<Result<Vec<&str>, _>>() else {
                self.report.rows += 1;
                self.wrong(line, "it is not UTF-8".into());
                continue;
            };
            if self.columns.is_none() && self.names_columns(&fields)? {
                continue;
            }
            self.report.rows += 1;
            match self.entry(&fields) {
                Ok(entry) => self.pending.push(entry),
                Err(reason) => self.wrong(line, reason),
            }
            if self.pending.len() >= BATCH {
                self.commit().await?;
            }
        }
    }

    fn wrong(&mut self, line: u64, reason: String) {
        self.report.invalid += 1;
        if self.report.errors.len() < ROW_ERRORS_MAX {
            self.report.errors.push(RowError { line, reason });
        }
    }

    /// Reads the first record; answers whether it names the columns, else it is a row already.
    fn names_columns(&mut self, fields: &[&str]) -> Result<bool, ImportError> {
        let columns: Vec<Column> = fields.iter().map(|name| column(name)).collect();
        if columns.contains(&Column::Email) {
            let ignored = fields.iter().zip(&columns).filter(|(_, column)| **column == Column::Ignored);
            self.report.ignored_columns = ignored.take(ROW_ERRORS_MAX).map(|(name, _)| one_line(name)).collect();
            self.columns = Some(columns);
            return Ok(true);
        }
        if fields.first().is_none_or(|first| Mailbox::parse(first).is_err()) {
            return Err(ImportError::Columns);
        }
        self.columns = Some(vec![Column::Email]);
        Ok(false)
    }

    fn entry(&self, fields: &[&str]) -> Result<Entry, String> {
        let columns = self.columns.as_deref().unwrap_or_default();
        let value = |wanted: Column| {
            let at = columns.iter().position(|column| *column == wanted)?;
            fields.get(at).copied().filter(|text| !text.is_empty())
        };
        let email = value(Column::Email).ok_or("no address (an erased entry can't be imported)")?;
        let address = Mailbox::parse(email).map_err(|e| format!("{email:?}: {e}"))?;
        let scope = self.scope(value(Column::Scope), value(Column::Tenant), value(Column::List))?;
        let reason = match value(Column::Reason) {
            Some(text) => text.parse().map_err(|e| format!("reason {text:?}: {e}"))?,
            None => self.options.reason,
        };
        let source = value(Column::Source).map_or_else(|| self.options.source.clone(), one_line);
        let mut entry = self.suppressions.entry(scope, reason, &address, &source);
        if let Some(since) = value(Column::Since) {
            entry.since = parse_time(since).map_err(|e| format!("since: {e}"))?.min(entry.since);
        }
        entry.expires = value(Column::Expires).map(parse_time).transpose().map_err(|e| format!("expires: {e}"))?;
        if entry.expires.is_some_and(|at| at <= self.suppressions.now()) {
            return Err("it has expired already".into());
        }
        entry.note = value(Column::Note).map_or_else(|| self.options.note.clone(), one_line).into();
        Ok(entry)
    }

    fn scope(&self, scope: Option<&str>, tenant: Option<&str>, list: Option<&str>) -> Result<Scope, String> {
        let name = |what: &str, text: &str| Name::parse(text).map_err(|e| format!("{what} {text:?}: {e}"));
        let default = &self.options.scope;
        let tenant = match tenant {
            Some(text) => Some(name("tenant", text)?),
            None => default.tenant().cloned(),
        };
        let list = match list {
            Some(text) => Some(name("list", text)?),
            None => default.list().filter(|_| scope.is_none_or(|s| s.eq_ignore_ascii_case("list"))).cloned(),
        };
        let made = match scope.map(str::to_ascii_lowercase).as_deref() {
            Some("global") => Scope::Global,
            Some("tenant") | None if list.is_none() && tenant.is_none() && scope.is_none() => Scope::Global,
            Some("tenant") => Scope::Tenant(tenant.ok_or("whose? There is no tenant")?),
            Some("list") => match (tenant, list) {
                (Some(tenant), Some(list)) => Scope::List { tenant, list },
                _ => return Err("a list needs its name, and a tenant".into()),
            },
            None => Scope::of(tenant.ok_or("a list belongs to a tenant")?, list),
            Some(other) => return Err(format!("scope {other:?}: expected global, tenant or list")),
        };
        if made.tenant() != default.tenant() && !self.options.any_owner {
            return Err(format!("entries of {made} can't be made here"));
        }
        Ok(made)
    }

    async fn commit(&mut self) -> Result<(), ImportError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let there = self.suppressions.find_many(&pending).await?;
        let mut renewed = 0;
        for (entry, there) in pending.iter_mut().zip(&there) {
            if let Some(there) = there {
                entry.since = entry.since.min(there.since);
                renewed += 1;
            }
        }
        let changes = pending.iter().map(|entry| self.suppressions.put(entry)).collect();
        self.suppressions.submit(changes).await?;
        self.report.renewed += renewed;
        self.report.added += pending.len() as u64 - renewed;
        Ok(())
    }
}

fn column(name: &str) -> Column {
    match name.to_ascii_lowercase().replace([' ', '-'], "_").as_str() {
        "email" | "address" | "recipient" | "email_address" | "emailaddress" => Column::Email,
        "reason" => Column::Reason,
        "scope" => Column::Scope,
        "tenant" => Column::Tenant,
        "list" => Column::List,
        "since" | "created_at" => Column::Since,
        "expires" => Column::Expires,
        "source" => Column::Source,
        "note" => Column::Note,
        _ => Column::Ignored,
    }
}
