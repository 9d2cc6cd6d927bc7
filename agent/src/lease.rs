//! The right to act for a session: taken in one generation, renewed all the time, and given up at once when it is another's.
//!
//! ```text
//!   wake (only where no router did) ─▶ claim ─▶ phase … ─▶ register ─▶ drain ─▶ sleep
//!                                        │        renewed every 10 s, valid for 30        │
//!                                        └─────── another generation or task acts ────────┴─▶ lost: touch nothing any more
//! ```
//!
//! Every write is conditional on the generation, so that the record never says what an older environment thinks. What is
//! outside the record (the remote, the queue) has no such condition. There the lease's own time counts: whoever could not renew
//! it may not act from the moment on at which somebody else may have woken the session. That moment is counted by a clock that
//! nobody sets, from before the write was sent.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use contract::session::{
    Failure as SessionFailure, Isolation, Parked, Phase, ProofKey, SiteHealth, Transition,
    TransitionRefused,
};
use contract::{Generation, Session, SessionId, Timestamp};
use platform::{PortError, Sessions, TransitionFailed};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// For how long a lease is taken, and how often it is renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long it is valid without being renewed.
    pub(crate) validity: Duration,
    /// How often it is renewed.
    pub(crate) every: Duration,
}

impl Terms {
    /// In the cloud: a container that is gone is noticed within half a minute, at six writes a minute.
    pub(crate) const CONTAINER: Self = Self {
        validity: Duration::from_secs(30),
        every: Duration::from_secs(10),
    };
    /// On a developer's machine nobody else can take the session while we hold the lock on its folder.
    pub(crate) const DEVELOPER: Self = Self {
        validity: Duration::from_secs(24 * 3600),
        every: Duration::from_secs(6 * 3600),
    };
}

/// Later than any activity that a record can name.
const FAR_AHEAD: Duration = Duration::from_secs(3600);

/// Nothing is begun in the last moments of a lease: what was begun before must be over by its end.
const MARGIN: Duration = Duration::from_secs(3);
/// The pause after the first write that the backend did not answer; doubled each time, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long a step is tried again, at least, where the lease is over anyway: the last words of an environment.
const LAST_WORDS_TIME: Duration = Duration::from_secs(8);
/// How long the claim may take after a wake of our own.
const CLAIM_TIME: Duration = Duration::from_secs(30);

/// Why a session was not taken, or is no longer ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    /// The record says that we may not.
    #[error(transparent)]
    Refused(#[from] TransitionFailed),
    /// The records do not answer.
    #[error(transparent)]
    Backend(#[from] PortError),
}

impl LeaseError {
    /// Whether somebody was there after the decision to sleep.
    pub(crate) fn is_newer_activity(&self) -> bool {
        matches!(
            self,
            Self::Refused(TransitionFailed::Refused(TransitionRefused::NewerActivity))
        )
    }
}

/// What each renewal tells the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// How the site is.
    pub(crate) site: SiteHealth,
    /// When somebody last did something.
    pub(crate) last_activity_at: Option<Timestamp>,
    /// Why it does not sleep.
    pub(crate) awake_because: Option<String>,
}

/// The lease of one generation of a session. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lease(Arc<Inner>);

struct Inner {
    sessions: Arc<dyn Sessions>,
    session_id: SessionId,
    generation: Generation,
    terms: Terms,
    slots: u32,
    told: Mutex<Told>,
    /// The first thing there is to tell is not kept until the next renewal.
    first_told: Notify,
    valid_until: Mutex<Instant>,
    lost: CancellationToken,
    why: OnceLock<String>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("session", &self.0.session_id.redacted())
            .field("generation", &self.0.generation)
            .finish_non_exhaustive()
    }
}

/// Makes the wake write where no router did: one generation on, with a new key.
pub(crate) async fn wake(
    sessions: &dyn Sessions,
    seen: &Session,
    slots: u32,
    terms: Terms,
) -> Result<Generation, LeaseError> {
    let now = Timestamp::now();
    let step = Transition::Wake {
        seen: seen.generation,
        proof_key: ProofKey(contract::id::hex(&crate::random::bytes::<32>())),
        lease_until: now.plus(terms.validity.max(CLAIM_TIME)),
    };
    let woken = sessions
        .transition(&seen.session_id, seen.generation, &step, slots, now)
        .await??;
    Ok(woken.generation)
}

impl Lease {
    /// Takes a session that is waking in `generation`, for `task`; or takes it up again, if this task has it.
    pub(crate) async fn claim(
        sessions: Arc<dyn Sessions>,
        session_id: &SessionId,
        generation: Generation,
        task: String,
        slots: u32,
        terms: Terms,
    ) -> Result<(Self, Session), LeaseError> {
        let lease = Self(Arc::new(Inner {
            sessions,
            session_id: session_id.clone(),
            generation,
            terms,
            slots,
            told: Mutex::default(),
            first_told: Notify::new(),
            valid_until: Mutex::new(Instant::now()),
            lost: CancellationToken::new(),
            why: OnceLock::new(),
        }));
        let session = lease
            .step(|lease_until| Transition::Claim {
                task: task.clone(),
                lease_until,
            })
            .await?;
        Ok((lease, session))
    }

    /// Whether something may be done now that others can see.
    pub(crate) fn may_act(&self) -> bool {
        !self.0.lost.is_cancelled() && Instant::now() + MARGIN < self.valid_until()
    }

    /// Waits until the session is another's. From then on nothing of it is touched.
    pub(crate) async fn lost(&self) {
        self.0.lost.cancelled().await;
    }

    /// Whether the session is another's.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.is_cancelled()
    }

    /// Who acts instead, in words, once it is lost.
    pub(crate) fn why_lost(&self) -> &str {
        self.0.why.get().map_or("", String::as_str)
    }

    /// The record as it is.
    pub(crate) async fn record(&self) -> Result<Option<Session>, PortError> {
        self.0.sessions.get(&self.0.session_id).await
    }

    /// The generation in which we act.
    pub(crate) fn generation(&self) -> Generation {
        self.0.generation
    }

    /// Says what the environment is doing while it wakes.
    pub(crate) async fn phase(&self, phase: Phase) -> Result<(), LeaseError> {
        self.step(|lease_until| Transition::Phase { phase, lease_until })
            .await
            .map(drop)
    }

    /// Says where the door is: from now on visitors are sent to it.
    pub(crate) async fn register(
        &self,
        ip: String,
        port: u16,
        site: SiteHealth,
        isolation: Option<Isolation>,
    ) -> Result<Session, LeaseError> {
        self.step(|lease_until| Transition::Register {
            ip: ip.clone(),
            port,
            site,
            isolation: isolation.clone(),
            lease_until,
        })
        .await
    }

    /// What the next renewal is to tell. There is one at once for what is told first: from then on the record says why it is
    /// awake.
    pub(crate) fn tell(&self, told: Told) {
        let mut known = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if known.awake_because.is_none() && told.awake_because.is_some() {
            self.0.first_told.notify_one();
        }
        *known = told;
    }

    /// Ready → draining, unless somebody was there after `seen_activity`.
    pub(crate) async fn drain(&self, seen_activity: Option<Timestamp>) -> Result<(), LeaseError> {
        self.step(|_| Transition::Drain { seen_activity })
            .await
            .map(drop)
    }

    /// The same whoever is there: whoever told us to stop does not ask.
    pub(crate) async fn drain_whoever_is_there(&self) -> Result<(), LeaseError> {
        self.drain(Some(Timestamp::now().plus(FAR_AHEAD))).await
    }

    /// Everything is saved; the session is nobody's.
    pub(crate) async fn sleep(&self, parked: Vec<Parked>) -> Result<(), LeaseError> {
        self.step(|_| Transition::Sleep {
            parked: parked.clone(),
        })
        .await
        .map(drop)
    }

    /// Says why there is no environment.
    pub(crate) async fn fail(&self, failure: SessionFailure) -> Result<(), LeaseError> {
        self.step(|_| Transition::Fail {
            failure: failure.clone(),
        })
        .await
        .map(drop)
    }

    /// Renews it until `stop`, or until it is lost.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.lost() => return,
                () = tokio::time::sleep(self.0.terms.every) => {}
                () = self.0.first_told.notified() => {}
            }
            crate::crash_point!("renewal");
            let renewed = tokio::select! {
                () = stop.cancelled() => return,
                renewed = self.renew() => renewed,
            };
            match renewed {
                Ok(_) => {}
                Err(LeaseError::Backend(error)) => {
                    tracing::warn!(error = %crate::chain(&error), may_act = self.may_act(), "the lease could not be renewed; it is tried again");
                }
                Err(LeaseError::Refused(_)) => return,
            }
        }
    }

    async fn renew(&self) -> Result<Session, LeaseError> {
        let told = self
            .0
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.step(|lease_until| Transition::Renew {
            lease_until,
            site: told.site,
            last_activity_at: told.last_activity_at,
            awake_because: told.awake_because.clone(),
        })
        .await
    }

    fn valid_until(&self) -> Instant {
        *self
            .0
            .valid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step. A backend that does not answer is asked again while the lease is valid, and a little longer.
    async fn step(
        &self,
        transition: impl Fn(Timestamp) -> Transition,
    ) -> Result<Session, LeaseError> {
        let patience = (Instant::now() + LAST_WORDS_TIME).max(self.valid_until());
        let mut pause = PAUSE;
        loop {
            let sent = Instant::now();
            let now = Timestamp::now();
            let lease_until = now.plus(self.0.terms.validity);
            let step = transition(lease_until);
            let answer = self
                .0
                .sessions
                .transition(
                    &self.0.session_id,
                    self.0.generation,
                    &step,
                    self.0.slots,
                    now,
                )
                .await;
            match answer {
                Ok(Ok(session)) => {
                    // Not every step prolongs it.
                    if session.lease_until == Some(lease_until) {
                        self.extend(sent + self.0.terms.validity);
                    }
                    return Ok(session);
                }
                Ok(Err(refused)) => {
                    self.judge(&refused);
                    return Err(refused.into());
                }
                Err(error) if error.is_transient() && Instant::now() + pause < patience => {
                    tracing::debug!(error = %crate::chain(&error), "the session's record does not answer");
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn extend(&self, until: Instant) {
        let mut valid_until = self
            .0
            .valid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *valid_until = until.max(*valid_until);
    }

    /// Whether what was refused means that the session is another's.
    fn judge(&self, refused: &TransitionFailed) {
        let still_ours = matches!(
            refused,
            TransitionFailed::Refused(TransitionRefused::NewerActivity)
        );
        if !still_ours && self.0.why.set(refused.to_string()).is_ok() {
            tracing::warn!(why = %refused, "the session is another's by now; this environment steps down");
            self.0.lost.cancel();
        }
    }
}

/// Somewhere between half of it and all of it, so that many who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let [byte] = crate::random::bytes::<1>();
    pause / 2 + pause / 2 * u32::from(byte) / 255
}

#[cfg(test)]
mod tests {
    use contract::session::State;
    use platform::local::LocalStore;

    use super::*;

    const TERMS: Terms = Terms::CONTAINER;

    async fn dormant(store: &LocalStore) -> Session {
        let session: Session = serde_json::from_value(serde_json::json!({
            "sessionId": "amelia_s1", "clientId": "amelia", "userId": "amelia", "threadId": "local", "state": "dormant",
            "generation": 0, "queueUrl": "q.fifo", "previewUrl": "http://localhost/", "draftBranch": "edit/local",
            "createdAt": "2026-11-22T09:30:00.000Z",
        }))
        .expect("what a producer has to write is enough");
        store.sessions().create(&session).await.expect("created");
        session
    }

    async fn claim(
        store: &LocalStore,
        generation: Generation,
        task: &str,
    ) -> Result<Lease, String> {
        let id = "amelia_s1".parse().expect("an id");
        Lease::claim(store.sessions(), &id, generation, task.to_owned(), 4, TERMS)
            .await
            .map(|(lease, _)| lease)
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn of_two_tasks_of_one_generation_exactly_one_acts() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(&folder.path().join("db")).expect("open");
        let session = dormant(&store).await;
        let generation = wake(store.sessions().as_ref(), &session, 4, TERMS)
            .await
            .expect("woken");
        let first = claim(&store, generation, "task-1").await.expect("claimed");
        let second = claim(&store, generation, "task-2").await;
        assert_eq!(
            second.expect_err("one is enough"),
            "another task has claimed the session"
        );
        assert!(first.may_act());
        // The same task again: a write that was repeated, or a process that was started again in its container.
        assert!(claim(&store, generation, "task-1").await.is_ok());
    }

    #[tokio::test]
    async fn an_older_generation_is_told_at_its_next_step_and_touches_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(&folder.path().join("db")).expect("open");
        let sessions = store.sessions();
        let session = dormant(&store).await;
        let generation = wake(sessions.as_ref(), &session, 4, TERMS)
            .await
            .expect("woken");
        let older = claim(&store, generation, "task-1").await.expect("claimed");
        older
            .register("10.0.0.1".to_owned(), 8080, SiteHealth::Ok, None)
            .await
            .expect("ready");
        // Its lease runs out: somebody wakes the session again.
        let id = session.session_id.clone();
        let late = Timestamp::now().plus(Duration::from_secs(60));
        let step = Transition::Wake {
            seen: generation,
            proof_key: ProofKey(String::new()),
            lease_until: late.plus(TERMS.validity),
        };
        let woken = sessions
            .transition(&id, generation, &step, 4, late)
            .await
            .expect("answered")
            .expect("woken");
        assert!(older.may_act(), "it cannot know yet");
        let error = older.renew().await.expect_err("refused");
        assert_eq!(error.to_string(), "generation 2 acts, not 1");
        assert!(!older.may_act());
        older.lost().await;
        assert_eq!(older.why_lost(), "generation 2 acts, not 1");
        assert!(older.sleep(Vec::new()).await.is_err());
        let record = sessions.get(&id).await.expect("read").expect("there");
        assert_eq!(record, woken);
        assert_eq!(record.state, State::Waking);
    }

    #[tokio::test]
    async fn who_cannot_renew_may_not_act_when_the_lease_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(&folder.path().join("db")).expect("open");
        let session = dormant(&store).await;
        let generation = wake(store.sessions().as_ref(), &session, 4, TERMS)
            .await
            .expect("woken");
        let lease = claim(&store, generation, "task-1").await.expect("claimed");
        assert!(lease.may_act());
        *lease.0.valid_until.lock().expect("whole") = Instant::now() + MARGIN / 2;
        assert!(!lease.may_act());
        assert!(!lease.is_lost(), "nobody has taken it");
        lease.renew().await.expect("still ours");
        assert!(lease.may_act());
    }
}
