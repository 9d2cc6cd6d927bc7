//! The stories: what a developer, a producer and an owner experience, told with real parts.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::similar_names,
    clippy::too_many_lines,
    reason = "a test binary has no readers but its own"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests may spawn: their tasks end with their runtime"
)]

mod bad_input;
mod bar;
mod browser;
mod by_hand;
mod cloud;
mod cloud_bad_input;
mod content;
mod crash;
mod edit_loop;
mod full_disk;
mod git_servers;
mod history;
mod morning;
mod presence;
mod producers;
mod publish;
mod remotes;
mod seat;
mod site;
mod support;
mod system_calls;
mod two_way;
mod undo;
mod verified;
