//! What browsers may know: held back while a change has not been judged.
//!
//! ```text
//!   begin ──▶ (the change is written, its pages are looked at) ──┬─ it stands ──────────────▶ end: what was held goes out
//!                                                                └─ take_back ─▶ (reverted) ─▶ end: only what came after
//! ```
//!
//! Two things are held: what the dev server tells browsers over its socket (the runner does that, see `runner.mjs`), and
//! visits (the door does, by [`Hold::watch`]). A dev server that starts meanwhile holds from its first word on.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::{Mutex, watch};

/// How long the runner may take to answer a word. It is one process that may be rendering a large page.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How far judging is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Judging {
    /// Whether a change is being judged now.
    pub(crate) under_way: bool,
    /// How many have been judged.
    pub(crate) judged: u64,
    /// How many of those were taken back: a page that was rendered meanwhile is not to be shown.
    pub(crate) taken_back: u64,
}

/// Holds back what browsers may not know yet. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    judging: watch::Sender<Judging>,
    /// The input of the dev server that runs. While it is open, the process lives.
    leash: Mutex<Option<ChildStdin>>,
    /// How many words the runners have answered.
    answers: watch::Sender<u64>,
}

impl Hold {
    /// Nothing is held.
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                judging: watch::Sender::default(),
                leash: Mutex::default(),
                answers: watch::Sender::default(),
            }),
        }
    }

    /// How far judging is, and every change of that.
    pub(crate) fn watch(&self) -> watch::Receiver<Judging> {
        self.shared.judging.subscribe()
    }

    /// Whether a change is being judged.
    pub(crate) fn under_way(&self) -> bool {
        self.shared.judging.borrow().under_way
    }

    /// Nothing reaches a browser from now on.
    pub(crate) async fn begin(&self) {
        self.say("hold", |judging| judging.under_way = true).await;
    }

    /// The change is taken back: what was held is dropped whole. What comes from now on is the revert's.
    pub(crate) async fn take_back(&self) {
        self.say("discard", |judging| judging.taken_back += 1).await;
    }

    /// What is held goes out, in order, and so does everything from now on.
    pub(crate) async fn end(&self) {
        self.say("release", |judging| {
            judging.under_way = false;
            judging.judged += 1;
        })
        .await;
    }

    /// Gives a new dev server its settings, and keeps its leash.
    pub(super) async fn attach(
        &self,
        mut stdin: ChildStdin,
        mut settings: serde_json::Value,
    ) -> std::io::Result<()> {
        let mut leash = self.shared.leash.lock().await;
        settings["hold"] = self.under_way().into();
        stdin.write_all(format!("{settings}\n").as_bytes()).await?;
        *leash = Some(stdin);
        Ok(())
    }

    /// There is no dev server any more: nobody waits for its answer.
    pub(super) async fn detach(&self) {
        self.shared.leash.lock().await.take();
        self.answered();
    }

    /// The runner has answered a word.
    pub(super) fn answered(&self) {
        self.shared.answers.send_modify(|answers| *answers += 1);
    }

    /// Says a word to the dev server, and notes how far judging is: both while none can start, or it would begin with
    /// what was noted before and never hear the word.
    async fn say(&self, word: &str, note: impl FnOnce(&mut Judging)) {
        let mut answers = self.shared.answers.subscribe();
        let before = *answers.borrow_and_update();
        {
            let mut leash = self.shared.leash.lock().await;
            self.shared.judging.send_modify(note);
            let Some(stdin) = leash.as_mut() else {
                return; // Whoever starts next is told when it starts.
            };
            if let Err(error) = stdin.write_all(format!("{word}\n").as_bytes()).await {
                tracing::debug!(%error, word, "the dev server has ended");
                return;
            }
        }
        let answered = answers.wait_for(|now| *now > before);
        if tokio::time::timeout(ANSWER_TIME, answered).await.is_err() {
            tracing::warn!(word, "the dev server does not answer");
        }
    }
}
