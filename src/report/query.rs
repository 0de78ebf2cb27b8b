//! Reading cells: tables over a time, and time series.
//!
//! 1. Who asks waits until what was committed before is counted, [`WAIT_MAX`] at the most; the report says how far it counts,
//! 2. a time is cut into whole days and the hours at its ends, so that a year costs no more than its days,
//! 3. each piece is one range of keys; cells of the same name add up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::cell::{Cell, Counter};
use super::fold::OTHER;
use super::keeper::begins;
use super::key::{Key, Resolution, Scope, Split, parse};
use super::view::{AsOf, Figures, Point, ReplyGroup, Row, Series};
use crate::seam::clock::Clock;
use crate::store::{ReadError, Reader, Table};
use crate::types::{EventSeq, Timestamp};

/// How long a report waits for the counters to come up with the log.
const WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Cells that are read at a time.
const PAGE: usize = 2_000;
/// The most cells of a report; a longer time is refused.
const CELLS_MAX: usize = 300_000;
/// The most points of a time series: then the next coarser resolution is taken.
const POINTS_MAX: u32 = 150;
/// Hours of a day.
const HOURS: u32 = 24;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It would read too much.
    #[error("the report would read more than {CELLS_MAX} counters: ask for a shorter time, a tenant or a campaign")]
    TooLong,
}

/// A time: from `since`, before `until`; hours count whole, and days where hours are not kept any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// From this on; `None` from the beginning.
    pub since: Option<Timestamp>,
    /// Before this; `None` to the end.
    pub until: Option<Timestamp>,
}

/// Cells of one resolution: from a bucket on, before another.
type Piece = (Resolution, u32, u32);

/// The way to the cells; cheap to clone.
#[derive(Clone)]
pub struct Reports {
    reader: Reader,
    folded: watch::Receiver<EventSeq>,
    hurry: Arc<Notify>,
    clock: Clock,
}

impl Reports {
    pub(super) fn new(reader: Reader, folded: watch::Receiver<EventSeq>, hurry: Arc<Notify>, clock: Clock) -> Self {
        Self { reader, folded, hurry, clock }
    }

    /// Waits until what is committed is counted, for a while; answers how far the counters are.
    pub async fn fresh(&self) -> AsOf {
        let tail = self.reader.events_tail();
        let mut folded = self.folded.clone();
        if *folded.borrow() < tail {
            self.hurry.notify_one();
            // An error means that nothing is counted any more: the report says how far it got.
            let _ = tokio::time::timeout(WAIT_MAX, folded.wait_for(|seq| *seq >= tail)).await;
        }
        let event = *self.folded.borrow();
        AsOf { at: self.clock.now(), event: event.0, behind: tail.0.saturating_sub(event.0) }
    }

    /// What was counted of a scope in a time.
    pub async fn total(&self, scope: &Scope, range: Range) -> Result<Cell, ReportError> {
        Ok(self.by_name(scope, Split::Total, range).await?.remove("").unwrap_or_default())
    }

    /// A table: a row a name, the most mail first.
    pub async fn table(&self, scope: &Scope, split: Split, range: Range) -> Result<Vec<Row>, ReportError> {
        let cells = self.by_name(scope, split, range).await?;
        let mut rows: Vec<Row> =
            cells.into_iter().map(|(name, cell)| Row { name, figures: Figures::of(&cell) }).collect();
        rows.sort_by(|a, b| {
            (b.name != OTHER, b.figures.weight()).cmp(&(a.name != OTHER, a.figures.weight())).then(a.name.cmp(&b.name))
        });
        Ok(rows)
    }

    /// The replies of a scope in a time, grouped, the most frequent first; `provider` takes only those of one.
    pub async fn replies(
        &self,
        scope: &Scope,
        range: Range,
        provider: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplyGroup>, ReportError> {
        let cells = self.by_name(scope, Split::Reply, range).await?;
        let mut groups: Vec<ReplyGroup> = cells.iter().map(|(name, cell)| ReplyGroup::of(name, cell)).collect();
        groups.retain(|group| provider.is_none_or(|provider| group.provider == provider));
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.template.cmp(&b.template)));
        groups.truncate(limit);
        Ok(groups)
    }

    /// A time series of a scope: as fine as is kept for that time and can be looked at. Without a time, from the first to the last mail.
    pub async fn series(&self, scope: &Scope, range: Range) -> Result<Series, ReportError> {
        let now = self.clock.now().as_millis();
        let mut since = range.since.map(Timestamp::as_millis);
        let mut until = range.until.map(Timestamp::as_millis);
        if since.is_none() || until.is_none() {
            let days = self.scan(scope, Split::Total, (Resolution::Day, 0, u32::MAX)).await?;
            let day = Resolution::Day.ms();
            since = since.or_else(|| Some(u64::from(days.first()?.0) * day));
            until = until.or_else(|| Some((u64::from(days.last()?.0) + 1) * day));
        }
        let (since, until) = (since.unwrap_or(now), until.unwrap_or(now).min(now.saturating_add(1)));
        let mut series = Series::default();
        for resolution in Resolution::ALL {
            let (from, to) = (resolution.bucket(since), resolution.bucket(until.saturating_sub(1)).saturating_add(1));
            let kept = resolution.kept_ms().is_none_or(|kept| since >= now.saturating_sub(kept));
            if !kept {
                continue;
            }
            let found = self.scan(scope, Split::Total, (resolution, from, to)).await?;
            let (Some(first), Some(last)) = (found.first().map(|c| c.0), found.last().map(|c| c.0)) else {
                // Nothing in a time that is kept: nothing is coarser either.
                return Ok(Series { resolution: resolution.as_str().into(), points: Vec::new() });
            };
            if last - first >= POINTS_MAX && resolution != Resolution::Day {
                continue;
            }
            series.resolution = resolution.as_str().into();
            let mut cells: BTreeMap<u32, Cell> = found.into_iter().map(|(bucket, _, cell)| (bucket, cell)).collect();
            let first =
                if resolution == Resolution::Day { first.max(last.saturating_sub(10 * POINTS_MAX)) } else { first };
            let point = |bucket| Point::of(begins(resolution, bucket), &cells.remove(&bucket).unwrap_or_default());
            series.points = (first..=last).map(point).collect();
            return Ok(series);
        }
        Ok(series)
    }

    async fn by_name(&self, scope: &Scope, split: Split, range: Range) -> Result<BTreeMap<String, Cell>, ReportError> {
        let mut cells: BTreeMap<String, Cell> = BTreeMap::new();
        for piece in pieces(range, self.clock.now()) {
            for (_, name, cell) in self.scan(scope, split, piece).await? {
                cells.entry(name).or_default().merge(&cell);
            }
        }
        Ok(cells)
    }

    /// The cells of a range, in order of time and name.
    async fn scan(&self, scope: &Scope, split: Split, piece: Piece) -> Result<Vec<(u32, String, Cell)>, ReportError> {
        let (resolution, from, to) = piece;
        let prefix = Key::prefix(resolution, scope, split);
        // The first key that is not before `from`: names are UTF-8, so none has an octet of 255.
        let mut after = from.checked_sub(1).map(|before| [&prefix[..], &before.to_be_bytes(), &[0xff]].concat());
        let mut cells = Vec::new();
        loop {
            let page = self.reader.table_scan(Table::Rollups, prefix.clone(), after.take(), PAGE).await?;
            for (key, value) in &page {
                let Some((bucket, name)) = parse(&prefix, key) else { continue };
                if bucket >= to {
                    return Ok(cells);
                }
                // What is not readable is told by the keeper when it next adds to it.
                cells.extend(Cell::decode(value).map(|cell| (bucket, name, cell)));
            }
            if cells.len() > CELLS_MAX {
                return Err(ReportError::TooLong);
            }
            if page.len() < PAGE {
                return Ok(cells);
            }
            after = page.last().map(|(key, _)| key.to_vec());
        }
    }
}

/// A time as whole days and the hours at its ends. Where hours are not kept any more, days count whole.
pub(super) fn pieces(range: Range, now: Timestamp) -> Vec<Piece> {
    let now = now.as_millis();
    let hour = |ms: u64| Resolution::Hour.bucket(ms);
    let kept = hour(now.saturating_sub(Resolution::Hour.kept_ms().unwrap_or(0))).saturating_add(1);
    let up = |hours: u32| hours.div_ceil(HOURS).saturating_mul(HOURS);
    let mut from = range.since.map_or(0, |since| hour(since.as_millis()));
    if from < kept {
        from -= from % HOURS;
    }
    let mut to = match range.until {
        Some(until) if until.as_millis() <= now => hour(until.as_millis().saturating_add(Resolution::Hour.ms() - 1)),
        Some(_) | None => u32::MAX - u32::MAX % HOURS,
    };
    if to < kept {
        to = up(to);
    }
    let (first_day, last_day) = (from.div_ceil(HOURS), to / HOURS);
    if first_day >= last_day {
        return if from < to { vec![(Resolution::Hour, from, to)] } else { Vec::new() };
    }
    let mut pieces = vec![(Resolution::Day, first_day, last_day)];
    if from < first_day * HOURS {
        pieces.insert(0, (Resolution::Hour, from, first_day * HOURS));
    }
    if to > last_day * HOURS {
        pieces.push((Resolution::Hour, last_day * HOURS, to));
    }
    pieces
}

impl ReplyGroup {
    fn of(name: &str, cell: &Cell) -> Self {
        let provider = name.split_once('\0').map_or(name, |(provider, _)| provider);
        let count = cell.counts.iter().sum();
        let mut group = Self { provider: provider.into(), count, ..Self::default() };
        group.event = "other".into();
        let Some(reply) = &cell.reply else {
            group.template = "(further replies, not told apart)".into();
            return group;
        };
        group.event = reply.event.to_string();
        group.late = cell.get(Counter::LateBounced) + cell.get(Counter::LateDeferred);
        group.code = reply.code;
        group.enhanced = reply.enhanced.to_string();
        group.template = reply.template.to_string();
        group.example = reply.example.to_string();
        group.source = reply.source.to_string();
        group.category = reply.category.to_string();
        group
    }
}
