//! The local queue and time, which here passes only when everybody waits for it.

use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use contract::Timestamp;
use platform::local::{Clock, LocalQueue, LocalStore, QueueSettings};
use platform::{DEDUPLICATION_WINDOW, Delivery, Depth, Instructions, Lease, Outgoing, RETENTION};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A queue whose clock is tokio's, which is paused: it jumps to the next deadline when nothing else is to be done.
struct Scene {
    folder: TempDir,
    queue: LocalQueue,
    begun: Instant,
}

impl Scene {
    fn begin() -> Self {
        Self::with(QueueSettings::default())
    }

    fn with(settings: QueueSettings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = Instant::now();
        let queue = open(&folder, begun).queue("queue", settings);
        Self {
            folder,
            queue,
            begun,
        }
    }

    /// What another process would have: its own connection.
    fn of_another_process(&self) -> LocalQueue {
        open(&self.folder, self.begun).queue("queue", QueueSettings::default())
    }

    async fn send(&self, group: &str, body: &str) -> bool {
        let message = Outgoing {
            body: body.to_owned(),
            group: group.to_owned(),
            deduplication_id: body.to_owned(),
            trace_parent: None,
        };
        !self.queue.send(&message).await.expect("send").duplicate
    }

    async fn receive(&self, wait: Duration, visibility: Duration) -> Option<Delivery> {
        self.queue.receive(wait, visibility).await.expect("receive")
    }
}

fn open(folder: &TempDir, begun: Instant) -> LocalStore {
    let dawn = Timestamp::from_unix_ms(1_795_339_800_000);
    let clock: Clock = Arc::new(move || dawn.plus(begun.elapsed()));
    LocalStore::open_with_clock(&folder.path().join("store"), clock).expect("open")
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_same_process_arrives_at_once() {
    let scene = Scene::begin();
    let (received, _) = tokio::join!(scene.receive(20 * SECOND, SECOND), async {
        // Long enough for the receiver to have looked and to wait, and not a multiple of how often it looks.
        tokio::time::sleep(Duration::from_millis(1_234)).await;
        scene.send("one", "a").await
    });
    assert_eq!(received.map(|delivery| delivery.body).as_deref(), Some("a"));
    assert_eq!(scene.begun.elapsed().as_millis(), 1_234);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_process_arrives_within_a_second_even_where_nobody_tells_of_it() {
    let scene = Scene::begin();
    let other = scene.of_another_process();
    let (received, _) = tokio::join!(other.receive(20 * SECOND, SECOND), async {
        tokio::time::sleep(Duration::from_millis(1_234)).await;
        scene.send("one", "a").await
    });
    assert_eq!(
        received
            .expect("receive")
            .map(|delivery| delivery.body)
            .as_deref(),
        Some("a")
    );
    let took = scene.begun.elapsed();
    assert!(
        took <= Duration::from_millis(2_240),
        "it came after {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_back_to_the_millisecond() {
    let scene = Scene::begin();
    scene.send("one", "a").await;
    scene
        .receive(Duration::ZERO, Duration::from_millis(4_321))
        .await
        .expect("sent");
    let again = scene
        .receive(20 * SECOND, SECOND)
        .await
        .expect("its timeout is over");
    assert_eq!(again.receive_count, 2);
    assert_eq!(scene.begun.elapsed().as_millis(), 4_321);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_waits_no_longer_than_it_was_told() {
    let scene = Scene::begin();
    scene.send("one", "a").await;
    scene
        .receive(Duration::ZERO, 60 * SECOND)
        .await
        .expect("sent");
    assert!(
        scene
            .receive(Duration::from_millis(4_321), SECOND)
            .await
            .is_none()
    );
    assert_eq!(scene.begun.elapsed().as_millis(), 4_321);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_timeout_is_noticed_by_whoever_waits_for_the_longer_one() {
    let scene = Scene::begin();
    scene.send("one", "a").await;
    let held = scene
        .receive(Duration::ZERO, 60 * SECOND)
        .await
        .expect("sent");
    let (again, _) = tokio::join!(scene.receive(120 * SECOND, SECOND), async {
        tokio::time::sleep(SECOND).await;
        scene
            .queue
            .extend(&held.handle, 2 * SECOND)
            .await
            .expect("extend")
    });
    again.expect("its timeout is over");
    assert_eq!(scene.begun.elapsed().as_millis(), 3_000);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_a_message_again_after_five_minutes_and_not_before() {
    let scene = Scene::begin();
    assert!(scene.send("one", "a").await);
    tokio::time::sleep_until(scene.begun + DEDUPLICATION_WINDOW - MILLISECOND).await;
    assert!(
        !scene.send("one", "a").await,
        "and a duplicate does not begin the window anew"
    );
    tokio::time::sleep(MILLISECOND).await;
    assert!(scene.send("one", "a").await);
    assert_eq!(
        scene.queue.depth().await.expect("depth"),
        Depth {
            waiting: 2,
            in_flight: 0
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_wants_is_kept_for_fourteen_days() {
    let scene = Scene::begin();
    scene.send("one", "a").await;
    tokio::time::sleep(SECOND).await;
    scene.send("one", "b").await;
    tokio::time::sleep_until(scene.begun + RETENTION - SECOND).await;
    let first = scene
        .receive(Duration::ZERO, Duration::ZERO)
        .await
        .expect("a second is left");
    assert_eq!(first.body, "a");
    tokio::time::sleep(SECOND).await;
    assert_eq!(
        scene.queue.depth().await.expect("depth"),
        Depth {
            waiting: 1,
            in_flight: 0
        }
    );
    let second = scene
        .receive(Duration::ZERO, 10 * SECOND)
        .await
        .expect("it was sent a second later");
    assert_eq!(second.body, "b");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(
        scene.queue.delete(&second.handle).await.expect("delete"),
        Lease::Held,
        "it is not taken from a holder"
    );
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_was_given_up_does_not_count() {
    let settings = QueueSettings {
        max_receive_count: 1,
        dead: Some("dead".to_owned()),
    };
    let scene = Scene::with(settings);
    scene.send("one", "a").await;
    let other_process = Connection::open(scene.folder.path().join("store")).expect("open");
    for _ in 0..5 {
        // The receive finds the message, cannot take it yet, and takes it when its caller has gone.
        other_process
            .execute_batch("BEGIN IMMEDIATE")
            .expect("begin");
        poll_once(&mut pin!(scene.queue.receive(20 * SECOND, 3_600 * SECOND))).await;
        other_process.execute_batch("COMMIT").expect("commit");
    }
    tokio::time::sleep(SECOND).await;
    let received = scene
        .receive(20 * SECOND, 60 * SECOND)
        .await
        .expect("nobody has it");
    assert_eq!(received.receive_count, 1);
    assert!(received.first_received_at.since(received.sent_at) >= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_no_longer_polled_keeps_nobody_waiting() {
    let scene = Scene::begin();
    let mut forgotten = pin!(scene.queue.receive(20 * SECOND, SECOND));
    poll_once(&mut forgotten).await;
    for body in ["a", "b", "c"] {
        assert!(scene.send("one", body).await);
    }
    scene.receive(20 * SECOND, SECOND).await.expect("sent");
}

/// Begins something and leaves it.
async fn poll_once<T: Debug>(future: &mut Pin<&mut impl Future<Output = T>>) {
    poll_fn(|context| {
        if let Poll::Ready(done) = future.as_mut().poll(context) {
            panic!("it was meant to be left in the middle, but is done: {done:?}");
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_gives_no_message_to_two_and_withholds_none_that_was_released() {
    let folder = tempfile::tempdir().expect("a folder");
    let time = Arc::new(AtomicI64::new(1_795_339_800_000));
    let clock: Clock = {
        let time = Arc::clone(&time);
        Arc::new(move || Timestamp::from_unix_ms(time.load(Ordering::SeqCst)))
    };
    let store = LocalStore::open_with_clock(&folder.path().join("store"), clock).expect("open");
    let queue = store.queue("queue", QueueSettings::default());
    let message = Outgoing {
        body: "a".to_owned(),
        group: "one".to_owned(),
        deduplication_id: "a".to_owned(),
        trace_parent: None,
    };
    queue.send(&message).await.expect("send");

    let receive = async || {
        queue
            .receive(Duration::ZERO, 60 * SECOND)
            .await
            .expect("receive")
    };
    let first = receive().await.expect("sent");
    time.fetch_sub(3_600_000, Ordering::SeqCst);
    assert_eq!(receive().await, None, "it is still in flight");
    assert_eq!(
        queue
            .extend(&first.handle, Duration::ZERO)
            .await
            .expect("release"),
        Lease::Held
    );
    time.fetch_sub(3_600_000, Ordering::SeqCst);
    let second = receive().await.expect("released");
    assert_eq!(
        queue.delete(&first.handle).await.expect("delete"),
        Lease::Lost
    );
    assert_eq!(
        queue.delete(&second.handle).await.expect("delete"),
        Lease::Held
    );
}
