//! The vocabulary of the stories.

use std::time::Duration;

pub mod alb;
pub mod browser;
pub mod door;
pub mod http;
pub mod runtime;
pub mod scribe;
pub mod table;
#[allow(dead_code, reason = "shared with the tests of the relay")]
#[path = "../../../crates/relay/tests/it/wire.rs"]
pub mod wire;

/// How long anything may take on a machine that does much else, before a story gives up and says what it last saw.
pub const PATIENCE: Duration = Duration::from_secs(60);
