//! Campaigns: one template, many recipients, one thing to steer.

pub mod contacts;
pub mod recipients;
