//! Stories of the router.

mod cloud;
mod fleet;
mod house;
mod intake;
mod sweeping;
mod waking;
