//! What [`crate::Launcher`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use contract::Generation;
use contract::client_config::ContainerSize;
use tokio::task::JoinSet;

use super::records::{client, session_id};
use super::{LauncherUnderTest, eventually};
use crate::{LaunchFailed, Launcher, Order, Task, TaskState};

/// Turns each case into a test.
#[macro_export]
macro_rules! launcher_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { launcher, $under_test,
            a_task_that_is_launched_is_found_and_listed
            a_task_that_never_was_is_none
            launched_twice_is_one_task
            of_many_who_launch_at_once_all_get_one_task
            another_generation_is_another_task
            another_session_is_another_task
            a_task_that_is_stopped_says_why_and_is_listed_no_more
            a_task_that_is_stopped_twice_has_the_first_reason
            a_task_that_is_not_there_is_stopped
        }
    };
}

/// With its name, its session and its generation.
pub async fn a_task_that_is_launched_is_found_and_listed(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    let begun = launch(&*launcher, &order(1, 7)).await;
    assert_eq!(begun.session, order(1, 7).session);
    assert_eq!(begun.generation, Generation(7));
    let age = contract::Timestamp::now().since(begun.created_at);
    assert!(age.as_secs() < 300, "it is of a moment ago, not {age:?}");
    let found = eventually(async || {
        let task = find(&*launcher, &order(1, 7)).await;
        match task {
            Some(task) if task.state == TaskState::Running => Ok(task),
            other => Err(format!("{other:?} is found")),
        }
    })
    .await;
    assert_eq!(found.name, begun.name);
    assert_eq!(launcher.running().await.expect("running"), [found]);
}

/// Whatever else runs.
pub async fn a_task_that_never_was_is_none(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    launch(&*launcher, &order(1, 1)).await;
    assert_eq!(find(&*launcher, &order(1, 2)).await, None);
    assert_eq!(find(&*launcher, &order(2, 1)).await, None);
}

/// As after a reply that was lost.
pub async fn launched_twice_is_one_task(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    let first = launch(&*launcher, &order(1, 1)).await;
    let second = launch(&*launcher, &order(1, 1)).await;
    assert_eq!(second.name, first.name);
    assert_eq!(launcher.running().await.expect("running").len(), 1);
}

/// However many routers there are.
pub async fn of_many_who_launch_at_once_all_get_one_task(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    let mut routers = JoinSet::new();
    for _ in 0..20 {
        let launcher = Arc::clone(&launcher);
        routers.spawn(async move { launch(&*launcher, &order(1, 1)).await.name });
    }
    let names: HashSet<String> = routers.join_all().await.into_iter().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(launcher.running().await.expect("running").len(), 1);
}

/// The one before is abandoned, and may run still.
pub async fn another_generation_is_another_task(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    let first = launch(&*launcher, &order(1, 1)).await;
    let second = launch(&*launcher, &order(1, 2)).await;
    assert_ne!(second.name, first.name);
    let found = find(&*launcher, &order(1, 1)).await.expect("it runs");
    assert_eq!(found.name, first.name);
    let found = find(&*launcher, &order(1, 2)).await.expect("it runs");
    assert_eq!(found.name, second.name);
    assert_eq!(launcher.running().await.expect("running").len(), 2);
}

/// Of whichever client.
pub async fn another_session_is_another_task(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    let first = launch(&*launcher, &order(1, 1)).await;
    let second = launch(&*launcher, &order(2, 1)).await;
    assert_ne!(second.name, first.name);
    let listed = launcher.running().await.expect("running");
    let listed: HashSet<_> = listed.into_iter().map(|task| task.session).collect();
    let expected = [order(1, 1).session, order(2, 1).session];
    assert_eq!(listed, HashSet::from(expected));
}

/// In the words of whoever stopped it, and the others run on.
pub async fn a_task_that_is_stopped_says_why_and_is_listed_no_more(
    under_test: &dyn LauncherUnderTest,
) {
    let launcher = under_test.fresh().await;
    let stopped = launch(&*launcher, &order(1, 1)).await;
    let other = launch(&*launcher, &order(2, 1)).await;
    launcher
        .stop(&stopped.name, "nobody holds its lease")
        .await
        .expect("stop");
    let reason = eventually(async || match find(&*launcher, &order(1, 1)).await {
        Some(Task {
            state: TaskState::Stopped { reason, .. },
            ..
        }) => Ok(reason),
        other => Err(format!("{other:?} is found")),
    })
    .await;
    assert_eq!(reason, "nobody holds its lease");
    let names: Vec<String> = launcher
        .running()
        .await
        .expect("running")
        .into_iter()
        .map(|task| task.name)
        .collect();
    assert_eq!(names, [other.name]);
}

/// As by two sweeps.
pub async fn a_task_that_is_stopped_twice_has_the_first_reason(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    let task = launch(&*launcher, &order(1, 1)).await;
    for why in ["first", "second"] {
        launcher.stop(&task.name, why).await.expect("stop");
        eventually(async || match find(&*launcher, &order(1, 1)).await {
            Some(Task {
                state: TaskState::Stopped { reason, .. },
                ..
            }) if reason == "first" => Ok(()),
            other => Err(format!("{other:?} is found")),
        })
        .await;
    }
}

/// It is as wanted.
pub async fn a_task_that_is_not_there_is_stopped(under_test: &dyn LauncherUnderTest) {
    let launcher = under_test.fresh().await;
    let task = launch(&*launcher, &order(1, 1)).await;
    let mut missing = task.name;
    missing.pop();
    missing.push('z');
    launcher.stop(&missing, "nobody").await.expect("stop");
    assert_eq!(launcher.running().await.expect("running").len(), 1);
}

/// An environment for the session `number` of a client in a generation.
pub fn order(number: u8, generation: u64) -> Order {
    let client = client("amelia");
    Order {
        session: session_id(&client, number),
        client,
        generation: Generation(generation),
        size: ContainerSize::Small,
    }
}

/// Launches, again where it is not known what became of it: as the port asks for.
async fn launch(launcher: &dyn Launcher, order: &Order) -> Task {
    const TRIES: u32 = 300;
    for _ in 0..TRIES {
        match launcher.launch(order).await {
            Err(LaunchFailed::Unknown(error)) if error.is_transient() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other.expect("launch"),
        }
    }
    panic!("after {TRIES} tries nobody knows what became of it")
}

async fn find(launcher: &dyn Launcher, order: &Order) -> Option<Task> {
    launcher
        .task(&order.session, order.generation)
        .await
        .expect("task")
}
