//! Sources share the mail of a pool by weight.
//!
//! Each source has a virtual time that grows by 1/weight for each message it takes; the one that is furthest behind among those that
//! may go is next. This is smooth weighted round robin: 5, 1 and 1 give `a a b a c a a`-like orders, never five in a row of one.

/// One virtual message of a source of weight 1; divisible by small weights.
const UNIT: u64 = 5_040 * 1_000;

/// How far a source may lag, in messages of weight 1: one that was held back does not catch up with all that it missed.
const LAG_MAX: u64 = 16;

/// The shares of a pool's sources at one site.
#[derive(Clone, Debug, Default)]
pub struct Share {
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    source: usize,
    weight: u32,
    time: u64,
}

impl Share {
    /// Shares for these (source, weight); weight 0 takes a source out.
    pub fn new(members: impl IntoIterator<Item = (usize, u32)>) -> Self {
        let members = members
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(source, weight)| Member { source, weight, time: 0 })
            .collect();
        Self { members }
    }

    /// The sources that have a share.
    pub fn sources(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().map(|m| m.source)
    }

    /// Whether this source has a share.
    pub fn has(&self, source: usize) -> bool {
        self.members.iter().any(|m| m.source == source)
    }

    /// The source whose turn it is, among those that may go.
    pub fn next(&self, mut may_go: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut best: Option<&Member> = None;
        for member in &self.members {
            if best.is_none_or(|b| member.time < b.time) && may_go(member.source) {
                best = Some(member);
            }
        }
        best.map(|m| m.source)
    }

    /// A message went from this source.
    pub fn charge(&mut self, source: usize) {
        if let [only] = self.members.as_slice() {
            debug_assert!(only.source == source, "only a member is charged");
            return;
        }
        let Some(member) = self.members.iter_mut().find(|m| m.source == source) else { return };
        member.time += UNIT / u64::from(member.weight);
        let now = member.time;
        // One that could not go for a while starts again near the others.
        for other in &mut self.members {
            other.time = other.time.max(now.saturating_sub(LAG_MAX * UNIT));
        }
    }

    /// Whether `source` is ahead of `other` by more than one turn.
    pub fn is_ahead(&self, source: usize, other: usize) -> bool {
        let find = |s| self.members.iter().find(|m| m.source == s);
        let (Some(a), Some(b)) = (find(source), find(other)) else { return false };
        a.time > b.time + 2 * UNIT / u64::from(b.weight.min(a.weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(weights: &[(usize, u32)], held: &[usize], n: usize) -> Vec<usize> {
        let mut share = Share::new(weights.iter().copied());
        let mut counts = vec![0; weights.len()];
        for _ in 0..n {
            if let Some(s) = share.next(|s| !held.contains(&s)) {
                share.charge(s);
                counts[s] += 1;
            }
        }
        counts
    }

    #[test]
    fn weights_are_kept_and_zero_takes_out() {
        assert_eq!(run(&[(0, 5), (1, 1), (2, 1)], &[], 70), [50, 10, 10]);
        assert_eq!(run(&[(0, 3), (1, 0)], &[], 9), [9, 0]);
        assert_eq!(run(&[(0, 5), (1, 1), (2, 1)], &[0], 10), [0, 5, 5]);
        assert_eq!(run(&[(0, 0)], &[], 5), [0]);
    }

    #[test]
    fn one_that_was_held_does_not_catch_up_with_everything() {
        let mut share = Share::new([(0, 1), (1, 1)]);
        (0..1_000).for_each(|_| share.charge(0));
        let mut in_a_row = 0;
        while share.next(|_| true) == Some(1) {
            share.charge(1);
            in_a_row += 1;
        }
        assert!(in_a_row <= 17, "{in_a_row}");
    }
}
