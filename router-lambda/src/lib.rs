//! The router.
pub mod ask;
pub mod cookie;
pub mod intake;
pub mod lambda;
pub mod router;
