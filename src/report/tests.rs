//! Folding against counting, on a real store; percentiles; what a hostile reply does to a page.

mod folding;
mod forms;
