//! The stories of the router.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "a test binary has no readers but its own"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests may spawn: their tasks end with their runtime"
)]

mod fleet;
mod gateway;
mod house;
mod intake;
mod recycled;
mod support;
mod sweeping;
mod waiting;
mod waking;
