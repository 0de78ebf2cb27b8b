//! Every bound of an upload, and what happens on reaching it.

/// The longest row in octets, decompressed, in its own encoding; a longer one is rejected as too long, the upload goes on.
pub const ROW_BYTES_MAX: usize = 64 << 10;

/// How many octets without a line end are skipped after a row that is too long; then the upload is refused: what has no lines is no list.
pub const SKIP_BYTES_MAX: usize = 1 << 20;

/// The most columns of a CSV file; with more the upload is refused.
pub const COLUMNS_MAX: usize = 1_000;

/// The longest name of a column or variable, in octets; a longer one refuses the upload, or the row that has it.
pub const VARIABLE_NAME_MAX: usize = 200;

/// How deep lists and objects of a row may nest; deeper rows are rejected.
pub const DEPTH_MAX: usize = 16;

/// How many records may be broken over several lines (quotes that are not closed) in one upload; then it is refused, since each costs a
/// search for its end.
pub const BROKEN_RECORDS_MAX: u64 = 10_000;

/// The most octets that a compressed body may become; then the upload is refused, what came before is kept.
pub const DECOMPRESSED_BYTES_MAX: u64 = 64 << 30;

/// How many times larger than itself a compressed body may become, once it has become [`RATIO_FREE_BYTES`]; then it is refused as a bomb.
pub const RATIO_MAX: u64 = 250;

/// What a compressed body may become whatever its size.
pub const RATIO_FREE_BYTES: u64 = 64 << 20;

/// The largest window of a zstd body, as a power of two: 16 MiB. What `zstd -19` writes fits; `--ultra` and `--long` may not.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// What the reading of a body asks for at a time.
pub(super) const READ_BYTES: usize = 128 << 10;

/// Octets of rows and rejects in a batch, as the ledger counts them: one commit. DESIGN §3: at most 256 KB.
pub const BATCH_BYTES_MAX: usize = 192 << 10;

/// Rows in a batch, accepted or not.
pub const BATCH_ROWS_MAX: usize = 2_000;

/// The most rejected rows that are kept with their reason, a campaign; further ones are only counted.
pub const REJECTS_KEPT_MAX: u64 = 1_000_000;

/// The octets that are kept of the address of a rejected row.
pub const REJECT_ADDRESS_MAX: usize = 320;

/// The octets that are kept of what was wrong with a row.
pub const REJECT_DETAIL_MAX: usize = 300;

/// The most rows of a campaign: a sequence is 32 bits wide.
pub const ROWS_MAX: u32 = u32::MAX - 1;

/// Chunks of a body that may wait for the parser; then the connection is not read.
pub(super) const CHUNKS_MAX: usize = 8;

/// Batches that may wait for the commit; then the parser waits.
pub(super) const BATCHES_MAX: usize = 2;

/// Names of time zones whose place is remembered.
pub(super) const ZONES_MAX: usize = 2_000;

/// The longest row in its fixed form; CSV repeats the names of its columns in each row. A longer one is rejected as too long.
pub const ROW_VALUE_BYTES_MAX: usize = 128 << 10;

/// Uploads at a time on a node; a further one waits for its turn with a 503.
pub const UPLOADS_MAX: usize = 4;
