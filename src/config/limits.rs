//! How fast the node, a tenant or a pool may send, to all receivers together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ByteSize, Rates};
use crate::types::Name;

/// What mail may go in a time, whoever receives it. Each limit holds beside those of `[shaping]`, `[providers]` and the sources.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct SendLimits {
    /// All mail of this node.
    pub node: SendLimit,
    /// The mail of a tenant, by its name.
    pub tenants: BTreeMap<Name, SendLimit>,
    /// The mail of a pool, by its name.
    pub pools: BTreeMap<Name, SendLimit>,
}

/// One limit of what is sent; what is not given is not limited.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct SendLimit {
    /// The most messages: one rate or several that hold at once, as `["50/s", "100000/d"]`. They are spread evenly over their time.
    pub message_rate: Rates,
    /// The most octets of messages a second: a message goes when those before it are paid for, so one may exceed it by its own size. What a campaign's rows
    /// become is known and paid for when their attempts end, so those under way may exceed it for a moment.
    pub bytes_per_second: Option<ByteSize>,
}
