//! The promises of init, asked of the real `edit-init`: as PID 1 of a namespace, and as an ordinary process.
//!
//! What is asked follows the suites of tini and dumb-init; restarts are ours.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "tests have no readers but their own"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test may spawn, and waits with deadlines of its own"
)]

mod ending;
mod hardship;
mod inheritance;
mod leftovers;
mod reaping;
mod restart;
mod signals;
mod support;
mod terminal;
