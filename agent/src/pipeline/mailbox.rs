//! Receives from the queue: one instruction after the other, but what concerns another instruction (`cancel`) also while one
//! is being carried out.
//!
//! The queue gives one message of a group at a time, and `cancel` has a group of its own. So while an instruction runs, its
//! queue can be asked for more, and only what may overtake it comes. A request that waits is not given up: a message that it
//! gets when nobody listens any more is invisible for its whole timeout, and with it everything behind it. So none waits
//! beyond the moment at which the environment is expected to sleep. Only who has to stop at once gives it up.
//!
//! ```text
//!   idle      one request waits
//!   running   the one that waits, if there is one, or a new one
//!   between   a new one besides, which is answered at once if there is something: two at most
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use platform::{Delivery, Instructions, PortError};

use super::VISIBILITY;
use super::ending::{Ending, Until};
use super::heartbeat::Heartbeat;

/// How long a request waits for a message: SQS's maximum.
const WAIT: Duration = Duration::from_secs(20);
/// How long the last look waits: long enough that SQS asks all of its servers, which it does not for one that does not wait.
const LAST_LOOK_WAIT: Duration = Duration::from_secs(1);
/// How long to wait after the queue did not answer.
const PAUSE: Duration = Duration::from_secs(2);
/// Requests that wait at the same time.
const REQUESTS_MAX: usize = 2;
/// Messages that overtook and wait for the running instruction to end.
const HELD_MAX: usize = 16;

/// The group of what overtakes.
pub(crate) const CONTROL_GROUP: &str = "control";

type Received = Result<Option<Delivery>, PortError>;

/// A message that is ours, and is kept so.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) delivery: Delivery,
    pub(super) heartbeat: Heartbeat,
}

/// The queue, as the pipeline sees it.
pub(super) struct Mailbox {
    queue: Arc<dyn Instructions>,
    ending: Ending,
    requests: FuturesUnordered<BoxFuture<'static, Received>>,
    held: VecDeque<Letter>,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("requests", &self.requests.len())
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    pub(super) fn new(queue: Arc<dyn Instructions>, ending: Ending) -> Self {
        Self {
            queue,
            ending,
            requests: FuturesUnordered::new(),
            held: VecDeque::new(),
        }
    }

    /// Asks anew, so that what has become free is got without the delay of a request that waits already.
    pub(super) fn ask(&mut self) {
        if self.requests.len() < REQUESTS_MAX {
            let (queue, wait) = (Arc::clone(&self.queue), self.ending.patience(WAIT));
            self.requests.push(Box::pin(
                async move { queue.receive(wait, VISIBILITY).await },
            ));
        }
    }

    /// The next message, or none: when a while has passed without one, or, if the pipeline is to end, when there is none.
    /// Cancel safe.
    pub(super) async fn arrival(&mut self, until: Until) -> Result<Option<Letter>, PortError> {
        match until {
            Until::Told => self.next().await,
            Until::Empty | Until::Now => self.last_look().await,
        }
    }

    /// The next message, or none if none came in all the time that was waited. Cancel safe.
    async fn next(&mut self) -> Result<Option<Letter>, PortError> {
        if let Some(letter) = self.take_held() {
            return Ok(Some(letter));
        }
        if self.requests.is_empty() {
            self.ask();
        }
        let received = self.requests.next().await;
        let received = received.expect("one was asked for");
        Ok(received?.map(|delivery| self.keep(delivery)))
    }

    /// What came while an instruction runs; it is held until that one ends. Cancel safe, and waits for ever where no more can be
    /// held.
    pub(super) async fn overtaking(&mut self) -> &Letter {
        loop {
            if self.held.len() >= HELD_MAX {
                std::future::pending::<()>().await;
            }
            if self.requests.is_empty() {
                self.ask();
            }
            match self.requests.next().await {
                Some(Ok(Some(delivery))) => {
                    let letter = self.keep(delivery);
                    self.held.push_back(letter);
                    return self.held.back().expect("just put there");
                }
                Some(Ok(None)) | None => {}
                Some(Err(error)) => {
                    tracing::debug!(error = %crate::chain(&error), "the queue does not answer while an instruction runs");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// What is in the queue now: what still waits is waited for, and then it is looked once more.
    async fn last_look(&mut self) -> Result<Option<Letter>, PortError> {
        if let Some(letter) = self.take_held() {
            return Ok(Some(letter));
        }
        while let Some(received) = self.requests.next().await {
            if let Some(delivery) = received? {
                return Ok(Some(self.keep(delivery)));
            }
        }
        // Put with the others, so that it is not given up either when something else comes first.
        let queue = Arc::clone(&self.queue);
        self.requests.push(Box::pin(async move {
            queue.receive(LAST_LOOK_WAIT, VISIBILITY).await
        }));
        let received = self.requests.next().await;
        let received = received.expect("one was asked for");
        Ok(received?.map(|delivery| self.keep(delivery)))
    }

    /// Gives back what was got and not looked at.
    pub(super) async fn close(&mut self) {
        // What has been answered is ours; what still waits is given up.
        while let Some(Some(received)) = self.requests.next().now_or_never() {
            if let Ok(Some(delivery)) = received {
                let letter = self.keep(delivery);
                self.held.push_back(letter);
            }
        }
        self.requests.clear();
        while let Some(letter) = self.take_held() {
            let handle = letter.delivery.handle.clone();
            letter.heartbeat.join().await;
            if let Err(error) = self.queue.extend(&handle, Duration::ZERO).await {
                tracing::warn!(error = %crate::chain(&error), "a message could not be given back; it comes back by itself");
            }
        }
    }

    fn keep(&self, delivery: Delivery) -> Letter {
        Letter {
            heartbeat: Heartbeat::start(Arc::clone(&self.queue), delivery.handle.clone()),
            delivery,
        }
    }

    /// Of what is held, what overtakes comes first.
    fn take_held(&mut self) -> Option<Letter> {
        let control = self
            .held
            .iter()
            .position(|letter| letter.delivery.group == CONTROL_GROUP);
        self.held.remove(control.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use platform::local::{LocalStore, QueueSettings};
    use platform::{Lease, Outgoing};

    use super::*;

    async fn send(queue: &Arc<dyn Instructions>, group: &str, body: &str) {
        let message = Outgoing {
            body: body.to_owned(),
            group: group.to_owned(),
            deduplication_id: body.to_owned(),
            trace_parent: None,
        };
        queue.send(&message).await.expect("sent");
    }

    fn queue(folder: &tempfile::TempDir) -> Arc<dyn Instructions> {
        let store = LocalStore::open(&folder.path().join("db")).expect("open");
        Arc::new(store.queue("q", QueueSettings::default()))
    }

    #[tokio::test]
    async fn a_cancel_comes_while_an_instruction_runs_and_the_next_instruction_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = queue(&folder);
        let mut mailbox = Mailbox::new(Arc::clone(&queue), Ending::default());
        for body in ["one", "two"] {
            send(&queue, "session", body).await;
        }
        let running = mailbox.next().await.expect("answered").expect("there");
        assert_eq!(running.delivery.body, "one");
        send(&queue, CONTROL_GROUP, "cancel-two").await;
        assert_eq!(mailbox.overtaking().await.delivery.body, "cancel-two");

        running.heartbeat.join().await;
        let deleted = queue.delete(&running.delivery.handle).await;
        assert_eq!(deleted.expect("answered"), Lease::Held);
        mailbox.ask();
        for expected in ["cancel-two", "two"] {
            let letter = mailbox.next().await.expect("answered").expect("there");
            assert_eq!(letter.delivery.body, expected);
        }
    }

    #[tokio::test]
    async fn what_was_held_is_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = queue(&folder);
        let mut mailbox = Mailbox::new(Arc::clone(&queue), Ending::default());
        send(&queue, CONTROL_GROUP, "cancel-two").await;
        mailbox.overtaking().await;
        mailbox.close().await;
        let again = queue.receive(Duration::ZERO, VISIBILITY).await;
        let again = again.expect("answered").expect("at once");
        assert_eq!(again.body, "cancel-two");
    }
}
