//! The vocabulary of the stories.

use std::time::Duration;

pub mod browser;

/// How long anything may take on a machine that does much else, before a story gives up and says what it last saw.
pub const PATIENCE: Duration = Duration::from_secs(60);
