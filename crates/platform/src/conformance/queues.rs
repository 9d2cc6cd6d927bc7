//! What [`crate::Queues`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use std::time::Duration;

use contract::SessionId;

use super::records::client;
use super::{QueuesUnderTest, eventually};
use crate::random::random;
use crate::{Instructions, Lease, Outgoing, PortError, QUEUE_PREFIX, Queues};

/// Turns each case into a test.
#[macro_export]
macro_rules! queues_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { queues, $under_test,
            a_queue_that_is_created_takes_messages_and_gives_them
            a_queue_that_is_created_again_is_the_one_that_is_there
            every_session_has_its_own_queue
            a_queue_with_a_message_is_listed
            a_queue_that_is_removed_is_gone_with_its_messages
            a_queue_that_is_not_there_is_removed
            what_is_no_queue_of_a_session_is_never_removed
            a_queue_is_known_for_ours
            what_nobody_can_deal_with_goes_to_the_dead_letters
        }
    };
}

/// In order, at the address that a record keeps.
pub async fn a_queue_that_is_created_takes_messages_and_gives_them(
    under_test: &dyn QueuesUnderTest,
) {
    let queues = under_test.fresh().await.0;
    let address = queues.create(&session()).await.expect("create");
    for body in ["one", "two"] {
        send(&*queues, &address, body).await;
    }
    assert_eq!(receive(&*queues, &address).await, "one");
    assert_eq!(receive(&*queues, &address).await, "two");
}

/// As after a reply that was lost, or by two who get a message of one thread at once.
pub async fn a_queue_that_is_created_again_is_the_one_that_is_there(
    under_test: &dyn QueuesUnderTest,
) {
    let queues = under_test.fresh().await.0;
    let session = session();
    let address = queues.create(&session).await.expect("create");
    send(&*queues, &address, "one").await;
    let again = queues.create(&session).await.expect("create again");
    assert_eq!(again, address);
    assert_eq!(receive(&*queues, &again).await, "one");
}

/// Nobody reads another one's instructions.
pub async fn every_session_has_its_own_queue(under_test: &dyn QueuesUnderTest) {
    let queues = under_test.fresh().await.0;
    let mine = queues.create(&session()).await.expect("create");
    let other = queues.create(&session()).await.expect("create");
    send(&*queues, &mine, "mine").await;
    send(&*queues, &other, "other").await;
    assert_eq!(receive(&*queues, &other).await, "other");
    assert_eq!(receive(&*queues, &mine).await, "mine");
}

/// For the sweep: by its session, at the address where it was made; and the dead letters are no session's.
pub async fn a_queue_with_a_message_is_listed(under_test: &dyn QueuesUnderTest) {
    let (queues, dead) = under_test.fresh().await;
    let session = session();
    let address = queues.create(&session).await.expect("create");
    send(&*queues, &address, "one").await;
    send(&*queues, &dead, "dead-letter").await;
    let found = eventually(async || {
        let listed = queues.list().await.expect("list");
        let found = listed.iter().find(|queue| queue.session == session);
        found
            .cloned()
            .ok_or(format!("{} others are listed", listed.len()))
    })
    .await;
    assert_eq!(found.address, address);
    let listed = queues.list().await.expect("list");
    assert!(listed.iter().all(|queue| queue.address != dead));
}

/// Until somebody makes it again.
pub async fn a_queue_that_is_removed_is_gone_with_its_messages(under_test: &dyn QueuesUnderTest) {
    let queues = under_test.fresh().await.0;
    let session = session();
    let address = queues.create(&session).await.expect("create");
    send(&*queues, &address, "one").await;
    queues.remove(&address).await.expect("remove");
    eventually(async || {
        let listed = queues.list().await.expect("list");
        if listed.iter().all(|queue| queue.session != session) {
            Ok(())
        } else {
            Err("it is listed still")
        }
    })
    .await;
    queues.remove(&address).await.expect("remove it again");
    // SQS wants a minute between the two.
    let again = eventually(async || queues.create(&session).await).await;
    let left = queues.open(&again);
    let left = left.receive(Duration::ZERO, MINUTE).await.expect("receive");
    assert_eq!(left, None);
    // The same message once more is no duplicate of one that is gone.
    send(&*queues, &again, "one").await;
    assert_eq!(receive(&*queues, &again).await, "one");
}

/// It is as wanted.
pub async fn a_queue_that_is_not_there_is_removed(under_test: &dyn QueuesUnderTest) {
    let queues = under_test.fresh().await.0;
    let address = queues.create(&session()).await.expect("create");
    let known = session();
    let missing = match address.rsplit_once('/') {
        Some((beside, _)) => format!("{beside}/{QUEUE_PREFIX}{known}.fifo"),
        None => format!("{QUEUE_PREFIX}{known}.fifo"),
    };
    queues.remove(&missing).await.expect("remove");
}

/// An address that somebody mistyped must not cost the intake or the dead letters.
pub async fn what_is_no_queue_of_a_session_is_never_removed(under_test: &dyn QueuesUnderTest) {
    let (queues, dead) = under_test.fresh().await;
    send(&*queues, &dead, "dead-letter").await;
    for address in [dead.as_str(), "webordinary-intake.fifo", ""] {
        let refused = queues.remove(address).await.expect_err("no session's");
        assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
    }
    assert_eq!(receive(&*queues, &dead).await, "dead-letter");
}

/// Before it is emptied and removed: neither the dead letters, nor one that is not there, nor one of another deployment.
pub async fn a_queue_is_known_for_ours(under_test: &dyn QueuesUnderTest) {
    let (queues, dead) = under_test.fresh().await;
    let address = queues.create(&session()).await.expect("create");
    send(&*queues, &address, "one").await;
    assert!(queues.is_ours(&address).await.expect("look at ours"));
    assert!(
        !queues
            .is_ours(&dead)
            .await
            .expect("look at the dead letters")
    );
}

/// After ten deliveries.
pub async fn what_nobody_can_deal_with_goes_to_the_dead_letters(under_test: &dyn QueuesUnderTest) {
    let (queues, dead) = under_test.fresh().await;
    let address = queues.create(&session()).await.expect("create");
    send(&*queues, &address, "poison").await;
    let queue = queues.open(&address);
    for time in 1..=10 {
        let delivery = queue.receive(WAIT, MINUTE).await.expect("receive");
        let delivery = delivery.unwrap_or_else(|| panic!("delivery {time} must come"));
        assert_eq!(delivery.receive_count, time);
        let released = queue.extend(&delivery.handle, Duration::ZERO).await;
        assert_eq!(released.expect("release"), Lease::Held);
    }
    let last = queue
        .receive(Duration::ZERO, MINUTE)
        .await
        .expect("receive");
    assert_eq!(last, None);
    assert_eq!(receive(&*queues, &dead).await, "poison");
}

const MINUTE: Duration = Duration::from_mins(1);

/// How long a message that must come is waited for.
const WAIT: Duration = Duration::from_secs(20);

/// A session that nobody else in the account has.
fn session() -> SessionId {
    let random = (u128::from(random()) << 64) | u128::from(random());
    SessionId::new(&client("amelia"), random.to_be_bytes())
}

async fn send(queues: &dyn Queues, address: &str, body: &str) {
    let message = Outgoing {
        body: body.to_owned(),
        group: "one".to_owned(),
        deduplication_id: body.to_owned(),
        trace_parent: None,
    };
    queues.open(address).send(&message).await.expect("send");
}

/// Receives the next message of a queue, and deletes it.
async fn receive(queues: &dyn Queues, address: &str) -> String {
    let queue: std::sync::Arc<dyn Instructions> = queues.open(address);
    let delivery = queue
        .receive(WAIT, MINUTE)
        .await
        .expect("receive")
        .expect("a message must come");
    let deleted = queue.delete(&delivery.handle).await;
    assert_eq!(deleted.expect("delete"), Lease::Held);
    delivery.body
}
