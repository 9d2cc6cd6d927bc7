//! The router: finds the environment of a session, wakes it when it sleeps, and never shows one client another's draft.
//!
//! ```text
//!  ALB event ─▶ lambda ──┐                      ┌─▶ page (waiting, links, refusals)
//!                        ├─▶ router ─▶ route ───┼─▶ wake ─▶ launcher
//!  HTTP ──────▶ gateway ─┘   (one core)         └─▶ the door of a session, proven
//!  SQS event ─▶ lambda ───▶ intake ─▶ threads ─▶ the session's queue ─▶ wake
//!  schedule ──▶ lambda ───▶ sweep
//! ```
//!
//! One routing core, two front ends: a Lambda behind a load balancer for what a Lambda can carry, and a gateway for everything
//! that streams. What they decide is decided in one place (`route`), purely.

#![allow(
    clippy::doc_markdown,
    reason = "SQLite and DynamoDB are names of products, not code"
)]
#![allow(
    clippy::missing_panics_doc,
    reason = "an `expect` here states what makes it impossible"
)]

mod answer;
pub mod ask;
pub mod assembly;
pub mod cli;
pub mod commands;
pub mod cookie;
pub mod directory;
pub mod failure;
pub mod function;
pub mod gateway;
pub mod host;
pub mod inspect;
pub mod intake;
pub mod lambda;
pub mod laptop;
pub mod link;
pub mod metrics;
pub mod page;
pub mod path;
pub mod policy;
pub mod registry;
mod reply;
pub mod rollout;
pub mod route;
pub mod router;
pub mod serve;
pub mod settings;
pub mod sweep;
pub mod threads;
pub mod wake;
