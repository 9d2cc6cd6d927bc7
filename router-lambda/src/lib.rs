//! The router.

mod answer;
mod chain;
pub mod intake;
pub mod sweep;
pub mod threads;
pub mod wake;
