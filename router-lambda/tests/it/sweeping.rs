//! What nobody else puts right is put right by the sweep, and nothing else is touched.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::client_config::ClientStatus;
use contract::session::{State, Transition};
use contract::{
    ClientConfig, ClientId, Generation, Receipt, Session, SessionId, Status, ThreadId, Timestamp,
};
use edit_router::sweep::{Report, Sweep};
use edit_router::wake::environment_lost;
use platform::conformance::records::{client_config, dawn, session_id};
use platform::local::{LocalStore, QueueSettings};
use platform::{Created, Instructions, PortError, Removed, Sessions, TransitionFailed};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::house::{
    DEAD, House, after, for_session, for_thread, ids, message, outgoing, record, second, thread_of,
};

fn weeks(weeks: u64) -> Timestamp {
    after(Duration::from_secs(weeks * 7 * 24 * 3600))
}

#[tokio::test(start_paused = true)]
async fn a_task_without_a_live_lease_is_stopped_and_every_other_goes_on() {
    let house = House::new().await;
    let serving = house.ready(1).await;
    let (sleeping, failed) = (house.sleeper(2).await, house.waking(3).await);
    let fail = Transition::Fail {
        failure: environment_lost(),
    };
    house.take(&failed, &fail, dawn()).await;
    let gone = session_id(&house.amelia.client_id, 9);

    let fleet = &house.fleet;
    let serves = fleet.add(&serving.session_id, 1, dawn());
    let older = fleet.add(&serving.session_id, 0, dawn());
    let asleep = fleet.add(&sleeping.session_id, 0, dawn());
    let broken = fleet.add(&failed.session_id, 1, dawn());
    let orphan = fleet.add(&gone, 4, dawn());
    let young = fleet.add(&gone, 5, second(200));

    // The agent is well and renews.
    let renew = Transition::Renew {
        lease_until: second(300),
        site: contract::session::SiteHealth::Ok,
        last_activity_at: None,
        awake_because: None,
    };
    house.take(&serving, &renew, second(20)).await;
    let report = house.sweep().once(second(200)).await;
    assert_eq!(
        report,
        Report {
            stopped: 4,
            ..Report::default()
        }
    );
    let mut stops = fleet.stops();
    stops.sort();
    let mut expected = [
        (older, "its session is another generation's"),
        (asleep, "its session sleeps"),
        (broken, "its session has failed"),
        (orphan, "its session is gone"),
    ];
    expected.sort();
    let stops: Vec<_> = stops
        .iter()
        .map(|(task, why)| (task.clone(), why.as_str()))
        .collect();
    assert_eq!(stops, expected);
    assert!(
        !stops
            .iter()
            .any(|(task, _)| *task == serves || *task == young)
    );
    assert_eq!(
        house.sweep().once(second(200)).await,
        Report::default(),
        "there is nothing left to do"
    );
}

#[tokio::test(start_paused = true)]
async fn an_environment_that_went_without_a_word_is_failed_and_its_task_is_stopped() {
    let house = House::new().await;
    let (hung, dead) = (house.ready(1).await, house.ready(2).await);
    let task = house.fleet.add(&hung.session_id, 1, dawn());
    house.fleet.add(&dead.session_id, 1, dawn());
    house
        .fleet
        .die(&dead.session_id, Generation(1), "Host EC2 terminated", None);
    // The lease of the one that hangs may still be renewed; the other one's never.
    let report = house.sweep().once(second(60)).await;
    assert_eq!(
        report,
        Report {
            failed: 1,
            ..Report::default()
        }
    );
    assert_eq!(house.now(&hung.session_id).await.state, State::Ready);

    let report = house.sweep().once(second(91)).await;
    assert_eq!((report.failed, report.errors), (1, 0));
    for session in [&hung, &dead] {
        let failed = house.now(&session.session_id).await;
        let failure = failed.failure.expect("it says why");
        assert_eq!(
            (failed.state, failure.code.as_str(), failure.retryable),
            (State::Failed, "environment_lost", true)
        );
    }
    let stops = house.fleet.stops();
    assert_eq!(stops, [(task, "its lease is over".to_owned())], "once");
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_never_became_ready_is_launched_again_and_failed_in_the_end() {
    let house = House::new().await;
    let waking = house.waking(1).await;
    let report = house.sweep().once(second(16)).await;
    assert_eq!(
        report,
        Report {
            launched_again: 1,
            ..Report::default()
        }
    );
    assert_eq!(house.fleet.tasks(), 1);
    assert_eq!(house.sweep().once(second(30)).await, Report::default());
    let report = house.sweep().once(second(241)).await;
    assert_eq!((report.failed, report.stopped), (1, 1));
    let failure = house
        .now(&waking.session_id)
        .await
        .failure
        .expect("it says why");
    assert_eq!(failure.code, "wake_timeout");
}

#[tokio::test(start_paused = true)]
async fn a_session_for_which_an_instruction_waits_is_woken_and_no_other() {
    let house = House::new().await;
    let (awaited, idle) = (house.sleeper(1).await, house.sleeper(2).await);
    house
        .put(&awaited, &for_session("i-1", &awaited.session_id), "i-1")
        .await;
    let suspended = ClientConfig {
        status: ClientStatus::Suspended,
        ..house.amelia.clone()
    };
    house.clients.put(&suspended).await.expect("put");
    assert_eq!(house.sweep().once(dawn()).await, Report::default());

    house.clients.put(&house.amelia).await.expect("put");
    // Two sweeps at once.
    let (one, other) = tokio::join!(sweep_of(&house), sweep_of(&house));
    assert_eq!((one.woken + other.woken, one.errors + other.errors), (1, 0));
    assert_eq!(house.now(&awaited.session_id).await.state, State::Waking);
    assert_eq!(house.now(&idle.session_id).await, idle);
    assert_eq!(house.fleet.tasks(), 1);
}

async fn sweep_of(house: &House) -> Report {
    house.sweep().once(dawn()).await
}

#[tokio::test(start_paused = true)]
async fn of_more_sessions_than_their_client_may_have_awake_the_others_wait_for_their_turn() {
    let house = House::new().await;
    let mut sleepers = Vec::new();
    for number in 1..=3 {
        let asleep = house.sleeper(number).await;
        house
            .put(&asleep, &for_session("i", &asleep.session_id), "i")
            .await;
        sleepers.push(asleep);
    }
    let report = house.sweep().once(dawn()).await;
    assert_eq!(
        (report.woken, report.errors, house.fleet.tasks()),
        (2, 0, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_by_itself_if_that_can_help_and_when_it_is_time() {
    let house = House::new().await;
    let mut failed = Vec::new();
    for (number, retryable) in [(1, true), (2, false)] {
        let waking = house.waking(number).await;
        house
            .put(&waking, &for_session("i", &waking.session_id), "i")
            .await;
        let mut failure = environment_lost();
        failure.retryable = retryable;
        failed.push(
            house
                .take(&waking, &Transition::Fail { failure }, dawn())
                .await,
        );
    }
    assert_eq!(house.sweep().once(second(4)).await.woken, 0);
    assert_eq!(house.sweep().once(second(5)).await.woken, 1);
    assert_eq!(house.now(&failed[0].session_id).await.state, State::Waking);
    assert_eq!(
        house.sweep().once(second(30)).await.woken,
        0,
        "one that stays is left to people"
    );
    assert_eq!(house.now(&failed[1].session_id).await.state, State::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_came_back_for_ends_and_everything_that_waited_is_answered() {
    let house = House::new().await;
    let results = "results.fifo";
    let amelia = ClientConfig {
        status: ClientStatus::Suspended,
        results_queue_url: Some(results.to_owned()),
        ..house.amelia.clone()
    };
    house.clients.put(&amelia).await.expect("put");
    let expired = house.sleeper(1).await;
    let id = &expired.session_id;
    house.put(&expired, &for_session("i-1", id), "i-1").await;
    house.put(&expired, &for_session("i-2", id), "i-2").await;
    house.put(&expired, "what is this", "i-3").await;
    let landed = Receipt {
        session_id: id.clone(),
        status: Status::Pushed,
        ..platform::conformance::records::receipt(&amelia.client_id, "i-2", Status::Pushed)
    };
    house.receipts.put(&landed).await.expect("put");

    assert_eq!(
        house.sweep().once(weeks(4)).await,
        Report::default(),
        "not yet"
    );
    let report = house
        .sweep()
        .once(after(Duration::from_secs(4 * 7 * 24 * 3600 + 1)))
        .await;
    assert_eq!(
        report,
        Report {
            ended: 1,
            answered: 1,
            queues_removed: 1,
            ..Report::default()
        }
    );
    assert_eq!(house.sessions.get(id).await.expect("answered"), None);
    assert_eq!(
        thread_of(&house, "thread-1").await,
        None,
        "the thread can have another one"
    );
    let answer = house.receipt(id, "i-1").await.expect("answered");
    assert_eq!(
        answer.error.as_ref().map(|error| error.code.as_str()),
        Some("session_expired")
    );
    assert_eq!(
        (answer.status, answer.branch),
        (Status::Failed, expired.draft_branch.clone())
    );
    assert_eq!(
        house.receipt(id, "i-2").await,
        Some(landed),
        "what landed has landed"
    );
    assert_eq!(
        house.dead_letters().await.len(),
        1,
        "what nobody can be answered for is kept for people"
    );
    let told = house.drained(results).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].body.contains("session_expired"), "{told:?}");
    assert_eq!(house.sweep().queues.list().await.expect("answered"), []);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_while_a_session_ends_is_not_lost_with_its_queue() {
    let house = House::new().await;
    let suspended = ClientConfig {
        status: ClientStatus::Suspended,
        ..house.amelia.clone()
    };
    house.clients.put(&suspended).await.expect("put");
    let expired = house.sleeper(1).await;
    let record = record(&for_thread("i-1", "thread-1"), "g", "m-1");
    *house.queues.last_moment.lock().expect("whole") = Some((house.intake(), record));
    let report = house.sweep().once(weeks(5)).await;
    assert_eq!((report.ended, report.queues_removed), (1, 1));
    let id = thread_of(&house, "thread-1")
        .await
        .expect("it has a session again");
    assert_ne!(id, expired.session_id);
    let queue = house.now(&id).await.queue_url;
    assert_eq!(ids(&house.drained(&queue).await), ["i-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_woken_in_time_does_not_end() {
    let house = House::new().await;
    let expired = house.sleeper(1).await;
    house
        .put(&expired, &for_session("i-1", &expired.session_id), "i-1")
        .await;
    let waker = house.waker();
    // What the sweep has read is older than the wake.
    let stale: Arc<dyn Sessions> = Arc::new(Stale {
        sessions: Arc::clone(&house.sessions),
        listed: vec![expired.clone()],
        client: house.amelia.client_id.clone(),
    });
    let late = weeks(5);
    let woken = waker
        .wake(&house.amelia, &expired.session_id, expired.generation, late)
        .await;
    assert_eq!(woken.as_str(), "begun");
    let sweep = Sweep {
        sessions: stale,
        ..house.sweep()
    };
    assert_eq!(sweep.once(late).await, Report::default());
    assert_eq!(house.now(&expired.session_id).await.state, State::Waking);
    assert_eq!(house.waiting(&expired.queue_url).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_a_session_is_removed_once_it_was_seen_twice() {
    let house = House::new().await;
    let suspended = ClientConfig {
        status: ClientStatus::Suspended,
        ..house.amelia.clone()
    };
    house.clients.put(&suspended).await.expect("put");
    let made = house.sleeper(1).await;
    house
        .put(&made, &for_session("i-2", &made.session_id), "i-2")
        .await;
    let orphan = session_id(&house.amelia.client_id, 9);
    let address = house.sweep().queues.create(&orphan).await.expect("created");
    let body = for_thread("i-1", "spring");
    house
        .sweep()
        .queues
        .open(&address)
        .send(&outgoing(&body, orphan.as_str(), "i-1"))
        .await
        .expect("sent");

    // Of a client that nobody here knows: another deployment's.
    let others = session_id(&super::house::other_client(), 9);
    let theirs = house.sweep().queues.create(&others).await.expect("created");
    let message = outgoing(&body, others.as_str(), "i-1");
    house
        .sweep()
        .queues
        .open(&theirs)
        .send(&message)
        .await
        .expect("sent");

    assert_eq!(house.sweep().once(dawn()).await, Report::default());
    assert_eq!(
        house.sweep().once(second(10)).await,
        Report::default(),
        "it may be just being made"
    );
    let report = house.sweep().once(second(60)).await;
    assert_eq!(
        report,
        Report {
            queues_removed: 1,
            answered: 1,
            ..Report::default()
        }
    );
    assert_eq!(house.answer(&orphan, "i-1").await, "failed session_expired");
    for at in [120, 180] {
        assert_eq!(house.sweep().once(second(at)).await, Report::default());
    }
    let left = house.sweep().queues.list().await.expect("answered");
    let mut left: Vec<_> = left.into_iter().map(|queue| queue.session).collect();
    left.sort();
    assert_eq!(left, [made.session_id, others]);
}

#[tokio::test(start_paused = true)]
async fn what_the_queues_gave_up_is_answered_and_left_for_people() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    let id = &asleep.session_id;
    // Three of one session, of which the second was answered by the agent, which put it there; one of the intake, which was
    // answered there; one that came to no session; and one that says nothing.
    let answered = Receipt {
        session_id: id.clone(),
        ..platform::conformance::records::receipt(&house.amelia.client_id, "i-2", Status::Failed)
    };
    house.receipts.put(&answered).await.expect("put");
    let running = Receipt {
        instruction_id: "i-3".parse().expect("valid"),
        status: Status::Running,
        attempts: 3,
        ..answered.clone()
    };
    house.receipts.put(&running).await.expect("put");
    for (body, group) in [
        (for_session("i-1", id), id.as_str()),
        (for_session("i-2", id), id.as_str()),
        (for_session("i-3", id), id.as_str()),
        (for_session("i-4", id), "intake"),
        (for_thread("i-5", "autumn"), "autumn"),
        ("what is this".to_owned(), "g"),
        (
            message(
                "i-6",
                json!({ "clientId": "bertram", "sessionId": id.as_str() }),
            ),
            "h",
        ),
    ] {
        let unique = contract::id::hex(&Sha256::digest(format!("{group} {body}")));
        house
            .dead
            .send(&outgoing(&body, group, &unique))
            .await
            .expect("sent");
    }

    let report = house.sweep().once(dawn()).await;
    assert_eq!(
        report,
        Report {
            answered: 2,
            ..Report::default()
        }
    );
    assert_eq!(house.answer(id, "i-1").await, "failed internal");
    assert_eq!(
        house.receipt(id, "i-2").await,
        Some(answered),
        "the agent has answered it"
    );
    let third = house.receipt(id, "i-3").await.expect("answered");
    assert_eq!((third.status, third.attempts), (Status::Failed, 3));
    assert_eq!(
        house.answer(id, "i-4").await,
        "nothing",
        "that is the intake's"
    );
    assert_eq!(
        house.answer(id, "i-6").await,
        "nothing",
        "nobody answers in somebody else's session"
    );
    assert_eq!(house.sweep().once(second(60)).await, Report::default());
    let left = house.dead_letters().await;
    assert_eq!(left.len(), 7, "all are there for people");
    let in_the_way: Vec<_> = left
        .iter()
        .filter(|letter| !matches!(letter.group.as_str(), "filed" | "intake"))
        .collect();
    assert!(in_the_way.is_empty(), "{in_the_way:?}");
    let readable: Vec<_> = left
        .iter()
        .filter(|letter| letter.body.starts_with('{'))
        .cloned()
        .collect();
    let mut left = ids(&readable);
    left.sort();
    assert_eq!(left, ["i-1", "i-2", "i-3", "i-4", "i-5", "i-6"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_a_queue_gives_up_really_gets_its_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = LocalStore::open(&folder.path().join("db")).expect("open");
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    let settings = QueueSettings {
        max_receive_count: 1,
        dead: Some(DEAD.to_owned()),
    };
    let queue = store.queue("q", settings);
    let id = asleep.session_id.as_str();
    for number in 1..=2 {
        let name = format!("i-{number}");
        queue
            .send(&outgoing(
                &for_session(&name, &asleep.session_id),
                id,
                &name,
            ))
            .await
            .expect("sent");
    }
    for _ in 0..2 {
        let delivery = queue.receive(Duration::ZERO, Duration::from_secs(60)).await;
        let delivery = delivery.expect("answered").expect("there");
        let released = queue.extend(&delivery.handle, Duration::ZERO).await;
        assert_eq!(released.expect("answered"), platform::Lease::Held);
    }
    assert_eq!(
        queue
            .receive(Duration::ZERO, Duration::ZERO)
            .await
            .expect("answered"),
        None
    );
    let sweep = Sweep {
        dead: Arc::new(store.queue(DEAD, QueueSettings::default())),
        ..house.sweep()
    };
    assert_eq!(
        sweep.once(dawn()).await,
        Report {
            answered: 2,
            ..Report::default()
        }
    );
    for name in ["i-1", "i-2"] {
        assert_eq!(
            house.answer(&asleep.session_id, name).await,
            "failed internal",
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_sessions_cannot_be_read_does_not_keep_the_others_waiting() {
    let house = House::new().await;
    house.clients.put(&client_config("aaa")).await.expect("put");
    house.clients.put(&client_config("zzz")).await.expect("put");
    let awaited = house.sleeper(1).await;
    house
        .put(&awaited, &for_session("i-1", &awaited.session_id), "i-1")
        .await;
    let sweep = Sweep {
        sessions: Arc::new(Stale {
            sessions: Arc::clone(&house.sessions),
            listed: Vec::new(),
            client: "aaa".parse().expect("valid"),
        }),
        ..house.sweep()
    };
    let report = sweep.once(dawn()).await;
    assert_eq!((report.woken, report.errors), (1, 1));
}

/// Sessions of which one client's list is what it was; or, if it never was, is not answered.
#[derive(Debug)]
struct Stale {
    sessions: Arc<dyn Sessions>,
    listed: Vec<Session>,
    client: ClientId,
}

#[async_trait]
impl Sessions for Stale {
    async fn get(&self, id: &SessionId) -> platform::Result<Option<Session>> {
        self.sessions.get(id).await
    }

    async fn find(
        &self,
        client: &ClientId,
        thread: &ThreadId,
    ) -> platform::Result<Option<SessionId>> {
        self.sessions.find(client, thread).await
    }

    async fn create(&self, session: &Session) -> platform::Result<Created> {
        self.sessions.create(session).await
    }

    async fn transition(
        &self,
        id: &SessionId,
        caller: Generation,
        transition: &Transition,
        slots: u32,
        now: Timestamp,
    ) -> platform::Result<Result<Session, TransitionFailed>> {
        self.sessions
            .transition(id, caller, transition, slots, now)
            .await
    }

    async fn list(&self, client: &ClientId) -> platform::Result<Vec<Session>> {
        if *client != self.client {
            return self.sessions.list(client).await;
        }
        if self.listed.is_empty() {
            return Err(PortError::Unavailable {
                operation: "list",
                thing: "sessions".to_owned(),
                source: "no".into(),
            });
        }
        Ok(self.listed.clone())
    }

    async fn remove(&self, session: &Session) -> platform::Result<Removed> {
        self.sessions.remove(session).await
    }

    async fn spend(&self, nonce: &str, until: Timestamp) -> platform::Result<bool> {
        self.sessions.spend(nonce, until).await
    }

    async fn changed(&self, patience: Duration) {
        self.sessions.changed(patience).await;
    }
}
