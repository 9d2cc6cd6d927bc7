//! Stories of the router.

mod fleet;
mod house;
mod intake;
mod sweeping;
mod waking;
