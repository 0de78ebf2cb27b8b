//! The way mail comes in.
