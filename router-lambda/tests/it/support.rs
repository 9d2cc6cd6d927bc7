//! The vocabulary of the stories.

use std::time::Duration;

pub mod alb;
pub mod browser;
pub mod door;
pub mod http;
pub mod runtime;

/// How long anything may take on a machine that does much else, before a story gives up and says what it last saw.
pub const PATIENCE: Duration = Duration::from_secs(60);
