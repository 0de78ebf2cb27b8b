//! Personalisation and segments, in Jinja: what a recipient reads, and who is a recipient.
//!
//! 1. [`Compiled::new`] reads the templates of a message once: subject, headers, text, HTML. An error has the part, line and column.
//! 2. [`Globals`] holds what is the same for all recipients; [`Vars::parse`] reads a recipient's row beside it.
//! 3. [`Compiled::missing`] says which variables a recipient lacks: the scan before the start asks it for every row.
//! 4. [`Compiled::render`] makes a part. The same row, time and templates make the same text: `now` is a parameter.
//! 5. A [`Segment`] is an expression over the row that says whether it belongs; it reads only what it needs of the JSON.
//! 6. [`html_to_text`] makes the plain text where none is given; [`links`] and [`images_without_alt`] serve the check before the start.
//!
//! A template reads no file and includes no other, has a limit of fuel and of output, and sees nothing but its recipient.

mod analyse;
mod compiled;
mod dates;
mod error;
mod filters;
mod html;
mod lexer;
mod locale;
mod names;
mod segment;
mod text;
mod vars;

pub use analyse::{Image, Link, images_without_alt, links};
pub use compiled::{Compiled, OnMissing, Options, Part, Rendered, Sources};
pub use error::{RenderError, RowError, TemplateError};
pub use segment::{Missing, Segment, SegmentError};
pub use text::html_to_text;
pub use vars::{Globals, Vars};

#[cfg(test)]
mod tests;
