//! The adapters of this crate against the suite, and what the local one promises beyond it.

mod conformance;
mod crash;
mod file;
mod model;
mod time;
