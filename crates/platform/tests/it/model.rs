//! The local queue against a model of a FIFO queue that a reader can check in a minute.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use contract::Timestamp;
use platform::local::{Clock, LocalQueue, LocalStore, QueueSettings};
use platform::{
    DEDUPLICATION_WINDOW, DeliveryHandle, Depth, Instructions, Lease, Outgoing, PortError,
    RETENTION, VISIBILITY_MAX,
};
use proptest::prelude::*;
use rusqlite::Connection;

const MAX_RECEIVE_COUNT: u32 = 3;

/// Something that happens to a queue and its dead letters.
#[derive(Debug, Clone)]
enum Step {
    Send {
        group: u8,
        deduplication: u8,
    },
    Receive {
        from: Which,
        visibility: Duration,
    },
    Extend {
        delivery: prop::sample::Index,
        visibility: Duration,
    },
    Delete {
        delivery: prop::sample::Index,
    },
    Pass(Duration),
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Queue,
    Dead,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let visibility = || {
        prop_oneof![
            2 => Just(Duration::ZERO),
            1 => Just(Duration::from_micros(1)),
            6 => (1_u64..5_000).prop_map(Duration::from_millis),
            4 => Just(Duration::from_mins(1)),
            1 => Just(VISIBILITY_MAX),
            1 => Just(VISIBILITY_MAX + Duration::from_millis(1)),
        ]
    };
    let which = || prop_oneof![5 => Just(Which::Queue), 1 => Just(Which::Dead)];
    let step = prop_oneof![
        6 => (0_u8..3, 0_u8..12).prop_map(|(group, deduplication)| Step::Send { group, deduplication }),
        8 => (which(), visibility()).prop_map(|(from, visibility)| Step::Receive { from, visibility }),
        4 => (any::<prop::sample::Index>(), visibility())
            .prop_map(|(delivery, visibility)| Step::Extend { delivery, visibility }),
        4 => any::<prop::sample::Index>().prop_map(|delivery| Step::Delete { delivery }),
        4 => (1_u64..5_000).prop_map(|milliseconds| Step::Pass(Duration::from_millis(milliseconds))),
        1 => Just(Step::Pass(DEDUPLICATION_WINDOW / 2)),
        1 => Just(Step::Pass(VISIBILITY_MAX / 2)),
        1 => Just(Step::Pass(RETENTION / 3)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn the_queue_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut pair = Pair::begin();
            for step in steps {
                pair.take(step).await;
            }
        });
    }
}

/// The queue and the model, side by side.
struct Pair {
    time: Arc<AtomicI64>,
    path: PathBuf,
    inspector: Connection,
    queue: LocalQueue,
    dead: LocalQueue,
    model: Model,
    deliveries: Vec<(Which, DeliveryHandle, Handle)>,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn begin() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let time = Arc::new(AtomicI64::new(1_795_339_800_000));
        let (queue, dead) = open(&path, &time);
        let inspector = Connection::open(&path).expect("open");
        let (model, deliveries) = (Model::default(), Vec::new());
        Self {
            time,
            path,
            inspector,
            queue,
            dead,
            model,
            deliveries,
            _folder: folder,
        }
    }

    async fn take(&mut self, step: Step) {
        let now = Timestamp::from_unix_ms(self.time.load(Ordering::SeqCst));
        match step {
            Step::Send {
                group,
                deduplication,
            } => self.send(now, group, deduplication).await,
            Step::Receive { from, visibility } => self.receive(now, from, visibility).await,
            Step::Extend {
                delivery,
                visibility,
            } if !self.deliveries.is_empty() => {
                let (which, handle, key) = delivery.get(&self.deliveries);
                let answer = self.queue(*which).extend(handle, visibility).await;
                assert_eq!(
                    answer.map_err(|error| refused(&error)),
                    self.model.extend(now, *which, *key, visibility)
                );
            }
            Step::Delete { delivery } if !self.deliveries.is_empty() => {
                let (which, handle, key) = delivery.get(&self.deliveries);
                let answer = self.queue(*which).delete(handle).await;
                assert_eq!(
                    answer.map_err(|error| refused(&error)),
                    Ok(self.model.delete(now, *which, *key))
                );
            }
            Step::Extend { .. } | Step::Delete { .. } => {}
            Step::Pass(duration) => {
                self.time
                    .store(now.plus(duration).unix_ms(), Ordering::SeqCst);
            }
            Step::Reopen => (self.queue, self.dead) = open(&self.path, &self.time),
        }
        let now = Timestamp::from_unix_ms(self.time.load(Ordering::SeqCst));
        for which in [Which::Queue, Which::Dead] {
            assert_eq!(
                self.queue(which).depth().await.expect("depth"),
                self.model.depth(now, which)
            );
        }
        self.heads_are_the_first_of_their_groups();
    }

    fn queue(&self, which: Which) -> &LocalQueue {
        match which {
            Which::Queue => &self.queue,
            Which::Dead => &self.dead,
        }
    }

    async fn send(&mut self, now: Timestamp, group: u8, deduplication: u8) {
        let body = format!("message {}", self.model.serial);
        let message = Outgoing {
            body,
            group: format!("group-{group}"),
            deduplication_id: format!("id-{deduplication}"),
            trace_parent: None,
        };
        let sent = self.queue.send(&message).await.expect("send");
        let duplicate_of = self.model.send(now, &message, &sent.message_id);
        assert_eq!(sent.duplicate, duplicate_of.is_some());
        if let Some(first) = duplicate_of {
            assert_eq!(sent.message_id, first);
        }
    }

    async fn receive(&mut self, now: Timestamp, from: Which, visibility: Duration) {
        let received = self
            .queue(from)
            .receive(Duration::ZERO, visibility)
            .await
            .map_err(|error| refused(&error));
        let expected = self.model.receive(now, from, visibility);
        let seen = received.as_ref().map(|delivery| {
            delivery.as_ref().map(|delivery| Seen {
                body: delivery.body.clone(),
                group: delivery.group.clone(),
                message_id: delivery.message_id.clone(),
                receive_count: delivery.receive_count,
                sent_at: delivery.sent_at,
                first_received_at: delivery.first_received_at,
            })
        });
        assert_eq!(
            seen,
            expected
                .as_ref()
                .map(|found| found.as_ref().map(|(seen, _)| seen.clone()))
                .map_err(|()| &())
        );
        if let (Ok(Some(delivery)), Ok(Some((_, key)))) = (received, expected) {
            self.deliveries.push((from, delivery.handle, key));
        }
    }

    /// What the schema says of the column `head`.
    fn heads_are_the_first_of_their_groups(&self) {
        let wrong: u32 = self
            .inspector
            .query_row(
                "SELECT count(*) FROM messages WHERE head <> (number =
                    (SELECT min(number) FROM messages AS each
                     WHERE each.queue = messages.queue AND each.group_id = messages.group_id))",
                [],
                |row| row.get(0),
            )
            .expect("valid SQL");
        assert_eq!(wrong, 0);
    }
}

fn open(path: &Path, time: &Arc<AtomicI64>) -> (LocalQueue, LocalQueue) {
    let time = Arc::clone(time);
    let clock: Clock = Arc::new(move || Timestamp::from_unix_ms(time.load(Ordering::SeqCst)));
    let store = LocalStore::open_with_clock(path, clock).expect("open");
    let settings = QueueSettings {
        max_receive_count: MAX_RECEIVE_COUNT,
        dead: Some("dead".to_owned()),
    };
    (
        store.queue("queue", settings),
        store.queue("dead", QueueSettings::default()),
    )
}

fn refused(error: &PortError) {
    assert!(matches!(error, PortError::Refused { .. }), "{error:?}");
}

/// A queue as a list.
#[derive(Default)]
struct Model {
    queue: Vec<Message>,
    dead: Vec<Message>,
    sent: Vec<(Timestamp, Outgoing, String)>,
    serial: u64,
}

#[derive(Debug, Clone)]
struct Message {
    seen: Seen,
    serial: u64,
    in_flight: Option<InFlight>,
    first_received_at: Option<Timestamp>,
    kept_until: Timestamp,
}

/// What a receiver sees.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    body: String,
    group: String,
    message_id: String,
    receive_count: u32,
    sent_at: Timestamp,
    first_received_at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    since: Timestamp,
    until: Timestamp,
}

/// Which message, and which of its deliveries.
type Handle = (u64, u32);

impl Message {
    fn is_in_flight(&self, now: Timestamp) -> bool {
        self.in_flight
            .is_some_and(|in_flight| in_flight.until > now)
    }
}

impl Model {
    fn messages(&mut self, which: Which) -> &mut Vec<Message> {
        match which {
            Which::Queue => &mut self.queue,
            Which::Dead => &mut self.dead,
        }
    }

    fn send(&mut self, now: Timestamp, message: &Outgoing, message_id: &str) -> Option<String> {
        let duplicate = self.sent.iter().find(|(at, first, _)| {
            at.plus(DEDUPLICATION_WINDOW) > now
                && first.group == message.group
                && first.deduplication_id == message.deduplication_id
        });
        if let Some((_, _, message_id)) = duplicate {
            return Some(message_id.clone());
        }
        self.sent
            .push((now, message.clone(), message_id.to_owned()));
        self.queue.push(Message {
            seen: Seen {
                body: message.body.clone(),
                group: message.group.clone(),
                message_id: message_id.to_owned(),
                receive_count: 0,
                sent_at: now,
                first_received_at: now,
            },
            serial: self.serial,
            in_flight: None,
            first_received_at: None,
            kept_until: now.plus(RETENTION),
        });
        self.serial += 1;
        None
    }

    fn receive(
        &mut self,
        now: Timestamp,
        from: Which,
        visibility: Duration,
    ) -> Result<Option<(Seen, Handle)>, ()> {
        if visibility > VISIBILITY_MAX {
            return Err(());
        }
        loop {
            let messages = self.messages(from);
            let next = (0..messages.len()).find(|&index| {
                let is_first = messages[..index]
                    .iter()
                    .all(|earlier| earlier.seen.group != messages[index].seen.group);
                is_first && !messages[index].is_in_flight(now)
            });
            let Some(next) = next else { return Ok(None) };
            if messages[next].kept_until <= now {
                messages.remove(next);
                continue;
            }
            if matches!(from, Which::Queue)
                && messages[next].seen.receive_count == MAX_RECEIVE_COUNT
            {
                let mut letter = messages.remove(next);
                letter.seen.receive_count = 0;
                letter.in_flight = None;
                letter.first_received_at = None;
                letter.kept_until = now.plus(RETENTION);
                letter.serial = self.serial;
                self.serial += 1;
                self.dead.push(letter);
                continue;
            }
            let message = &mut messages[next];
            message.seen.receive_count += 1;
            message.seen.first_received_at = *message.first_received_at.get_or_insert(now);
            message.in_flight = Some(InFlight {
                since: now,
                until: now.plus(whole_milliseconds(visibility)),
            });
            return Ok(Some((
                message.seen.clone(),
                (message.serial, message.seen.receive_count),
            )));
        }
    }

    /// Where the message of a delivery is, if the delivery is in force.
    fn held(&mut self, now: Timestamp, which: Which, handle: Handle) -> Option<usize> {
        self.messages(which).iter().position(|message| {
            (message.serial, message.seen.receive_count) == handle && message.is_in_flight(now)
        })
    }

    fn extend(
        &mut self,
        now: Timestamp,
        which: Which,
        handle: Handle,
        visibility: Duration,
    ) -> Result<Lease, ()> {
        if visibility > VISIBILITY_MAX {
            return Err(());
        }
        let Some(held) = self.held(now, which, handle) else {
            return Ok(Lease::Lost);
        };
        let in_flight = self.messages(which)[held]
            .in_flight
            .as_mut()
            .expect("it is held");
        let until = now.plus(whole_milliseconds(visibility));
        if until > in_flight.since.plus(VISIBILITY_MAX) {
            return Err(());
        }
        in_flight.until = until;
        Ok(Lease::Held)
    }

    fn delete(&mut self, now: Timestamp, which: Which, handle: Handle) -> Lease {
        let Some(held) = self.held(now, which, handle) else {
            return Lease::Lost;
        };
        self.messages(which).remove(held);
        Lease::Held
    }

    fn depth(&mut self, now: Timestamp, which: Which) -> Depth {
        let messages = self.messages(which);
        let in_flight = messages
            .iter()
            .filter(|message| message.is_in_flight(now))
            .count();
        let waiting = messages
            .iter()
            .filter(|message| !message.is_in_flight(now) && message.kept_until > now)
            .count();
        Depth {
            waiting: waiting as u64,
            in_flight: in_flight as u64,
        }
    }
}

fn whole_milliseconds(duration: Duration) -> Duration {
    if duration.subsec_nanos().is_multiple_of(1_000_000) {
        return duration;
    }
    Duration::from_millis(u64::try_from(duration.as_millis()).expect("at most a few hours") + 1)
}
