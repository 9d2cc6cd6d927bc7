//! A session is woken once, whoever asks and whatever goes wrong.

use std::sync::Arc;
use std::time::Duration;

use contract::client_config::ClientStatus;
use contract::session::State;
use contract::{ClientConfig, Generation};
use edit_router::wake::{CLAIMED_WITHIN_HERE, CLAIMED_WITHIN_ON_ECS, Waker, Woken, again_at};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use platform::Launcher as _;
use platform::conformance::records::{client_config, dawn};
use platform::local::{LocalLauncher, LocalLauncherSettings};

use super::fleet::Fault;
use super::house::{House, after, second};

fn count(woken: &[Woken], word: &str) -> usize {
    woken.iter().filter(|woken| woken.as_str() == word).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_visitors_of_a_sleeping_session_start_one_task() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    // Four routers, each with its share of them.
    let routers: Vec<_> = (0..4).map(|_| house.waker()).collect();
    let visitors = (0..1000).map(|visitor| {
        routers[visitor % routers.len()].wake(
            &house.amelia,
            &asleep.session_id,
            asleep.generation,
            dawn(),
        )
    });
    let woken = join_all(visitors).await;
    assert_eq!(count(&woken, "begun"), 1);
    assert_eq!(
        count(&woken, "going"),
        999,
        "{:?}",
        woken.iter().map(Woken::as_str).collect::<Vec<_>>()
    );
    assert_eq!((house.fleet.orders(), house.fleet.tasks()), (1, 1));
    let record = house.now(&asleep.session_id).await;
    assert_eq!(
        (record.state, record.generation),
        (State::Waking, Generation(1))
    );
    assert_eq!(record.lease_until, Some(after(CLAIMED_WITHIN_ON_ECS)));
    assert_eq!(record.proof_key.map(|key| key.0.len()), Some(64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_sessions_at_once_as_many_are_woken_as_their_client_may_have() {
    let house = House::new().await;
    let mut sleepers = Vec::new();
    for number in 1..=10 {
        sleepers.push(house.sleeper(number).await);
    }
    let routers: Vec<_> = sleepers.iter().map(|_| house.waker()).collect();
    let wakes = sleepers.iter().zip(&routers).map(|(asleep, router)| {
        router.wake(&house.amelia, &asleep.session_id, asleep.generation, dawn())
    });
    let woken = join_all(wakes).await;
    assert_eq!(count(&woken, "begun"), 2);
    assert_eq!(count(&woken, "full"), 8);
    assert!(
        woken
            .iter()
            .any(|woken| matches!(woken, Woken::Full { limit: 2 }))
    );
    assert_eq!(house.fleet.tasks(), 2);

    // Nobody has to give back what was held by an environment that went without a word.
    let late = after(CLAIMED_WITHIN_ON_ECS + Duration::from_secs(1));
    let turned_away = woken
        .iter()
        .position(|woken| woken.as_str() == "full")
        .expect("eight were");
    let asleep = &sleepers[turned_away];
    let woken = house
        .waker()
        .wake(&house.amelia, &asleep.session_id, asleep.generation, late)
        .await;
    assert_eq!(woken.as_str(), "begun");
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_is_turned_away_is_tried_again_for_some_seconds() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    house
        .fleet
        .will(&[Fault::Throttled, Fault::NotAsked, Fault::AnswerLost]);
    let woken = house
        .waker()
        .wake(&house.amelia, &asleep.session_id, asleep.generation, dawn())
        .await;
    assert_eq!(woken.as_str(), "begun");
    assert_eq!(
        (house.fleet.orders(), house.fleet.tasks()),
        (4, 1),
        "the same order, and one task"
    );
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_stays_impossible_is_a_failure_that_says_why() {
    let mut told = String::new();
    for fault in [
        Fault::Throttled,
        Fault::NoCapacity,
        Fault::Refused,
        Fault::NotAsked,
        Fault::Hangs,
    ] {
        let house = House::new().await;
        let asleep = house.sleeper(1).await;
        house.fleet.always(fault);
        let began = tokio::time::Instant::now();
        let woken = house
            .waker()
            .wake(&house.amelia, &asleep.session_id, asleep.generation, dawn())
            .await;
        assert!(
            began.elapsed() < Duration::from_secs(9),
            "{fault:?}: {:?}",
            began.elapsed()
        );
        let Woken::Failed(session) = woken else {
            panic!("{fault:?}: {woken:?}")
        };
        assert_eq!(session, house.now(&asleep.session_id).await);
        let failure = session.failure.as_ref().expect("it says why");
        let again = again_at(&session).map(|at| at.since(session.failed_at.expect("it says when")));
        told += &format!("{}: {} {again:?}\n", failure.code, failure.message);

        // Its slot is free, and a person may try again at once.
        house.fleet.recovers();
        let woken = house
            .waker()
            .wake(
                &house.amelia,
                &asleep.session_id,
                session.generation,
                second(20),
            )
            .await;
        assert_eq!(woken.as_str(), "begun", "{fault:?}");
        assert_eq!(house.fleet.tasks(), 1, "{fault:?}");
    }
    insta::assert_snapshot!(told, @r"
    launch_throttled: Too many previews are being started at the moment. Please try again in a few minutes. Some(5s)
    no_capacity: There is no free machine for your preview at the moment. Please try again in a few minutes. Some(5s)
    launch_refused: Your preview is not set up rightly. Please ask whoever set up your preview. None
    launch_unknown: Something went wrong on our side while your preview was started. Please try again in a few minutes. Some(5s)
    launch_unknown: Something went wrong on our side while your preview was started. Please try again in a few minutes. Some(5s)
    ");
}

#[tokio::test(start_paused = true)]
async fn a_launch_of_which_nobody_knows_is_no_failure_if_its_task_has_taken_the_session() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    house.fleet.always(Fault::AnswerLost);
    let waker = house.waker();
    let wake = waker.wake(&house.amelia, &asleep.session_id, asleep.generation, dawn());
    let claim = async {
        let waking = loop {
            let found = house.now(&asleep.session_id).await;
            if found.state == State::Waking && house.fleet.tasks() == 1 {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let claim = contract::session::Transition::Claim {
            task: "task".to_owned(),
            lease_until: second(30),
        };
        house.take(&waking, &claim, dawn()).await
    };
    let (woken, _) = tokio::join!(wake, claim);
    assert_eq!(woken.as_str(), "begun", "{woken:?}");
    assert_eq!(house.now(&asleep.session_id).await.state, State::Waking);
}

#[tokio::test]
async fn what_serves_is_not_woken_until_its_lease_is_over() {
    let house = House::new().await;
    let ready = house.ready(1).await;
    let id = &ready.session_id;
    let waker = house.waker();
    let held = waker
        .wake(&house.amelia, id, ready.generation, second(30))
        .await;
    assert!(
        matches!(held, Woken::Held { until } if until == second(30)),
        "{held:?}"
    );
    let newer = waker
        .wake(&house.amelia, id, Generation(0), second(30))
        .await;
    assert_eq!(
        newer.as_str(),
        "ready",
        "who saw an older one is told of the one that serves"
    );
    assert_eq!(house.fleet.orders(), 0);
    let over = waker
        .wake(&house.amelia, id, ready.generation, second(31))
        .await;
    assert_eq!(over.as_str(), "begun");
}

#[tokio::test]
async fn nothing_is_woken_for_a_client_that_may_not_or_whose_it_is_not() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    let suspended = ClientConfig {
        status: ClientStatus::Suspended,
        ..house.amelia.clone()
    };
    let waker = house.waker();
    for (config, expected) in [
        (suspended, "suspended"),
        (client_config("bertram"), "no_session"),
    ] {
        let woken = waker
            .wake(&config, &asleep.session_id, asleep.generation, dawn())
            .await;
        assert_eq!(woken.as_str(), expected);
    }
    let nobody = platform::conformance::records::session_id(&house.amelia.client_id, 9);
    let woken = waker
        .wake(&house.amelia, &nobody, Generation(0), dawn())
        .await;
    assert_eq!(woken.as_str(), "no_session");
    assert_eq!(house.now(&asleep.session_id).await, asleep);
    assert_eq!(house.fleet.orders(), 0);
}

#[tokio::test]
async fn a_wake_goes_on_when_whoever_asked_goes_away() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    let waker = house.waker();
    let wake = waker.wake(&house.amelia, &asleep.session_id, asleep.generation, dawn());
    assert!(
        wake.now_or_never().is_none(),
        "it was given up before it ended"
    );
    let settled = tokio::time::timeout(Duration::from_secs(20), waker.settle()).await;
    settled.expect("a launch ends");
    assert_eq!(house.fleet.tasks(), 1);
    assert_eq!(house.now(&asleep.session_id).await.state, State::Waking);
}

#[tokio::test]
async fn what_a_router_left_behind_that_died_before_it_launched_is_launched_by_another() {
    let house = House::new().await;
    let waking = house.waking(1).await;
    let waker = house.waker();
    assert_eq!(
        waker.look_after(&house.amelia, &waking, second(10)).await,
        None
    );
    assert_eq!(
        house.fleet.orders(),
        0,
        "the one that woke it may still be at it"
    );
    assert_eq!(
        waker.look_after(&house.amelia, &waking, second(16)).await,
        None
    );
    assert_eq!((house.fleet.orders(), house.fleet.tasks()), (1, 1));
    // A hundred visitors wait, and three routers look.
    for _ in 0..100 {
        waker.look_after(&house.amelia, &waking, second(17)).await;
    }
    assert_eq!(
        house.fleet.looks(),
        2,
        "once in three seconds, however many wait"
    );
    for _ in 0..3 {
        house
            .waker()
            .look_after(&house.amelia, &waking, second(20))
            .await;
    }
    assert_eq!((house.fleet.orders(), house.fleet.tasks()), (1, 1));
}

#[tokio::test]
async fn a_task_that_dies_and_a_boot_that_overruns_are_failures_and_no_eternal_wait() {
    let house = House::new().await;
    let dying = house.waking(1).await;
    let waker = house.waker();
    house.fleet.add(&dying.session_id, 1, dawn());
    assert_eq!(
        waker.look_after(&house.amelia, &dying, second(20)).await,
        None
    );
    house.fleet.die(
        &dying.session_id,
        Generation(1),
        "OutOfMemoryError: killed",
        Some(137),
    );
    let failed = waker
        .look_after(&house.amelia, &dying, second(30))
        .await
        .expect("it cannot become ready");
    let failure = failed.failure.as_ref().expect("it says why");
    assert_eq!(
        (failed.state, failure.code.as_str(), failure.retryable),
        (State::Failed, "task_stopped", false)
    );

    let slow = house.waking(2).await;
    house.fleet.add(&slow.session_id, 1, dawn());
    let late = after(CLAIMED_WITHIN_ON_ECS + Duration::from_secs(1));
    let failed = waker
        .look_after(&house.amelia, &slow, late)
        .await
        .expect("it is too late");
    let failure = failed.failure.as_ref().expect("it says why");
    assert_eq!(
        (failure.code.as_str(), failure.retryable),
        ("wake_timeout", true)
    );
    assert_eq!(failed, house.now(&slow.session_id).await);
}

/// An agent that only writes down that it was started, and with what, and then does as it is told.
fn agent(folder: &std::path::Path, then: &str) -> LocalLauncher {
    let (program, started) = (folder.join("agent"), folder.join("started"));
    let script = format!(
        "#!/bin/sh\necho \"$CLIENT_ID $SESSION_ID $GENERATION\" >> {}\n{then}\n",
        started.display()
    );
    // By another process: while one of ours that is being started still holds the file open for writing, nobody can run it.
    let written = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            "printf %s \"$1\" > \"$2\" && chmod 700 \"$2\"",
            "sh",
            &script,
        ])
        .arg(&program)
        .status();
    assert!(written.expect("there is a shell").success());
    LocalLauncher::new(LocalLauncherSettings {
        agent: program,
        state: folder.to_owned(),
        environment: Vec::new(),
        log: folder.join("log"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_visitors_start_one_process() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = agent(folder.path(), "exec sleep 60");
    let waker = router_of(&house, &launcher);
    let visitors =
        (0..1000).map(|_| waker.wake(&house.amelia, &asleep.session_id, asleep.generation, dawn()));
    let woken = join_all(visitors).await;
    assert_eq!((count(&woken, "begun"), count(&woken, "going")), (1, 999));
    let running = launcher.running().await.expect("answered");
    assert_eq!(running.len(), 1, "{running:?}");
    // What runs is waited for, so that whatever was started has written its line.
    let started = folder.path().join("started");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let line = format!("amelia {} 1\n", asleep.session_id);
    loop {
        let said = std::fs::read_to_string(&started).unwrap_or_default();
        if said == line {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline && said.len() <= line.len(),
            "{said:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    launcher.shutdown(Duration::from_secs(10)).await;
    assert_eq!(std::fs::read_to_string(&started).expect("there"), line);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_before_it_is_ready_is_a_failure_that_says_so() {
    let house = House::new().await;
    for (number, code, expected) in [(1, 20, false), (2, 70, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let launcher = agent(folder.path(), &format!("exit {code}"));
        let asleep = house.sleeper(number).await;
        let waker = router_of(&house, &launcher);
        let woken = waker
            .wake(&house.amelia, &asleep.session_id, asleep.generation, dawn())
            .await;
        assert_eq!(woken.as_str(), "begun");
        let waking = house.now(&asleep.session_id).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let failed = loop {
            // Another router each time, so that each looks.
            let router = router_of(&house, &launcher);
            if let Some(failed) = router.look_after(&house.amelia, &waking, second(1)).await {
                break failed;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{:?}",
                launcher.running().await
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let failure = failed.failure.expect("it says why");
        assert_eq!(
            (failure.code.as_str(), failure.retryable),
            ("task_stopped", expected)
        );
    }
}

/// A router over these processes.
fn router_of(house: &House, launcher: &LocalLauncher) -> Waker {
    Waker::new(
        Arc::clone(&house.sessions),
        Arc::new(launcher.clone()),
        CLAIMED_WITHIN_HERE,
    )
}
