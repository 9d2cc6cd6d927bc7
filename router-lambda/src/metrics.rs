//! What the router counts and measures, by client.
//!
//! A page of a dev server is fifty requests, and a line of the log costs money: numbers are gathered and written once a minute, and
//! in a Lambda after each invocation.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::{ClientId, Generation, SessionId, Timestamp};
use telemetry::{Embedded, Metric};

/// Gathers numbers. Cheap to clone; the clones gather together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    gathered: Arc<Mutex<HashMap<ClientId, Gathered>>>,
    /// The newest wake of each session that was counted: everybody who waits for it sees it.
    counted: Arc<Mutex<HashMap<SessionId, Generation>>>,
}

/// How many wakes are remembered as counted.
const COUNTED_MAX: usize = 10_000;

/// What was gathered of a client.
#[derive(Debug, Default)]
struct Gathered {
    requests: u32,
    decided_in_all: Duration,
    decided_at_most: Duration,
    refused: BTreeMap<&'static str, u32>,
    woken: BTreeMap<&'static str, u32>,
    live: Option<u32>,
    waited: Vec<Duration>,
}

impl Metrics {
    fn of(&self, client: &ClientId, note: impl FnOnce(&mut Gathered)) {
        let mut all = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(client) {
            Some(gathered) => note(gathered),
            None => note(all.entry(client.clone()).or_default()),
        }
    }

    /// A request was decided.
    pub fn routed(&self, client: &ClientId, took: Duration) {
        self.of(client, |gathered| {
            gathered.requests = gathered.requests.saturating_add(1);
            gathered.decided_in_all += took;
            gathered.decided_at_most = gathered.decided_at_most.max(took);
        });
    }

    /// A request was refused, or sent elsewhere.
    pub fn refused(&self, client: &ClientId, why: &'static str) {
        self.of(client, |gathered| {
            *gathered.refused.entry(why).or_default() += 1;
        });
    }

    /// A wake was asked for.
    pub fn woken(&self, client: &ClientId, outcome: &'static str) {
        self.of(client, |gathered| {
            *gathered.woken.entry(outcome).or_default() += 1;
        });
    }

    /// A session was woken, and it took so long until its site answered. Each generation is counted once.
    pub fn woke(
        &self,
        (client, session, generation): (&ClientId, &SessionId, Generation),
        took: Duration,
    ) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.get(session) == Some(&generation) {
            return;
        }
        if counted.len() >= COUNTED_MAX {
            counted.clear();
        }
        counted.insert(session.clone(), generation);
        drop(counted);
        self.of(client, |gathered| gathered.waited.push(took));
    }

    /// So many sessions are live.
    pub fn live(&self, client: &ClientId, sessions: u32) {
        self.of(client, |gathered| gathered.live = Some(sessions));
    }

    /// Writes what was gathered since the last time.
    pub fn write(&self, embedded: &Embedded, now: Timestamp) {
        let all =
            std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        for (client, gathered) in all {
            if gathered.requests > 0 {
                let average = gathered.decided_in_all / gathered.requests;
                let metrics = [
                    Metric::count("Requests", gathered.requests),
                    Metric::milliseconds("RouteMilliseconds", average),
                    Metric::milliseconds("RouteMillisecondsMax", gathered.decided_at_most),
                ];
                embedded.write(&client, now, &metrics, &[]);
            }
            for (why, number) in gathered.refused {
                embedded.write(
                    &client,
                    now,
                    &[Metric::count("Refused", number)],
                    &[("reason", why)],
                );
            }
            for (outcome, number) in gathered.woken {
                embedded.write(
                    &client,
                    now,
                    &[Metric::count("Wakes", number)],
                    &[("outcome", outcome)],
                );
            }
            for took in gathered.waited {
                embedded.write(&client, now, &[Metric::seconds("WakeSeconds", took)], &[]);
            }
            if let Some(live) = gathered.live {
                embedded.write(&client, now, &[Metric::count("LiveSessions", live)], &[]);
            }
        }
    }
}
