//! When a row is due by the clock of its recipient: a slot of quarter hours after the earliest zone.
//!
//! A campaign that goes out at 9:00 by the recipient's time starts where the day is furthest ahead, UTC+14: that is slot 0. Every other zone
//! is due as many quarter hours later as its clock is behind. Zones differ by at most 26 hours, 104 slots.

use std::collections::HashMap;

use crate::types::Timestamp;

use super::limits::ZONES_MAX;

/// The clock that is furthest ahead, in seconds before UTC.
const AHEAD_SECONDS: i32 = 14 * 3_600;

/// Seconds of a slot.
const SLOT_SECONDS: i32 = 15 * 60;

/// How the rows of a campaign get their slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotPlan {
    /// All rows are due at once; zones are only looked at to tell the unknown ones.
    Together,
    /// At the same time of the day everywhere.
    ByZone {
        /// About when it is due: it decides about summer time.
        at: Timestamp,
        /// The zone of rows that name none, or one that is not known.
        fallback: Box<str>,
    },
}

/// What a zone means for a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zone {
    /// See [`RowId::slot`](crate::types::RowId).
    pub slot: u8,
    /// Whether the name is known.
    pub known: bool,
}

/// Zones and their slots, remembered.
#[derive(Debug)]
pub struct Zones {
    plan: SlotPlan,
    fallback: u8,
    seen: HashMap<Box<str>, Zone>,
}

impl Zones {
    /// The slots of a plan. A fallback that is not known counts as UTC.
    pub fn new(plan: SlotPlan) -> Self {
        let fallback = match &plan {
            SlotPlan::Together => 0,
            SlotPlan::ByZone { at, fallback } => slot_of(fallback, *at).unwrap_or_else(|| slot_of_offset(0)),
        };
        Self { plan, fallback, seen: HashMap::new() }
    }

    /// The slot of a row that names this zone, or none.
    pub fn of(&mut self, name: Option<&str>) -> Zone {
        let Some(name) = name else { return Zone { slot: self.fallback, known: true } };
        if let Some(zone) = self.seen.get(name) {
            return *zone;
        }
        let at = match &self.plan {
            SlotPlan::Together => Timestamp::ZERO,
            SlotPlan::ByZone { at, .. } => *at,
        };
        let zone = match (slot_of(name, at), &self.plan) {
            (Some(slot), SlotPlan::ByZone { .. }) => Zone { slot, known: true },
            (Some(_), SlotPlan::Together) => Zone { slot: 0, known: true },
            (None, _) => Zone { slot: self.fallback, known: false },
        };
        if self.seen.len() >= ZONES_MAX {
            self.seen.clear();
        }
        self.seen.insert(name.into(), zone);
        zone
    }
}

/// The slot of a zone by its name in the IANA database.
fn slot_of(name: &str, at: Timestamp) -> Option<u8> {
    let zone = jiff::tz::TimeZone::get(name).ok()?;
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.as_millis()).ok()?).ok()?;
    Some(slot_of_offset(zone.to_offset(at).seconds()))
}

fn slot_of_offset(seconds: i32) -> u8 {
    // Between 0 and 104 for the zones that there are; a stranger one is clamped, not wrapped.
    ((AHEAD_SECONDS - seconds) / SLOT_SECONDS).clamp(0, 104) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_clock_of_the_zone() {
        let at = Timestamp::from_millis(1_782_000_000_000); // June 2026: summer time in Paris.
        let mut zones = Zones::new(SlotPlan::ByZone { at, fallback: "Europe/Paris".into() });
        assert_eq!(zones.of(Some("Pacific/Kiritimati")), Zone { slot: 0, known: true });
        assert_eq!(zones.of(Some("Europe/Paris")), Zone { slot: 48, known: true });
        assert_eq!(zones.of(Some("Asia/Kathmandu")), Zone { slot: 33, known: true });
        assert_eq!(zones.of(Some("Mars/Olympus")), Zone { slot: 48, known: false });
        assert_eq!(zones.of(None), Zone { slot: 48, known: true });
        let mut together = Zones::new(SlotPlan::Together);
        assert_eq!(together.of(Some("Europe/Paris")), Zone { slot: 0, known: true });
        assert!(!together.of(Some("Mars/Olympus")).known);
    }
}
