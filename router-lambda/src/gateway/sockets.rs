//! Sockets outlive the request that opened them, so the right to have them is looked at again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use relay::PoolKey;

use crate::router::Forward;

/// The doors to which somebody has a socket.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<HashMap<PoolKey, Arc<Forward>>>);

impl Sockets {
    /// Somebody is about to have one.
    pub(super) fn note(&self, forward: &Forward) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors
            .entry(forward.pool.clone())
            .or_insert_with(|| Arc::new(forward.clone()));
    }

    /// Nobody has one any more.
    pub(super) fn forget(&self, forward: &Forward) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.remove(&forward.pool);
    }

    /// All of them.
    pub(super) fn doors(&self) -> Vec<Arc<Forward>> {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.values().cloned().collect()
    }
}
