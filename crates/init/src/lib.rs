//! The init of a container: what PID 1 owes it, and a supervisor for one daemon.
//!
//! [`supervise`] starts a program as its child and stays with it. It is single-threaded, knows no runtime and keeps below a
//! megabyte of memory, so that it outlives whatever happens to the daemon: a crash, a panic, the kernel's OOM killer.
//!
//! ```text
//!                                  what it left does not end, in the grace, then not by KILL
//!                                        ┌───┐
//!            ┌──────────┐ child ended  ┌─┴───▼────┐ nothing left, meant   ┌───────┐
//!  start ───▶│ Running  ├─────────────▶│ Clearing ├──────────────────────▶│ Ended │
//!    ▲       └──────────┘              └────┬─────┘                       └───────┘
//!    │                                      │ nothing left, crashed           ▲
//!    │                                 ┌────▼─────┐ TERM, INT, QUIT, HUP      │
//!    └─────────────────────────────────┤ Waiting  ├───────────────────────────┘
//!           back-off is over, or last  └──────────┘ unless it is started one last time
//! ```
//!
//! `life` is that diagram, as a function of state, event and `now`; `signal` and `restart` are the decisions in it. The rest is
//! effects: `supervisor` is the loop, `hearing` the signals, `start` the child, `rest` what it leaves, `terminal` who has it,
//! `voice` what is said.
//!
//! # What it does as tini and dumb-init do, and where it had to choose
//!
//! - **All signals are blocked before anything else** and read from a signalfd: there is no handler, no window and nothing
//!   that interrupts. What was blocked or ignored before is blocked or ignored in the child. Exceptions: SIGPIPE is the default
//!   there (Rust's runtime ignores it before anybody can ask how it was), and so is SIGCHLD, because a program that ignores it gets no exit
//!   status, ours included. 32 and 33, which are the C library's own, are ignored, as by every `posix_spawn`.
//! - **Signals go to the child's process group**, as with dumb-init and `tini -g`: a shell does not pass on what it hears. A child
//!   that left its group gets them alone. Every signal that can be caught is passed on, real-time ones too.
//! - **The child leads a session** where there is no terminal. Where stdin is our terminal, it leads a group of our session, and the
//!   terminal is its own while it runs; a job in the background takes it from nobody. No session leader can be stopped by TSTP, TTIN or
//!   TTOU (its group is orphaned): there it gets STOP instead, as from dumb-init, and init stops too. PID 1 cannot be stopped.
//! - **What is left when the child has ended** is asked once with TERM, and killed after a grace. As PID 1 that is everybody in the
//!   container, with `kill(-1)`: no fork outruns that, and it needs no `/proc`. It ends sessions of `docker exec` too. Elsewhere
//!   it is our descendants, of which we become the subreaper. Nothing left means no wait. A second TERM ends the grace.
//!   Before a restart it is killed at once: it could take the place of what is started anew.
//! - **A restart** comes only after a crash (see [`Restarts`]), and not once TERM, INT, QUIT or HUP was passed on. If one of these comes
//!   while no child runs, init ends with 128 + its number at once, or as soon as the crashed tree is cleared. In all these cases a program
//!   that has something to save is started one last time instead ([`Restarts::last_start`]), and ends as that start ends.
//! - **It goes to `/` after the start**, so that it keeps no mount busy; for a restart it comes back.
//! - **A file without `#!`** is not given to a shell, as `execvp` does: in an image it is a binary for another processor.

mod ending;
mod hearing;
mod kernel;
mod life;
mod plan;
mod rest;
mod restart;
mod signal;
mod start;
mod supervisor;
mod terminal;
pub mod usage;
mod voice;

pub use ending::{Ending, NotStarted};
pub use plan::{ASKED_VARIABLE, GRACE, Log, Plan, RESTARTS_VARIABLE};
pub use restart::Restarts;
pub use supervisor::supervise;
