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

mod alb_events;
mod cloud;
mod fleet;
mod gateway;
mod house;
mod intake;
mod lambda;
mod lambda_runtime;
mod laptop;
mod recycled;
mod support;
mod sweeping;
mod visitors;
mod vite_client;
mod waiting;
mod waking;
