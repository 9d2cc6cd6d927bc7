//! A number that nobody else has: for the ids of requests, for names of processes, and for how long to stand back. Not for
//! secrets.

/// Another one at each call.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // Seeded by the operating system, and different at each call.
    RandomState::new().hash_one(())
}
