//! DMARC aggregates: XML as it comes, by the names of the elements only.
//!
//! RFC 7489 appendix C and RFC 9990 differ in a namespace and a few elements; real reports differ more than that: elements in another order, missing or
//! twice, values in capitals. So what is known is taken wherever its parents are right, and the rest is passed over. A document type, and with it every
//! entity that is not of XML itself, is refused: no report has one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::{AuthResult, DmarcPolicy, DmarcReport, DmarcRow, RECORDS_MAX, ROWS_MAX, ReportError, clean, domain};

/// The deepest element; a report has five levels.
const DEPTH_MAX: usize = 16;
/// The longest text of an element that is kept while it is read, in octets; further octets are dropped.
const ELEMENT_MAX: usize = 4 << 10;
/// The most results of checks that are kept of a row.
const AUTH_MAX: usize = 6;
/// The most errors that are kept.
const ERRORS_MAX: usize = 10;

/// Reads an aggregate.
pub(super) fn read(octets: &[u8]) -> Result<DmarcReport, ReportError> {
    let text = decode(octets);
    let mut reader = Reader::from_str(&text);
    let mut reading = Reading::default();
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => reading.begin(start.local_name().as_ref())?,
            Ok(Event::End(_)) => reading.end()?,
            Ok(Event::Empty(start)) => {
                reading.begin(start.local_name().as_ref())?;
                reading.end()?;
            }
            Ok(Event::Text(text)) => reading.text(&text.xml10_content()),
            Ok(Event::CData(text)) => reading.text(&text.xml10_content()),
            Ok(Event::GeneralRef(reference)) => {
                let named = quick_xml::escape::resolve_xml_entity(&reference);
                match (named, reference.resolve_char_ref()) {
                    (Some(text), _) => reading.text(text),
                    (None, Ok(Some(c))) => reading.text(c.encode_utf8(&mut [0; 4])),
                    (None, Ok(None) | Err(_)) => {
                        return Err(ReportError::Xml("an entity that XML does not have".into()));
                    }
                }
            }
            Ok(Event::DocType(_)) => return Err(ReportError::Xml("a document type".into())),
            Ok(Event::Decl(_) | Event::PI(_) | Event::Comment(_)) => {}
            Ok(Event::Eof) => break,
            Err(e) => return Err(ReportError::Xml(clean(&e.to_string()))),
        }
    }
    if !reading.path.is_empty() {
        return Err(ReportError::Xml("it ends in the middle".into()));
    }
    reading.finish()
}

/// UTF-8, UTF-16 by its mark, else Windows-1252, which reads any octets.
fn decode(octets: &[u8]) -> Cow<'_, str> {
    match encoding_rs::Encoding::for_bom(octets) {
        Some((encoding, mark)) => encoding.decode_without_bom_handling(&octets[mark..]).0,
        None => match std::str::from_utf8(octets) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(octets).0,
        },
    }
}

/// What makes rows the same.
type RowKey = (IpAddr, String, bool, bool, String);

#[derive(Default)]
struct Reading {
    path: Vec<String>,
    text: String,
    is_feedback: bool,
    org: String,
    email: Option<String>,
    report_id: String,
    domain: String,
    begin: Option<u64>,
    end: Option<u64>,
    policy: DmarcPolicy,
    errors: Vec<String>,
    records: usize,
    record: Record,
    auth: AuthResult,
    rows: BTreeMap<RowKey, DmarcRow>,
}

/// A record while it is read.
#[derive(Default)]
struct Record {
    source_ip: Option<IpAddr>,
    count: u64,
    disposition: String,
    dkim: bool,
    spf: bool,
    header_from: String,
    auth: Vec<AuthResult>,
    reason: Option<String>,
}

impl Reading {
    fn begin(&mut self, name: &str) -> Result<(), ReportError> {
        if self.path.len() >= DEPTH_MAX {
            return Err(ReportError::TooLarge(format!("{DEPTH_MAX} elements within each other")));
        }
        if self.path.is_empty() {
            self.is_feedback |= name == "feedback";
        }
        self.path.push(name.to_ascii_lowercase());
        self.text.clear();
        match self.path.last().map(String::as_str) {
            Some("record") if self.path.len() == 2 => {
                self.records += 1;
                if self.records > RECORDS_MAX {
                    return Err(ReportError::TooLarge(format!("{RECORDS_MAX} records")));
                }
                self.record = Record::default();
            }
            Some("dkim" | "spf") if self.path.len() == 4 => self.auth = AuthResult::default(),
            Some(_) | None => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        let room = ELEMENT_MAX.saturating_sub(self.text.len());
        let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.text.push_str(&text[..end]);
    }

    fn end(&mut self) -> Result<(), ReportError> {
        let text = clean(&std::mem::take(&mut self.text));
        let names: Vec<&str> = self.path.iter().skip(1).map(String::as_str).collect();
        let lower = || text.to_ascii_lowercase();
        let some = || (!text.is_empty()).then(|| text.to_ascii_lowercase());
        match names[..] {
            ["report_metadata", "org_name"] => self.org = text,
            ["report_metadata", "email"] => self.email = (!text.is_empty()).then_some(text),
            ["report_metadata", "report_id"] => self.report_id = text,
            ["report_metadata", "error"] if self.errors.len() < ERRORS_MAX => self.errors.push(text),
            ["report_metadata", "date_range", "begin"] => self.begin = text.parse().ok(),
            ["report_metadata", "date_range", "end"] => self.end = text.parse().ok(),
            ["policy_published", "domain"] => self.domain = domain(&text),
            ["policy_published", "p"] => self.policy.p = lower(),
            ["policy_published", "sp"] => self.policy.sp = some(),
            ["policy_published", "np"] => self.policy.np = some(),
            ["policy_published", "adkim"] => self.policy.adkim = some(),
            ["policy_published", "aspf"] => self.policy.aspf = some(),
            ["policy_published", "pct"] => self.policy.pct = some(),
            ["policy_published", "testing"] => self.policy.testing = some(),
            ["record", "row", "source_ip"] => {
                self.record.source_ip = text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
            }
            ["record", "row", "count"] => self.record.count = text.parse().unwrap_or(0),
            ["record", "row", "policy_evaluated", "disposition"] => self.record.disposition = lower(),
            ["record", "row", "policy_evaluated", "dkim"] => self.record.dkim = text.eq_ignore_ascii_case("pass"),
            ["record", "row", "policy_evaluated", "spf"] => self.record.spf = text.eq_ignore_ascii_case("pass"),
            ["record", "row", "policy_evaluated", "reason", "type"] => self.record.reason = some(),
            ["record", "identifiers", "header_from"] => self.record.header_from = domain(&text),
            ["record", "auth_results", "dkim" | "spf", "domain"] => self.auth.domain = domain(&text),
            ["record", "auth_results", "dkim", "selector"] => self.auth.selector = (!text.is_empty()).then_some(text),
            ["record", "auth_results", "dkim" | "spf", "result"] => self.auth.result = lower(),
            ["record", "auth_results", method @ ("dkim" | "spf")] if self.record.auth.len() < AUTH_MAX => {
                let method = method.to_owned();
                self.record.auth.push(AuthResult { method, ..std::mem::take(&mut self.auth) });
            }
            ["record"] => self.end_record()?,
            _ => {}
        }
        self.path.pop();
        Ok(())
    }

    fn end_record(&mut self) -> Result<(), ReportError> {
        let record = std::mem::take(&mut self.record);
        let source_ip = record.source_ip.ok_or(ReportError::Missing("the source_ip of a record"))?;
        let Record { count, disposition, dkim, spf, header_from, auth, reason, .. } = record;
        let key = (source_ip, header_from.clone(), dkim, spf, disposition.clone());
        let row =
            || DmarcRow { source_ip: Some(source_ip), count: 0, disposition, dkim, spf, header_from, auth, reason };
        let row = self.rows.entry(key).or_insert_with(row);
        row.count = row.count.saturating_add(count);
        Ok(())
    }

    fn finish(self) -> Result<DmarcReport, ReportError> {
        if !self.is_feedback {
            return Err(ReportError::Xml("the root is no feedback".into()));
        }
        let missing = [(&self.org, "org_name"), (&self.report_id, "report_id"), (&self.domain, "the domain")];
        if let Some((_, what)) = missing.into_iter().find(|(text, _)| text.is_empty()) {
            return Err(ReportError::Missing(what));
        }
        let (Some(begin), Some(end)) = (self.begin, self.end) else {
            return Err(ReportError::Missing("the date_range"));
        };
        let mut rows: Vec<DmarcRow> = self.rows.into_values().collect();
        rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.source_ip.cmp(&b.source_ip)));
        Ok(DmarcReport {
            org: self.org,
            email: self.email,
            report_id: self.report_id,
            domain: self.domain,
            begin,
            end,
            policy: self.policy,
            rows: cut(rows),
            errors: self.errors,
        })
    }
}

/// What is beyond the limit becomes one row for each result, without an address: sums stay right.
fn cut(mut rows: Vec<DmarcRow>) -> Vec<DmarcRow> {
    if rows.len() <= ROWS_MAX {
        return rows;
    }
    let mut rest: BTreeMap<(bool, bool, String), u64> = BTreeMap::new();
    for row in rows.drain(ROWS_MAX..) {
        let sum = rest.entry((row.dkim, row.spf, row.disposition)).or_default();
        *sum = sum.saturating_add(row.count);
    }
    // Words of a stranger may be many: what is left of them is few, as the results are.
    let summed = rest.into_iter().take(ROWS_MAX).map(|((dkim, spf, disposition), count)| DmarcRow {
        source_ip: None,
        count,
        disposition,
        dkim,
        spf,
        header_from: String::new(),
        auth: Vec::new(),
        reason: None,
    });
    rows.extend(summed);
    rows
}
