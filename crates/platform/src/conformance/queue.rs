//! What [`crate::Instructions`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::limits::MESSAGE_MAX_BYTES;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{QueueUnderTest, eventually};
use crate::{Delivery, Depth, Instructions, Lease, Outgoing, PortError, Sent, VISIBILITY_MAX};

/// Turns each case into a test.
#[macro_export]
macro_rules! queue_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { queue, $under_test,
            a_message_is_received_as_it_was_sent
            a_message_carries_its_trace
            an_empty_queue_answers_when_the_wait_is_over
            a_waiting_receiver_gets_a_message_when_it_is_sent
            a_message_is_kept_until_it_is_deleted
            a_message_in_flight_is_not_delivered_again
            a_stale_handle_deletes_nothing
            a_stale_handle_extends_nothing
            an_expired_handle_deletes_nothing
            an_expired_handle_extends_nothing
            a_deleted_message_is_neither_extended_nor_deleted
            release_makes_it_visible_at_once
            a_released_delivery_is_over
            an_extended_delivery_outlives_its_first_timeout
            a_shortened_delivery_comes_back_sooner
            order_holds_within_a_group
            order_holds_when_the_first_comes_back
            a_group_in_flight_delivers_nothing_else
            another_group_is_not_blocked
            a_deleted_message_unblocks_its_group
            a_group_is_in_flight_once_however_many_receive
            messages_are_shared_among_receivers_without_a_double
            a_duplicate_is_dropped
            a_duplicate_is_dropped_for_five_minutes
            a_duplicate_of_another_group_is_a_message
            a_message_that_was_received_too_often_is_a_dead_letter
            a_dead_letter_unblocks_its_group
            a_receive_that_is_given_up_loses_nothing
            a_message_of_the_largest_size_arrives
            a_message_that_no_queue_takes_is_refused
            a_timeout_beyond_the_maximum_is_refused
            a_message_is_in_one_queue_only
            what_waits_and_what_is_in_flight_is_counted
        }
    };
}

/// The wait where a message must come: long, because it ends when it comes.
const SOON: Duration = Duration::from_secs(20);

/// The wait where no message may come: short, because it always passes in full.
const QUIET: Duration = Duration::from_secs(1);

/// The visibility timeout of a delivery that must not come back within a test.
const LONG: Duration = Duration::from_mins(10);

/// The visibility timeout of a delivery that is to come back.
const SHORT: Duration = Duration::from_secs(1);

/// Body, group, id and counts.
pub async fn a_message_is_received_as_it_was_sent(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let body = "{\"text\": \"Grüße, 世界 \u{1f600}\\n\t'\\\"<&>\"}";
    let sent = send(&queue, "one", body).await;
    assert!(!sent.duplicate);
    let received = receive(&queue, LONG).await;
    assert_eq!(received.body, body);
    assert_eq!(received.group, "one");
    assert_eq!(received.message_id, sent.message_id);
    assert_eq!(received.receive_count, 1);
    assert!(received.first_received_at >= received.sent_at);
}

/// To whoever receives it, and to the dead letters.
pub async fn a_message_carries_its_trace(under_test: &dyn QueueUnderTest) {
    let (queue, dead) = under_test.fresh_with_dead(1).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = Outgoing {
        trace_parent: Some(trace.to_owned()),
        ..outgoing("one", "a")
    };
    queue.send(&traced).await.expect("send");
    send(&queue, "two", "b").await;
    for _ in 0..2 {
        let received = receive(&queue, LONG).await;
        let expected = (received.body == "a").then_some(trace);
        assert_eq!(received.trace_parent.as_deref(), expected);
        if received.body == "a" {
            let released = queue.extend(&received.handle, Duration::ZERO).await;
            assert_eq!(released.expect("release"), Lease::Held);
        } else {
            delete(&queue, &received).await;
        }
    }
    nothing_comes(&queue).await;
    let letter = receive(&dead, LONG).await;
    assert_eq!(letter.trace_parent.as_deref(), Some(trace));
}

/// Not at once and not with an error.
pub async fn an_empty_queue_answers_when_the_wait_is_over(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let begun = Instant::now();
    assert_eq!(queue.receive(QUIET, LONG).await.expect("receive"), None);
    assert!(
        begun.elapsed() >= QUIET,
        "it answered after {:?}",
        begun.elapsed()
    );
}

/// And not when the wait is over.
pub async fn a_waiting_receiver_gets_a_message_when_it_is_sent(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let begun = Instant::now();
    let (received, _) = tokio::join!(receive(&queue, LONG), async {
        // The other future is polled first, so that it waits by now.
        tokio::task::yield_now().await;
        send(&queue, "one", "a").await
    });
    assert_eq!(received.body, "a");
    assert!(begun.elapsed() < SOON / 2, "it took {:?}", begun.elapsed());
}

/// It comes back when its timeout is over, as often as need be.
pub async fn a_message_is_kept_until_it_is_deleted(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let sent = send(&queue, "one", "a").await;
    let first = receive(&queue, SHORT).await;
    let second = receive(&queue, LONG).await;
    assert_eq!(
        (&second.body, &second.message_id),
        (&first.body, &sent.message_id)
    );
    assert_eq!((first.receive_count, second.receive_count), (1, 2));
    assert_eq!(second.first_received_at, first.first_received_at);
    assert_ne!(second.handle, first.handle);
    delete(&queue, &second).await;
    nothing_comes(&queue).await;
}

/// Until its timeout is over.
pub async fn a_message_in_flight_is_not_delivered_again(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    receive(&queue, LONG).await;
    nothing_comes(&queue).await;
}

/// Stale: the message was delivered again.
pub async fn a_stale_handle_deletes_nothing(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let first = receive(&queue, SHORT).await;
    let second = receive(&queue, LONG).await;
    assert_eq!(
        queue.delete(&first.handle).await.expect("delete"),
        Lease::Lost
    );
    assert_eq!(
        queue
            .extend(&second.handle, Duration::ZERO)
            .await
            .expect("release"),
        Lease::Held
    );
    assert_eq!(receive(&queue, LONG).await.body, "a");
}

/// Not even to release it.
pub async fn a_stale_handle_extends_nothing(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let first = receive(&queue, SHORT).await;
    let second = receive(&queue, LONG).await;
    for visibility in [Duration::ZERO, SHORT, LONG] {
        assert_eq!(
            queue
                .extend(&first.handle, visibility)
                .await
                .expect("extend"),
            Lease::Lost
        );
    }
    nothing_comes(&queue).await;
    delete(&queue, &second).await;
}

/// Expired: nobody else has it yet.
pub async fn an_expired_handle_deletes_nothing(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let expired = receive(&queue, SHORT).await;
    pass(under_test, SHORT * 2).await;
    assert_eq!(
        queue.delete(&expired.handle).await.expect("delete"),
        Lease::Lost
    );
    assert_eq!(receive(&queue, LONG).await.body, "a");
}

/// Who comes too late must not go on, even if nobody noticed.
pub async fn an_expired_handle_extends_nothing(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let expired = receive(&queue, SHORT).await;
    pass(under_test, SHORT * 2).await;
    assert_eq!(
        queue.extend(&expired.handle, LONG).await.expect("extend"),
        Lease::Lost
    );
    assert_eq!(receive(&queue, LONG).await.body, "a");
}

/// `delete` may be repeated.
pub async fn a_deleted_message_is_neither_extended_nor_deleted(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let received = receive(&queue, LONG).await;
    delete(&queue, &received).await;
    assert_eq!(
        queue.delete(&received.handle).await.expect("delete again"),
        Lease::Lost
    );
    assert_eq!(
        queue
            .extend(&received.handle, Duration::ZERO)
            .await
            .expect("extend"),
        Lease::Lost
    );
    nothing_comes(&queue).await;
}

/// To whoever waits already.
pub async fn release_makes_it_visible_at_once(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let first = receive(&queue, LONG).await;
    let begun = Instant::now();
    let (second, released) = tokio::join!(receive(&queue, LONG), async {
        tokio::task::yield_now().await;
        queue
            .extend(&first.handle, Duration::ZERO)
            .await
            .expect("release")
    });
    assert_eq!(released, Lease::Held);
    assert_eq!((second.body.as_str(), second.receive_count), ("a", 2));
    assert!(begun.elapsed() < SOON / 2, "it took {:?}", begun.elapsed());
}

/// For who released it.
pub async fn a_released_delivery_is_over(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let released = receive(&queue, LONG).await;
    assert_eq!(
        queue
            .extend(&released.handle, Duration::ZERO)
            .await
            .expect("release"),
        Lease::Held
    );
    assert_eq!(
        queue.extend(&released.handle, LONG).await.expect("extend"),
        Lease::Lost
    );
    assert_eq!(
        queue.delete(&released.handle).await.expect("delete"),
        Lease::Lost
    );
    assert_eq!(receive(&queue, LONG).await.body, "a");
}

/// With the same handle.
pub async fn an_extended_delivery_outlives_its_first_timeout(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let received = receive(&queue, SHORT).await;
    assert_eq!(
        queue.extend(&received.handle, LONG).await.expect("extend"),
        Lease::Held
    );
    pass(under_test, SHORT * 2).await;
    nothing_comes(&queue).await;
    assert_eq!(
        queue
            .extend(&received.handle, LONG)
            .await
            .expect("extend again"),
        Lease::Held
    );
    delete(&queue, &received).await;
}

/// The timeout counts from the call, not from the delivery.
pub async fn a_shortened_delivery_comes_back_sooner(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let received = receive(&queue, LONG).await;
    assert_eq!(
        queue
            .extend(&received.handle, SHORT)
            .await
            .expect("shorten"),
        Lease::Held
    );
    assert_eq!(receive(&queue, LONG).await.body, "a");
}

/// A dozen messages, one after the other.
pub async fn order_holds_within_a_group(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let sent: Vec<String> = (1..=12).map(|number| format!("number {number}")).collect();
    for body in &sent {
        send(&queue, "one", body).await;
    }
    let mut received = Vec::new();
    for _ in &sent {
        let next = receive(&queue, LONG).await;
        delete(&queue, &next).await;
        received.push(next.body);
    }
    assert_eq!(received, sent);
    nothing_comes(&queue).await;
}

/// Whether it was released or its timeout was over: the next one does not overtake it.
pub async fn order_holds_when_the_first_comes_back(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    send(&queue, "one", "b").await;
    let released = receive(&queue, LONG).await;
    assert_eq!(
        queue
            .extend(&released.handle, Duration::ZERO)
            .await
            .expect("release"),
        Lease::Held
    );
    assert_eq!(receive(&queue, SHORT).await.body, "a");
    let again = receive(&queue, LONG).await;
    assert_eq!((again.body.as_str(), again.receive_count), ("a", 3));
    delete(&queue, &again).await;
    assert_eq!(receive(&queue, LONG).await.body, "b");
}

/// Neither what was sent before nor what is sent meanwhile.
pub async fn a_group_in_flight_delivers_nothing_else(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    send(&queue, "one", "b").await;
    receive(&queue, LONG).await;
    send(&queue, "one", "c").await;
    nothing_comes(&queue).await;
}

/// That is how a `cancel` overtakes what it cancels.
pub async fn another_group_is_not_blocked(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    for body in ["a", "b", "c"] {
        send(&queue, "session", body).await;
    }
    assert_eq!(receive(&queue, LONG).await.body, "a");
    send(&queue, "control", "cancel b").await;
    assert_eq!(receive(&queue, LONG).await.body, "cancel b");
    nothing_comes(&queue).await;
}

/// For whoever waits already.
pub async fn a_deleted_message_unblocks_its_group(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    send(&queue, "one", "b").await;
    let first = receive(&queue, LONG).await;
    let begun = Instant::now();
    let (next, ()) = tokio::join!(receive(&queue, LONG), async {
        tokio::task::yield_now().await;
        delete(&queue, &first).await;
    });
    assert_eq!(next.body, "b");
    assert!(begun.elapsed() < SOON / 2, "it took {:?}", begun.elapsed());
}

/// And order holds across the receivers.
pub async fn a_group_is_in_flight_once_however_many_receive(under_test: &dyn QueueUnderTest) {
    const MESSAGES: usize = 24;
    let queue = under_test.fresh().await;
    for number in 0..MESSAGES {
        send(&queue, "one", &number.to_string()).await;
    }
    let in_flight = Arc::new(AtomicBool::new(false));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut receivers = JoinSet::new();
    for _ in 0..4 {
        let (queue, in_flight, order) = (
            Arc::clone(&queue),
            Arc::clone(&in_flight),
            Arc::clone(&order),
        );
        receivers.spawn(async move {
            while let Some(received) = queue.receive(QUIET, LONG).await.expect("receive") {
                assert!(
                    !in_flight.swap(true, Ordering::SeqCst),
                    "two of one group were in flight"
                );
                tokio::task::yield_now().await;
                order
                    .lock()
                    .expect("no panic while locked")
                    .push(received.body.clone());
                in_flight.store(false, Ordering::SeqCst);
                delete(&queue, &received).await;
            }
        });
    }
    receivers.join_all().await;
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(*order.lock().expect("all receivers are done"), expected);
}

/// Each message is received by one of them, once.
pub async fn messages_are_shared_among_receivers_without_a_double(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let sent: BTreeSet<String> = (0..30).map(|number| format!("number {number}")).collect();
    let mut receivers = JoinSet::new();
    for _ in 0..5 {
        let queue = Arc::clone(&queue);
        receivers.spawn(async move {
            let mut mine = Vec::new();
            while let Some(received) = queue.receive(QUIET, LONG).await.expect("receive") {
                delete(&queue, &received).await;
                mine.push(received.body);
            }
            mine
        });
    }
    for (group, body) in sent.iter().enumerate() {
        send(&queue, &format!("group-{}", group % 10), body).await;
    }
    let received: Vec<String> = receivers.join_all().await.into_iter().flatten().collect();
    assert_eq!(received.len(), sent.len());
    assert_eq!(received.into_iter().collect::<BTreeSet<_>>(), sent);
}

/// While the first waits, and even if it says something else.
pub async fn a_duplicate_is_dropped(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let first = outgoing("one", "a");
    queue.send(&first).await.expect("send");
    queue.send(&first).await.expect("send again");
    queue
        .send(&Outgoing {
            body: "other words".to_owned(),
            ..first
        })
        .await
        .expect("send other words");
    let received = receive(&queue, LONG).await;
    assert_eq!(received.body, "a");
    delete(&queue, &received).await;
    nothing_comes(&queue).await;
}

/// Even when the first was received, and even when it was deleted.
pub async fn a_duplicate_is_dropped_for_five_minutes(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let message = outgoing("one", "a");
    queue.send(&message).await.expect("send");
    let received = receive(&queue, LONG).await;
    queue.send(&message).await.expect("send while in flight");
    delete(&queue, &received).await;
    queue
        .send(&message)
        .await
        .expect("send after it was deleted");
    nothing_comes(&queue).await;
}

/// `DeduplicationScope=messageGroup`.
pub async fn a_duplicate_of_another_group_is_a_message(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let message = outgoing("one", "a");
    queue.send(&message).await.expect("send");
    queue
        .send(&Outgoing {
            group: "two".to_owned(),
            ..message
        })
        .await
        .expect("send to another group");
    let groups = BTreeSet::from([
        receive(&queue, LONG).await.group,
        receive(&queue, LONG).await.group,
    ]);
    assert_eq!(groups, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
}

/// On the receive that would be one too many.
pub async fn a_message_that_was_received_too_often_is_a_dead_letter(
    under_test: &dyn QueueUnderTest,
) {
    let (queue, dead) = under_test.fresh_with_dead(2).await;
    let sent = send(&queue, "one", "a").await;
    for count in 1..=2 {
        let received = receive(&queue, LONG).await;
        assert_eq!(
            (received.body.as_str(), received.receive_count),
            ("a", count)
        );
        assert_eq!(
            queue
                .extend(&received.handle, Duration::ZERO)
                .await
                .expect("release"),
            Lease::Held
        );
    }
    nothing_comes(&queue).await;
    let letter = receive(&dead, LONG).await;
    assert_eq!((letter.body.as_str(), letter.group.as_str()), ("a", "one"));
    assert_eq!(letter.message_id, sent.message_id);
    delete(&dead, &letter).await;
    nothing_comes(&dead).await;
}

/// By the very receive that moves it.
pub async fn a_dead_letter_unblocks_its_group(under_test: &dyn QueueUnderTest) {
    let (queue, dead) = under_test.fresh_with_dead(1).await;
    for body in ["a", "b", "c"] {
        send(&queue, "one", body).await;
    }
    for body in ["a", "b"] {
        let received = receive(&queue, LONG).await;
        assert_eq!((received.body.as_str(), received.receive_count), (body, 1));
        assert_eq!(
            queue
                .extend(&received.handle, Duration::ZERO)
                .await
                .expect("release"),
            Lease::Held
        );
    }
    let last = receive(&queue, LONG).await;
    assert_eq!(last.body, "c");
    delete(&queue, &last).await;
    for body in ["a", "b"] {
        let letter = receive(&dead, LONG).await;
        assert_eq!(letter.body, body);
        delete(&dead, &letter).await;
    }
}

/// Whenever that is: at the latest after its timeout the message is there for somebody else.
pub async fn a_receive_that_is_given_up_loses_nothing(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    for microseconds in [0, 10, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400] {
        let patience = Duration::from_micros(microseconds);
        if let Ok(received) = tokio::time::timeout(patience, receive(&queue, SHORT)).await {
            assert_eq!(received.body, "a");
        }
    }
    let received = receive(&queue, LONG).await;
    assert_eq!(received.body, "a");
    delete(&queue, &received).await;
    nothing_comes(&queue).await;
}

/// To the byte.
pub async fn a_message_of_the_largest_size_arrives(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let body = "ü".repeat(MESSAGE_MAX_BYTES / 2);
    queue
        .send(&Outgoing {
            body: body.clone(),
            ..outgoing("one", "large")
        })
        .await
        .expect("send");
    assert!(
        receive(&queue, LONG).await.body == body,
        "the body is another"
    );
}

/// Before it is sent, and for good.
pub async fn a_message_that_no_queue_takes_is_refused(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    let good = || outgoing("one", "a");
    let bad = [
        Outgoing {
            body: String::new(),
            ..good()
        },
        Outgoing {
            body: "x".repeat(MESSAGE_MAX_BYTES + 1),
            ..good()
        },
        Outgoing {
            body: "a\u{0}b".to_owned(),
            ..good()
        },
        Outgoing {
            body: "a\u{ffff}b".to_owned(),
            ..good()
        },
        Outgoing {
            group: String::new(),
            ..good()
        },
        Outgoing {
            group: "g".repeat(129),
            ..good()
        },
        Outgoing {
            group: "a b".to_owned(),
            ..good()
        },
        Outgoing {
            deduplication_id: String::new(),
            ..good()
        },
        Outgoing {
            deduplication_id: "ü".to_owned(),
            ..good()
        },
        Outgoing {
            trace_parent: Some("a trace".to_owned()),
            ..good()
        },
    ];
    for message in bad {
        let refused = queue.send(&message).await.expect_err("no queue takes it");
        assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
        assert!(!refused.is_transient());
    }
    nothing_comes(&queue).await;
}

/// Twelve hours, whether at once or bit by bit.
pub async fn a_timeout_beyond_the_maximum_is_refused(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    send(&queue, "one", "a").await;
    let beyond = VISIBILITY_MAX + Duration::from_secs(1);
    let refused = queue.receive(QUIET, beyond).await.expect_err("too long");
    assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
    let received = receive(&queue, LONG).await;
    let refused = queue
        .extend(&received.handle, beyond)
        .await
        .expect_err("too long");
    assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
    delete(&queue, &received).await;
}

/// And so is what was seen of it.
pub async fn a_message_is_in_one_queue_only(under_test: &dyn QueueUnderTest) {
    let (one, other) = (under_test.fresh().await, under_test.fresh().await);
    let message = outgoing("one", "a");
    one.send(&message).await.expect("send");
    nothing_comes(&other).await;
    other.send(&message).await.expect("send to the other queue");
    assert_eq!(receive(&other, LONG).await.body, "a");
    assert_eq!(receive(&one, LONG).await.body, "a");
}

/// Sooner or later.
pub async fn what_waits_and_what_is_in_flight_is_counted(under_test: &dyn QueueUnderTest) {
    let queue = under_test.fresh().await;
    comes_to(
        &queue,
        Depth {
            waiting: 0,
            in_flight: 0,
        },
    )
    .await;
    for (group, body) in [("one", "a"), ("one", "b"), ("two", "c")] {
        send(&queue, group, body).await;
    }
    comes_to(
        &queue,
        Depth {
            waiting: 3,
            in_flight: 0,
        },
    )
    .await;
    let first = receive(&queue, LONG).await;
    let second = receive(&queue, LONG).await;
    comes_to(
        &queue,
        Depth {
            waiting: 1,
            in_flight: 2,
        },
    )
    .await;
    delete(&queue, &first).await;
    assert_eq!(
        queue
            .extend(&second.handle, Duration::ZERO)
            .await
            .expect("release"),
        Lease::Held
    );
    comes_to(
        &queue,
        Depth {
            waiting: 2,
            in_flight: 0,
        },
    )
    .await;
}

/// A message whose body is its deduplication id.
fn outgoing(group: &str, body: &str) -> Outgoing {
    let mut deduplication_id: String = body.chars().filter(char::is_ascii_alphanumeric).collect();
    deduplication_id.truncate(128);
    Outgoing {
        body: body.to_owned(),
        group: group.to_owned(),
        deduplication_id,
        trace_parent: None,
    }
}

async fn send(queue: &Arc<dyn Instructions>, group: &str, body: &str) -> Sent {
    queue.send(&outgoing(group, body)).await.expect("send")
}

/// The message that must come.
async fn receive(queue: &Arc<dyn Instructions>, visibility: Duration) -> Delivery {
    queue
        .receive(SOON, visibility)
        .await
        .expect("receive")
        .expect("a message must come")
}

async fn nothing_comes(queue: &Arc<dyn Instructions>) {
    let received = queue.receive(QUIET, LONG).await.expect("receive");
    assert!(received.is_none(), "{received:?} came");
}

async fn delete(queue: &Arc<dyn Instructions>, delivery: &Delivery) {
    assert_eq!(
        queue.delete(&delivery.handle).await.expect("delete"),
        Lease::Held
    );
}

async fn comes_to(queue: &Arc<dyn Instructions>, expected: Depth) {
    eventually(async || {
        let depth = queue.depth().await.expect("depth");
        if depth == expected {
            Ok(())
        } else {
            Err(format!("{depth:?}, not {expected:?}"))
        }
    })
    .await;
}

/// Waits until `duration` has passed by the clock of the queues: until a message of another queue, which was received
/// now for that long, comes back.
async fn pass(under_test: &dyn QueueUnderTest, duration: Duration) {
    let hourglass = under_test.fresh().await;
    send(&hourglass, "one", "sand").await;
    receive(&hourglass, duration).await;
    receive(&hourglass, LONG).await;
}
