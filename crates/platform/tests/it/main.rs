//! The adapters of this crate against the suite, and what the local one promises beyond it.

mod conformance;
mod crash;
mod faults;
mod file;
mod launcher;
mod model;
mod rows;
mod template;
mod time;
