//! The adapters of this crate against the suite, and what the local one promises beyond it.

mod conformance;
