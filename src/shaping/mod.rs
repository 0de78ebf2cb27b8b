//! Shaping: the one place that says whether mail may go now, and why not.
//!
//! 1. [`Limits`] are worked out for a site from the config (domain rule, then site rule, then default; or the route's own),
//! 2. the scheduler keeps the counters: gauges of connections, [`Bucket`]s of tokens, the [`Pace`] of each campaign,
//! 3. [`admit()`] looks at a [`Question`] (limits, counters, now) and answers [`Verdict::Go`] or [`Verdict::Wait`] with
//!    the [`Reason`] and what ends the wait: a time, or the release of a named limit,
//! 4. [`explain()`] walks the same steps and words each of them: what an operator reads is what was decided.
//!
//! Everything here is a pure function of its arguments; time is one of them.

pub mod adapt;
mod admit;
mod bucket;
mod control;
mod limits;
mod pace;
pub mod rules;
mod share;
mod shared;

pub use admit::{
    Ask, CampaignState, HoldKind, Host, Limit, PathState, Question, Reason, Route, SourceTrouble, Step, Verdict, Wake,
    Window, admit, explain,
};
pub use bucket::Bucket;
pub use control::{Budget, Control, ProviderLimits, ProviderState, provider_limits};
pub use limits::{Count, Limits, RateLimit, limits_for};
pub use pace::{Pace, Paced};
pub use share::Share;
pub use shared::{SHARED_LIMITS, Shared};
