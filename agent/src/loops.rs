//! The tasks that go on for as long as an environment does, and that are not to end in silence.
//!
//! A panic ends one task and nothing else: an environment whose lease nobody renews, or whose files nobody watches, would look as if it
//! lived. So whoever waits for [`Broken`] hears of it, and ends the whole.

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Whether a loop has broken. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broken(CancellationToken);

impl Broken {
    /// Waits until one has. Cancel safe.
    pub(crate) async fn heard_of(&self) {
        self.0.cancelled().await;
    }
}

/// Loops that are waited for together. Dropping them aborts them.
#[derive(Debug, Default)]
pub(crate) struct Loops {
    tasks: JoinSet<()>,
    broken: Broken,
}

impl Loops {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Others, of which is heard in the same place.
    pub(crate) fn beside(&self) -> Self {
        Self {
            tasks: JoinSet::new(),
            broken: self.broken.clone(),
        }
    }

    /// Where is heard of one that breaks.
    pub(crate) fn broken(&self) -> Broken {
        self.broken.clone()
    }

    /// Starts one.
    pub(crate) fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let watch = Watch(self.broken.clone());
        self.tasks.spawn(async move {
            let _watch = watch;
            work.await;
        });
    }

    /// Waits for the next to end; none if none is left. Cancel safe.
    pub(crate) async fn join_next(&mut self) -> Option<Result<(), JoinError>> {
        self.tasks.join_next().await
    }
}

/// Goes with the task that it is in.
struct Watch(Broken);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_heard_of_and_an_end_or_an_abort_is_none() {
        let mut loops = Loops::new();
        let mut others = loops.beside();
        loops.spawn(async {});
        assert!(loops.join_next().await.expect("one").is_ok());
        loops.spawn(std::future::pending());
        drop(loops);
        assert!(others.broken().heard_of().now_or_never().is_none());
        others.spawn(async { panic!("as a defect does") });
        others.broken().heard_of().await;
        assert!(others.join_next().await.expect("one").is_err());
    }
}
