//! Looks out for what others push: asks the remote from time to time where its branches are.
//!
//! It only looks. Its handle of the clone is its own and nothing is written through it, so it neither waits for the draft nor
//! makes the draft wait. What it saw is a hint: the pipeline compares it with what the draft has seen and fetches for itself.

use std::time::Duration;

use git2::Oid;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Draft, DraftError, Settings, janitor};
use crate::loops::Loops;

/// How seldom it is asked while it does not answer.
const ASK_SELDOM: Duration = Duration::from_secs(60);
/// How soon what could not be taken in is told again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// The tips of the two branches on the remote; none where the remote has no such branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Of the draft branch.
    pub(crate) draft: Option<Oid>,
    /// Of the published branch.
    pub(crate) published: Option<Oid>,
}

impl Draft {
    /// What the last fetch or push saw on the remote.
    pub(crate) fn seen(&self) -> Result<Seen, DraftError> {
        Ok(Seen {
            draft: self.seen_tip()?,
            published: self.published_tip()?,
        })
    }
}

/// Says where the remote's branches are.
#[derive(Debug)]
pub(crate) struct Lookout {
    seen: watch::Receiver<Option<Seen>>,
    /// What was told and could not be taken in.
    pending: Option<Pending>,
}

/// What is to be told again.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// When.
    at: Instant,
    /// How often it was tried.
    failures: u32,
}

impl Lookout {
    /// Begins to ask, that often, until `stop`.
    pub(crate) fn start(
        settings: Settings,
        published_branch: String,
        every: Duration,
        tasks: &mut Loops,
        stop: CancellationToken,
    ) -> Self {
        let (sender, seen) = watch::channel(None);
        tasks.spawn(look_out(settings, published_branch, every, sender, stop));
        Self {
            seen,
            pending: None,
        }
    }

    /// Waits until a branch of the remote is elsewhere than it was when this was last asked, or until what could not be taken
    /// in is to be tried again; and says where both are. Cancel-safe. Waits for ever once the lookout has stopped.
    pub(crate) async fn changed(&mut self) -> Seen {
        loop {
            let again = self.pending.map(|pending| pending.at);
            tokio::select! {
                changed = self.seen.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                // The moment is kept, not the wait: whoever stops waiting for it and comes back waits no longer.
                () = until(again) => {}
            }
            if let Some(seen) = *self.seen.borrow_and_update() {
                return seen;
            }
        }
    }

    /// Whether something was told that could not be taken in.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// What was told has been taken in.
    pub(crate) fn taken_in(&mut self) {
        self.pending = None;
    }

    /// What was told could not be taken in: it is told again, later each time.
    pub(crate) fn not_taken_in(&mut self) {
        let failures = self.pending.map_or(0, |pending| pending.failures);
        self.pending = Some(Pending {
            at: Instant::now() + doubled(TELL_AGAIN, failures),
            failures: failures.saturating_add(1),
        });
    }
}

/// Waits for a moment; for ever, if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn look_out(
    settings: Settings,
    published_branch: String,
    every: Duration,
    sender: watch::Sender<Option<Seen>>,
    stop: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let (asked, branch) = (settings.clone(), published_branch.clone());
        let look = tokio::task::spawn_blocking(move || look(&asked, &branch));
        // One after the other: a server that is slow to answer is not asked again meanwhile. What blocks when we are to
        // stop is a connection, and that ends at git's own time limit.
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = look => looked,
        };
        match looked {
            Ok(Ok(seen)) => {
                if failures > 0 {
                    tracing::info!(remote = %settings.remote, "the remote answers again");
                }
                failures = 0;
                sender.send_if_modified(|before| {
                    let moved = *before != Some(seen);
                    *before = Some(seen);
                    moved
                });
            }
            Ok(Err(error)) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(error = %crate::chain(&error), "the remote does not say what others pushed; it is asked again");
                } else {
                    tracing::debug!(error = %crate::chain(&error), failures, "the remote still does not answer");
                }
            }
            Err(error) => {
                failures += 1;
                tracing::error!(%error, "asking the remote broke");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(doubled(every, failures)) => {}
        }
    }
}

/// A time doubled so many times, up to [`ASK_SELDOM`].
fn doubled(time: Duration, times: u32) -> Duration {
    let factor = 1u32.checked_shl(times).unwrap_or(u32::MAX);
    time.saturating_mul(factor).min(ASK_SELDOM)
}

/// Asks once, in one connection.
fn look(settings: &Settings, published_branch: &str) -> Result<Seen, DraftError> {
    let clone = janitor::open(&settings.git_directory).map_err(|source| DraftError::Local {
        operation: "open the clone",
        path: settings.git_directory.clone(),
        source,
    })?;
    let heads = settings.remote.heads(&clone)?;
    let tip = |branch: &str| {
        let reference = format!("refs/heads/{branch}");
        heads
            .iter()
            .find(|(name, _)| *name == reference)
            .map(|(_, id)| *id)
    };
    Ok(Seen {
        draft: tip(&settings.draft_branch),
        published: tip(published_branch),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use git2::{Repository, RepositoryInitOptions, Signature};

    use super::*;
    use crate::draft::Remote;

    /// The time within which a push is seen, or the test fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn commit(repository: &Repository, branch: &str) -> Oid {
        let dora = Signature::now("Dora", "dora@example.com").expect("a signature");
        let tree = repository
            .treebuilder(None)
            .and_then(|builder| builder.write())
            .and_then(|id| repository.find_tree(id))
            .expect("a tree");
        let reference = format!("refs/heads/{branch}");
        let parent = repository
            .find_reference(&reference)
            .and_then(|reference| reference.peel_to_commit())
            .ok();
        let parents: Vec<_> = parent.iter().collect();
        repository
            .commit(Some(&reference), &dora, &dora, "Something", &tree, &parents)
            .expect("committed")
    }

    #[tokio::test]
    async fn what_others_push_is_seen_also_after_the_remote_was_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let remote = Repository::init_opts(
            at("remote"),
            RepositoryInitOptions::new().bare(true).initial_head("main"),
        )
        .expect("made");
        let main = commit(&remote, "main");
        let settings = Settings {
            git_directory: at("draft.git"),
            staging: at("staging"),
            remote: Remote::Local { path: at("remote") },
            published_branch: None,
            draft_branch: "edit/local".to_owned(),
            site_root: String::new(),
            offline: false,
        };
        let draft = Draft::open(&settings, &mut |_, _| ()).expect("open");
        let (mut tasks, stop) = (Loops::new(), CancellationToken::new());
        let mut lookout = Lookout::start(
            settings,
            "main".to_owned(),
            Duration::from_secs(1),
            &mut tasks,
            stop.clone(),
        );
        let first = Seen {
            draft: None,
            published: Some(main),
        };
        let next = async |lookout: &mut Lookout| {
            tokio::time::timeout(PATIENCE, lookout.changed())
                .await
                .expect("it is seen")
        };
        assert_eq!(next(&mut lookout).await, first);
        assert_eq!(draft.seen().expect("read"), first);

        fs::rename(at("remote"), at("away")).expect("moved");
        let theirs = commit(&Repository::open(at("away")).expect("open"), "edit/local");
        fs::rename(at("away"), at("remote")).expect("moved");
        let second = Seen {
            draft: Some(theirs),
            published: Some(main),
        };
        assert_eq!(next(&mut lookout).await, second);
        assert_eq!(*lookout.seen.borrow(), Some(second));
        assert_eq!(draft.seen().expect("read"), first, "it has not fetched");
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_taken_in_is_told_again_until_it_is() {
        let (sender, seen) = watch::channel(None);
        let mut lookout = Lookout {
            seen,
            pending: None,
        };
        let first = Seen {
            draft: None,
            published: Some(Oid::ZERO_SHA1),
        };
        sender.send_replace(Some(first));
        assert_eq!(lookout.changed().await, first);
        let mut waited = Vec::new();
        for _ in 0..8 {
            lookout.not_taken_in();
            let begun = Instant::now();
            // Instructions come in between, and stop the wait each time.
            let again = loop {
                let interrupted = Duration::from_millis(700);
                if let Ok(seen) = tokio::time::timeout(interrupted, lookout.changed()).await {
                    break seen;
                }
            };
            assert_eq!(again, first);
            waited.push(begun.elapsed().as_secs());
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60]);
        // What is new is told at once, and the count goes on until something is taken in.
        lookout.not_taken_in();
        let second = Seen {
            draft: Some(Oid::ZERO_SHA1),
            ..first
        };
        sender.send_replace(Some(second));
        let begun = Instant::now();
        assert_eq!(lookout.changed().await, second);
        assert!(begun.elapsed().is_zero());
        lookout.taken_in();
        let more = tokio::time::timeout(Duration::from_secs(3600), lookout.changed()).await;
        assert!(more.is_err(), "it is taken in");
    }

    #[test]
    fn a_remote_that_does_not_answer_is_asked_less_and_less() {
        let every = Duration::from_secs(5);
        let pauses: Vec<u64> = (0..6)
            .map(|failures| doubled(every, failures).as_secs())
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        assert_eq!(doubled(every, u32::MAX), ASK_SELDOM);
    }
}
