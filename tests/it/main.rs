//! The one integration-test binary: it links once.

mod fuzz;
mod generated;
mod job_doc;
mod tidy;
