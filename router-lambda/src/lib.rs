//! The router.

pub mod ask;
pub mod cookie;
pub mod gateway;
