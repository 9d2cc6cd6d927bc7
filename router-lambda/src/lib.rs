//! The router.

pub mod page;
