//! The recipients of a campaign: from what was uploaded to rows in the store.
//!
//! 1. A body comes in pieces, is decompressed and decoded (`body`), and split into rows in flat memory (`buffer`, `parse`, `csv`, `ndjson`),
//! 2. each row is parsed once into its fixed form (`row`), with its address, its slot (`zones`) and whether the segment selects it,
//! 3. what is in the campaign already, suppressed or a role account is taken out and told with its reason (`rejects`),
//! 4. rows, rejects and the progress go into the store in one batch (`upload`), so that `Upload-Offset` is exact at the end of a row.

mod body;
mod buffer;
mod csv;
pub mod limits;
mod ndjson;
mod parse;
mod row;
mod zones;
