//! The command line: what an operator types.

pub mod demo;
