//! The vocabulary of the stories.

use std::time::Duration;

// Named, so that the benchmark finds them too.
#[path = "support/alb.rs"]
pub mod alb;
#[path = "support/browser.rs"]
pub mod browser;
#[path = "support/door.rs"]
pub mod door;
#[path = "support/http.rs"]
pub mod http;
#[path = "support/runtime.rs"]
pub mod runtime;
#[path = "support/scribe.rs"]
pub mod scribe;
#[path = "support/table.rs"]
pub mod table;
#[allow(dead_code, reason = "shared with the tests of the relay")]
#[path = "../../../crates/relay/tests/it/wire.rs"]
pub mod wire;

/// How long anything may take on a machine that does much else, before a story gives up and says what it last saw.
pub const PATIENCE: Duration = Duration::from_secs(60);
