//! What happens in the environment, as events: numbered, kept for a while, and sent to whoever listens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use contract::Receipt;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::site::{SiteProblem, SiteState};

/// Events kept for a listener that comes back.
const KEPT: usize = 1000;
/// Events a listener may be behind before it has to ask for what it missed.
const BEHIND_MAX: usize = 256;

/// Something that happened. On the wire `{"event": <name>, …}`, the same for `dev --json` and `/_edit/events`.
#[derive(Debug, Clone, Serialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub(crate) enum Event {
    /// A phase of the start began or ended.
    Phase {
        /// Which one: `config`, `claim`, `clone`, `install`, `serve`.
        phase: PhaseName,
        /// How far it is.
        state: PhaseState,
        /// Milliseconds it took, once it is done.
        #[serde(skip_serializing_if = "Option::is_none")]
        ms: Option<u64>,
        /// What was done, in a few words.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// The site has answered.
    Ready {
        /// Where to look at it.
        preview_url: String,
        /// The door's port.
        port: u16,
        /// Where instructions land.
        draft_branch: String,
        /// The agent's own work tree and clone.
        workspace: String,
        /// Where commits are pushed.
        remote: String,
        /// `ok` or `degraded`.
        site: contract::session::SiteHealth,
    },
    /// The state of the site changed.
    Site {
        /// Its state.
        state: SiteState,
        /// What is wrong with it.
        #[serde(skip_serializing_if = "Option::is_none")]
        problem: Option<SiteProblem>,
    },
    /// An instruction goes on; its receipt is not final yet.
    Progress {
        /// What is known so far.
        #[serde(flatten)]
        receipt: Box<Receipt>,
    },
    /// An instruction has its final receipt.
    Receipt {
        /// The receipt.
        #[serde(flatten)]
        receipt: Box<Receipt>,
    },
    /// The draft has changed: by an instruction, by what others pushed, or by hand in the workspace.
    Draft {
        /// Its newest commit.
        tip: String,
    },
    /// The environment has stopped.
    Stopped {
        /// Where it ended: the newest commit of the draft on the remote.
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Commits that could not be pushed. They are in the workspace and go out at the next start.
        unpushed: usize,
        /// Instructions that wait in the queue for the next start.
        queued: u64,
        /// Files that somebody changed by hand and did not commit. They are in the workspace, and nowhere else.
        uncommitted: Vec<String>,
    },
}

/// The phases of the start, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PhaseName {
    Config,
    Claim,
    Clone,
    Install,
    Serve,
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PhaseState {
    Started,
    Done,
    Failed,
}

impl Event {
    /// Its name on the wire.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Phase { .. } => "phase",
            Self::Ready { .. } => "ready",
            Self::Site { .. } => "site",
            Self::Progress { .. } => "progress",
            Self::Receipt { .. } => "receipt",
            Self::Draft { .. } => "draft",
            Self::Stopped { .. } => "stopped",
        }
    }
}

/// An event with its number.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    /// Counts up from 1 while the agent runs.
    pub(crate) id: u64,
    /// The event.
    pub(crate) event: Arc<Event>,
}

/// The events of one environment. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    kept: Arc<Mutex<VecDeque<Numbered>>>,
    sender: broadcast::Sender<Numbered>,
}

impl Events {
    /// No events yet.
    pub(crate) fn new() -> Self {
        Self {
            kept: Arc::default(),
            sender: broadcast::channel(BEHIND_MAX).0,
        }
    }

    /// Says that something happened.
    pub(crate) fn publish(&self, event: Event) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = Numbered {
            id: kept.back().map_or(1, |last| last.id + 1),
            event: Arc::new(event),
        };
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(numbered.clone());
        // Sent under the lock, so that a listener that subscribes meanwhile neither misses nor repeats it.
        self.sender.send(numbered).ok();
    }

    /// What happened after event `after` (if any is asked for), and what happens from now on.
    pub(crate) fn subscribe(
        &self,
        after: Option<u64>,
    ) -> (Vec<Numbered>, broadcast::Receiver<Numbered>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = match after {
            Some(after) => kept
                .iter()
                .filter(|numbered| numbered.id > after)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        (missed, self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(queued: u64) -> Event {
        Event::Stopped {
            commit: None,
            unpushed: 0,
            queued,
            uncommitted: Vec::new(),
        }
    }

    #[test]
    fn a_listener_that_comes_back_gets_what_it_missed_once() {
        let events = Events::new();
        (0..3).for_each(|n| events.publish(stopped(n)));
        let (missed, mut live) = events.subscribe(Some(1));
        assert_eq!(
            missed
                .iter()
                .map(|numbered| numbered.id)
                .collect::<Vec<_>>(),
            [2, 3]
        );
        events.publish(stopped(3));
        assert_eq!(live.try_recv().map(|numbered| numbered.id), Ok(4));
        assert!(live.try_recv().is_err());
    }

    #[test]
    fn only_so_many_are_kept() {
        let events = Events::new();
        (0..1500).for_each(|n| events.publish(stopped(n)));
        let (missed, _live) = events.subscribe(Some(0));
        assert_eq!((missed.len(), missed[0].id), (1000, 501));
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let text = serde_json::to_string(&Event::Phase {
            phase: PhaseName::Clone,
            state: PhaseState::Done,
            ms: Some(12),
            detail: None,
        });
        assert_eq!(
            text.expect("JSON"),
            r#"{"event":"phase","phase":"clone","state":"done","ms":12}"#
        );
    }
}
