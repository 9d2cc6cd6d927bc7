//! Which doors have lately proven who they are: a request whose body or socket would come to whoever is there goes to no other.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use relay::PoolKey;
use tokio::time::Instant;

/// How long a proof is good for. An address that is given back is not given to somebody else within seconds, and one question
/// more in ten seconds costs nobody anything.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// A proof that is younger than this need not be noted again: most requests only read.
const NOTED_FOR: Duration = Duration::from_secs(1);

/// Below this many nobody looks for old ones.
const UNSWEPT: usize = 256;

/// The doors that have proven themselves.
#[derive(Debug)]
pub(super) struct Proven(RwLock<Noted>);

#[derive(Debug)]
struct Noted {
    at: HashMap<PoolKey, Instant>,
    /// The number of notes at which old ones are dropped.
    sweep_at: usize,
}

impl Default for Proven {
    fn default() -> Self {
        Self(RwLock::new(Noted {
            at: HashMap::new(),
            sweep_at: UNSWEPT,
        }))
    }
}

impl Proven {
    /// Whether this door has proven itself lately.
    pub(super) fn has(&self, door: &PoolKey, now: Instant) -> bool {
        self.age(door, now).is_some_and(|age| age < GOOD_FOR)
    }

    /// It has just done so.
    pub(super) fn note(&self, door: &PoolKey, now: Instant) {
        if self.age(door, now).is_some_and(|age| age < NOTED_FOR) {
            return;
        }
        let mut noted = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if noted.at.len() >= noted.sweep_at {
            noted
                .at
                .retain(|_, at| now.saturating_duration_since(*at) < GOOD_FOR);
            noted.sweep_at = UNSWEPT.max(noted.at.len() * 2);
        }
        noted.at.insert(door.clone(), now);
    }

    /// Somebody else has answered in its place.
    pub(super) fn forget(&self, door: &PoolKey) {
        let mut noted = self.0.write().unwrap_or_else(PoisonError::into_inner);
        noted.at.remove(door);
    }

    fn age(&self, door: &PoolKey, now: Instant) -> Option<Duration> {
        let noted = self.0.read().unwrap_or_else(PoisonError::into_inner);
        noted
            .at
            .get(door)
            .map(|at| now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_good_for_a_moment() {
        let (proven, door) = (Proven::default(), PoolKey::from("task-1#1"));
        let start = Instant::now();
        assert!(!proven.has(&door, start));
        proven.note(&door, start);
        assert!(proven.has(&door, start));
        assert!(!proven.has(&PoolKey::from("task-1#2"), start));
        let nearly = start + GOOD_FOR - Duration::from_millis(1);
        assert!(proven.has(&door, nearly));
        assert!(!proven.has(&door, start + GOOD_FOR));
        proven.note(&door, nearly);
        assert!(proven.has(&door, start + GOOD_FOR), "a newer one counts");
        proven.forget(&door);
        assert!(!proven.has(&door, nearly));
    }

    #[tokio::test(start_paused = true)]
    async fn old_proofs_do_not_pile_up() {
        let proven = Proven::default();
        let start = Instant::now();
        for number in 0..10_000_u32 {
            let now = start + Duration::from_secs(number.into());
            proven.note(&PoolKey::from(u64::from(number)), now);
        }
        let left = proven.0.read().expect("whole").at.len();
        assert!(left <= UNSWEPT, "{left} are left");
    }
}
