//! What the images do in real containers, under a real engine. `docker/test` makes what they need and runs them.

#![allow(
    clippy::disallowed_methods,
    reason = "stories wait for what the engine does, which tells nobody when it is done"
)]

mod bench;
mod crashes;
mod engine;
mod gateway;
mod hostile;
mod image;
mod refusals;
mod session;
mod system;
mod town;
