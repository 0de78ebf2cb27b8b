//! The recipients of a campaign: from what was uploaded to rows in the store.
//!
//! 1. A body comes in pieces, is decompressed and decoded (`body`), and split into rows in flat memory (`buffer`, `parse`, `csv`, `ndjson`),
//! 2. each row is parsed once into its fixed form (`row`), with its address, its slot (`zones`) and whether the segment selects it (`reading`),
//! 3. what is in the campaign already, suppressed or excluded is taken out and told with its reason (`upload`),
//! 4. rows, rejects and the progress (`record`) go into the store in one batch, so that `Upload-Offset` is exact at the end of a row.

mod body;
mod buffer;
mod csv;
pub mod limits;
mod ndjson;
mod parse;
mod port;
mod ports;
mod reading;
mod record;
mod row;
#[cfg(test)]
pub(crate) mod testing;
mod upload;
mod zones;

pub use body::{BodyError, Compression};
pub use parse::{Format, Refusal, Shape};
pub use port::{Compile, RecipientsPort, input_of};
pub use ports::{Fut, NoScreen, Screen, Select, Selected, Target, slots_of};
pub use reading::{BatchOf, read_rows};
pub use record::{Failures, Reject, UploadRecord};
pub use row::{Given, Place, Reason, Rejected, is_role_account};
pub use upload::{Chunks, ChunksReceiver, Input, Recipients, RejectsPage, UploadError, Uploaded, chunks};
pub use zones::SlotPlan;
