//! What starts environments: processes as they are, and what ECS is asked and how its answers are taken.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::client_config::ContainerSize;
use contract::{Generation, SessionId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use platform::aws::{Aws, EcsSettings, Patience};
use platform::conformance::emulator::{ECS, Emulator};
use platform::conformance::front::{Act, Front};
use platform::conformance::launcher::order;
use platform::local::{LocalLauncher, LocalLauncherSettings};
use platform::{LaunchFailed, Launcher, Order, Result, Task, TaskState};
use serde_json::{Value, json};

fn emulator() -> &'static Emulator {
    Emulator::shared(env!("CARGO_TARGET_TMPDIR"))
}

/// Asks again and again until the answer is right: at most a minute.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> std::result::Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..1_200 {
        match ask().await {
            Ok(answer) => return answer,
            Err(said) => last = said,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{last}");
}

// Processes.

/// What keeps a process of these tests running, but not longer than the tests.
const RUN: &str = "exec tail --pid=$PPID -f /dev/null";

/// A launcher of a shell script that stands where the agent would. Everything of it is in the folder.
pub(crate) fn processes(folder: &Path, script: &str) -> LocalLauncher {
    std::fs::create_dir_all(folder).expect("a folder");
    let agent = folder.join("edit-agent");
    std::fs::write(&agent, format!("#!/bin/sh\n{script}\n")).expect("write");
    std::fs::set_permissions(&agent, PermissionsExt::from_mode(0o755)).expect("executable");
    LocalLauncher::new(LocalLauncherSettings {
        agent,
        state: folder.join("state"),
        environment: vec![("EDIT_DOMAIN".to_owned(), "localhost".to_owned())],
        log: folder.join("logs"),
    })
}

fn log_of(folder: &Path, order: &Order) -> PathBuf {
    let name = format!("{}.log", order.session.redacted());
    folder.join("logs").join(name)
}

/// What the agent of an order has said, once it has said `last`.
async fn said(folder: &Path, order: &Order, last: &str) -> String {
    let path = log_of(folder, order);
    eventually(async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.lines().any(|line| line == last) {
            Ok(text)
        } else {
            Err(format!("{last:?} is not in the log: {text:?}"))
        }
    })
    .await
}

async fn stopped(launcher: &dyn Launcher, order: &Order) -> (String, Option<i32>) {
    eventually(async || {
        let task = launcher.task(&order.session, order.generation).await;
        match task.expect("task").expect("it was launched").state {
            TaskState::Stopped {
                reason,
                exit_code: Some(code),
            } => Ok((reason, Some(code))),
            other => Err(format!("it is {other:?}")),
        }
    })
    .await
}

/// Whether a process runs. One that has ended and that nobody has asked about yet, as below a container's first process,
/// does not.
fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        !state.is_some_and(|state| state.starts_with(['Z', 'X']))
    })
}

#[tokio::test]
async fn an_agent_is_told_who_it_is_and_nothing_that_it_need_not_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!("echo \"$@\"; env; echo done; {RUN}");
    let launcher = processes(folder.path(), &script);
    let order = order(1, 7);
    let task = launcher.launch(&order).await.expect("launch");
    let text = said(folder.path(), &order, "done").await;
    let (arguments, rest) = text.split_once('\n').expect("lines");
    let (before, after) = arguments.split_once(" --host ").expect("a host");
    let state = folder.path().join("state");
    assert_eq!(before, format!("run --local --state {}", state.display()));
    let (host, after) = after.split_once(' ').expect("more");
    assert_eq!(after, format!("--port 0 --task {}", task.name));
    let host: std::net::Ipv4Addr = host.parse().expect("an address");
    assert_eq!(
        (host.octets()[0], host.octets()[1] & 0xf0),
        (127, 16),
        "{host}"
    );

    let told: HashMap<&str, &str> = rest
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    for (name, value) in [
        ("CLIENT_ID", "amelia"),
        ("SESSION_ID", order.session.as_str()),
        ("GENERATION", "7"),
        ("EDIT_DOMAIN", "localhost"),
    ] {
        assert_eq!(told.get(name), Some(&value), "{name}");
    }
    // Cargo sets it for every test, as any program may have set anything.
    assert!(!told.contains_key("CARGO_MANIFEST_DIR"), "{told:?}");
    launcher.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn what_agents_say_is_kept_for_their_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = processes(folder.path(), "echo \"generation $GENERATION\" >&2");
    for generation in [1, 2] {
        let order = order(1, generation);
        launcher.launch(&order).await.expect("launch");
        said(folder.path(), &order, &format!("generation {generation}")).await;
    }
    let path = log_of(folder.path(), &order(1, 1));
    let text = std::fs::read_to_string(&path).expect("a log");
    assert_eq!(text, "generation 1\ngeneration 2\n");
    let mode = |path: &Path| {
        let found = std::fs::metadata(path).expect("metadata");
        found.permissions().mode() & 0o777
    };
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("in a folder")), 0o700);
    let name = path.file_name().expect("a name").to_string_lossy();
    assert!(!name.contains(order(1, 1).session.label()), "{name}");
}

#[tokio::test]
async fn a_task_that_has_ended_says_how() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "case $GENERATION in 1) exit 20;; 2) kill -9 $$;; *) kill -11 $$;; esac";
    let launcher = processes(folder.path(), script);
    let order_of = |generation| order(1, generation);
    launcher.launch(&order_of(1)).await.expect("launch");
    assert_eq!(
        stopped(&launcher, &order_of(1)).await,
        ("the agent ended with code 20".to_owned(), Some(20))
    );
    for (generation, expected) in [
        (2, "the agent was killed (signal 9; perhaps memory ran out)"),
        (3, "signal 11 ended the agent"),
    ] {
        let order = order_of(generation);
        launcher.launch(&order).await.expect("launch");
        eventually(async || {
            let task = launcher.task(&order.session, order.generation).await;
            match task.expect("task").expect("it was launched").state {
                TaskState::Stopped { reason, exit_code } if reason == expected => {
                    assert_eq!(exit_code, None);
                    Ok(())
                }
                other => Err(format!("it is {other:?}")),
            }
        })
        .await;
    }
    assert_eq!(launcher.running().await.expect("running"), []);
    // Whoever launches it again is told how it ended; a new environment is a new generation.
    let again = launcher.launch(&order_of(1)).await.expect("launch");
    assert!(
        matches!(again.state, TaskState::Stopped { .. }),
        "{again:?}"
    );
}

#[tokio::test]
async fn an_agent_that_is_stopped_saves_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let script =
        "trap 'echo saved; exit 0' TERM; tail --pid=$PPID -f /dev/null & echo ready; wait $!";
    let launcher = processes(folder.path(), script);
    let order = order(1, 1);
    let task = launcher.launch(&order).await.expect("launch");
    said(folder.path(), &order, "ready").await;
    launcher
        .stop(&task.name, "nobody came back")
        .await
        .expect("stop");
    assert_eq!(
        stopped(&launcher, &order).await,
        ("nobody came back".to_owned(), Some(0))
    );
    said(folder.path(), &order, "saved").await;
}

/// Also not what the agent itself had started.
#[tokio::test]
async fn nothing_is_left_after_a_shutdown() {
    let folder = tempfile::tempdir().expect("a folder");
    let script =
        "trap '' TERM; tail --pid=$PPID -f /dev/null & echo \"$$ $!\"; echo ready; wait; wait";
    let launcher = processes(folder.path(), script);
    let mut pids: Vec<i32> = Vec::new();
    for number in 1..=3 {
        let order = order(number, 1);
        launcher.launch(&order).await.expect("launch");
        let text = said(folder.path(), &order, "ready").await;
        let line = text.lines().next().expect("a line").to_owned();
        pids.extend(
            line.split(' ')
                .map(|pid| pid.parse::<i32>().expect("a pid")),
        );
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    // They do not listen to TERM, and nobody waits for them longer than that.
    launcher.shutdown(Duration::from_millis(100)).await;
    eventually(async || {
        let left: Vec<&i32> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?} of {pids:?} still run"))
        }
    })
    .await;
    let refused = launcher.launch(&order(4, 1)).await.expect_err("it is over");
    assert!(
        matches!(refused, LaunchFailed::NoCapacity { .. }),
        "{refused:?}"
    );
    let task = launcher.task(&order(1, 1).session, Generation(1)).await;
    let TaskState::Stopped { reason, .. } = task.expect("task").expect("known").state else {
        panic!("it runs");
    };
    assert_eq!(reason, "the router stops");
}

/// Else an update of the router would cost everybody the environment that they have open.
#[test]
fn agents_go_on_when_their_router_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let pid: i32 = runtime.block_on(async {
        let launcher = processes(folder.path(), &format!("echo $$; echo ready; {RUN}"));
        launcher.launch(&order(1, 1)).await.expect("launch");
        let text = said(folder.path(), &order(1, 1), "ready").await;
        text.lines().next().expect("a line").parse().expect("a pid")
    });
    drop(runtime);
    assert!(is_alive(pid));
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is ours");
}

/// And what was refused may be launched once it is put right.
#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = processes(folder.path(), RUN);
    let (agent, aside) = (
        folder.path().join("edit-agent"),
        folder.path().join("aside"),
    );
    std::fs::rename(&agent, &aside).expect("rename");
    let refused = launcher.launch(&order(1, 1)).await.expect_err("no program");
    assert_eq!(
        refused.to_string(),
        format!(
            "the launcher refuses: {} was not started: No such file or directory (os error 2)",
            agent.display()
        )
    );
    assert_eq!(launcher.running().await.expect("running"), []);
    std::fs::rename(&aside, &agent).expect("rename");
    launcher
        .launch(&order(1, 1))
        .await
        .expect("it is there again");
    launcher.shutdown(Duration::from_secs(60)).await;
}

// Tasks of ECS.

/// A launcher on the emulator, which does not know tokens: the second `RunTask` with one is answered as ECS answers one that
/// asks for something else, so that its task is looked for.
pub(crate) async fn tasks(emulator: &'static Emulator) -> Arc<dyn Launcher> {
    let mut seen = std::collections::HashSet::new();
    let front = Front::before(Some(emulator.port()), move |request| {
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let token = body["clientToken"].as_str().unwrap_or_default().to_owned();
        if request.operation() != "RunTask" || seen.insert(token) {
            Act::Pass
        } else {
            Act::Answer(400, CONFLICT.to_owned())
        }
    })
    .await;
    let aws = Aws::load(front.settings()).await;
    let launcher = aws.launcher(emulator.cluster().await);
    Arc::new(Fronted {
        launcher,
        _front: front,
    })
}

const CONFLICT: &str = r#"{"__type":"ConflictException","message":"The provided clientToken is already in use.","resourceIds":[]}"#;

/// A launcher and what stands before the emulator for it.
#[derive(Debug)]
struct Fronted {
    launcher: Arc<dyn Launcher>,
    _front: Front,
}

#[async_trait]
impl Launcher for Fronted {
    async fn launch(&self, order: &Order) -> std::result::Result<Task, LaunchFailed> {
        self.launcher.launch(order).await
    }

    async fn task(&self, session: &SessionId, generation: Generation) -> Result<Option<Task>> {
        self.launcher.task(session, generation).await
    }

    async fn running(&self) -> Result<Vec<Task>> {
        self.launcher.running().await
    }

    async fn stop(&self, task: &str, why: &str) -> Result<()> {
        self.launcher.stop(task, why).await
    }
}

/// A launcher whose every `RunTask` gets this answer, and what it was asked.
async fn answered(status: u16, body: Value) -> (Front, Arc<dyn Launcher>) {
    let answer = Act::Answer(status, body.to_string());
    let front = Front::before(None, move |_| answer.clone()).await;
    let aws = Aws::load(front.settings()).await;
    let settings = EcsSettings {
        cluster: "edit".to_owned(),
        task_definition: "edit-agent:7".to_owned(),
        container_name: "edit-agent".to_owned(),
        subnets: vec!["subnet-1".to_owned()],
        security_groups: vec!["sg-1".to_owned()],
        assign_public_ip: true,
        environment: vec![("LOG_LEVEL".to_owned(), "debug".to_owned())],
    };
    (front, aws.launcher(settings))
}

#[tokio::test]
async fn ecs_is_asked_for_one_task_of_the_clients_size_that_knows_its_session() {
    let failure = json!({ "tasks": [], "failures": [{ "reason": "RESOURCE:CPU" }] });
    for (size, cpu, memory) in [
        (ContainerSize::Small, "512", "1024"),
        (ContainerSize::Medium, "1024", "2048"),
        (ContainerSize::Large, "2048", "4096"),
    ] {
        let (front, launcher) = answered(200, failure.clone()).await;
        let order = Order {
            size,
            ..order(1, 7)
        };
        launcher.launch(&order).await.expect_err("no capacity");
        let seen = front.seen();
        let [request] = seen.as_slice() else {
            panic!("{} requests", seen.len());
        };
        assert_eq!(
            request.header("x-amz-target"),
            Some("AmazonEC2ContainerServiceV20141113.RunTask")
        );
        let mut asked: Value = serde_json::from_str(&request.body).expect("JSON");
        let token = asked["clientToken"].take();
        assert_eq!(asked["startedBy"].take(), token);
        let token = token.as_str().expect("text");
        assert!(
            token.len() <= 36 && !token.contains(order.session.label()),
            "{token}"
        );
        let expected = json!({
            "cluster": "edit",
            "taskDefinition": "edit-agent:7",
            "count": 1,
            "launchType": "FARGATE",
            "clientToken": null,
            "startedBy": null,
            "propagateTags": "TASK_DEFINITION",
            "tags": [{ "key": "client", "value": "amelia" }],
            "networkConfiguration": { "awsvpcConfiguration": {
                "subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "ENABLED",
            } },
            "overrides": {
                "cpu": cpu,
                "memory": memory,
                "containerOverrides": [{
                    "name": "edit-agent",
                    "environment": [
                        { "name": "LOG_LEVEL", "value": "debug" },
                        { "name": "CLIENT_ID", "value": "amelia" },
                        { "name": "SESSION_ID", "value": order.session },
                        { "name": "GENERATION", "value": "7" },
                    ],
                }],
            },
        });
        assert_eq!(asked, expected);
    }
}

/// ECS knows by the token that it is the same one.
#[tokio::test]
async fn a_launch_whose_reply_is_lost_is_repeated_by_the_same_token() {
    let mut lost = false;
    let front = Front::before(Some(emulator().port()), move |request| {
        if !lost && request.operation() == "RunTask" {
            lost = true;
            Act::LoseReply
        } else {
            Act::Pass
        }
    })
    .await;
    let aws = Aws::load(front.settings()).await;
    let launcher = aws.launcher(emulator().cluster().await);
    launcher.launch(&order(1, 1)).await.expect("launch");
    // And so does another router that launches the same.
    let aws = Aws::load(front.settings()).await;
    let other = aws.launcher(emulator().cluster().await);
    other.launch(&order(1, 1)).await.expect("launch");
    let tokens: Vec<Value> = front
        .seen()
        .iter()
        .filter(|request| request.operation() == "RunTask")
        .map(|request| serde_json::from_str::<Value>(&request.body).expect("JSON"))
        .map(|body| body["clientToken"].clone())
        .collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

/// Whoever wakes has to know whether to wait, to give up, or to ask again.
#[tokio::test]
async fn every_way_in_which_ecs_says_no_is_told_from_the_others() {
    let error = |kind: &str, message: &str| json!({ "__type": kind, "message": message });
    let failure = |reason: &str| json!({ "tasks": [], "failures": [{ "reason": reason }] });
    let capacity = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
    let cases = [
        (
            400,
            error("ThrottlingException", "Rate exceeded"),
            "Throttled",
        ),
        (200, failure("RESOURCE:MEMORY"), "NoCapacity"),
        (200, failure(capacity), "NoCapacity"),
        (400, error("ClientException", capacity), "NoCapacity"),
        (200, failure("MISSING"), "Refused"),
        (
            400,
            error("InvalidParameterException", "Invalid subnet."),
            "Refused",
        ),
        (
            400,
            error("ClientException", "TaskDefinition is inactive"),
            "Refused",
        ),
        (
            400,
            error(
                "AccessDeniedException",
                "not authorized to perform: iam:PassRole",
            ),
            "Refused",
        ),
        (
            400,
            error("ClusterNotFoundException", "Cluster not found."),
            "Refused",
        ),
        (
            500,
            error("ServerException", "Service Unavailable."),
            "Unknown",
        ),
        (200, json!({ "tasks": [], "failures": [] }), "Unknown"),
    ];
    for (status, body, expected) in cases {
        let (_front, launcher) = answered(status, body.clone()).await;
        let said = launcher
            .launch(&order(1, 1))
            .await
            .expect_err("it is refused");
        let kind = format!("{said:?}");
        assert!(kind.starts_with(expected), "{body}: {kind}");
        assert!(!kind.contains(order(1, 1).session.label()), "{kind}");
    }
}

#[tokio::test]
async fn what_an_operator_has_to_put_right_is_said_in_words() {
    let (_front, launcher) = answered(
        400,
        json!({ "__type": "ClusterNotFoundException", "message": "Cluster not found." }),
    )
    .await;
    let said = launcher.launch(&order(1, 1)).await.expect_err("no cluster");
    assert_eq!(
        said.to_string(),
        "the launcher refuses: there is no such cluster: name the one that exists in ECS_CLUSTER (task definition \
         edit-agent:7 in cluster edit in eu-central-1)"
    );
}

#[tokio::test]
async fn a_launch_that_is_not_answered_is_unknown_and_comes_to_an_end() {
    let front = Front::before(None, |_| Act::Silence).await;
    let mut settings = front.settings();
    settings.patience = Patience {
        attempt: Duration::from_millis(100),
        operation: Duration::from_millis(300),
        ..Patience::default()
    };
    let launcher = Aws::load(settings).await.launcher(EcsSettings::default());
    let said = launcher.launch(&order(1, 1)).await.expect_err("silence");
    assert!(matches!(said, LaunchFailed::Unknown(_)), "{said:?}");
}

/// Somebody looks at the image by hand, and there is more than one page of tasks.
#[tokio::test]
async fn tasks_of_others_are_not_listed_and_all_of_ours_are() {
    let settings = emulator().cluster().await;
    let run = |variables: Value, count: u32| {
        json!({
            "cluster": settings.cluster, "taskDefinition": settings.task_definition, "count": count,
            "launchType": "FARGATE",
            "overrides": { "containerOverrides": [{ "name": "edit-agent", "environment": variables }] },
        })
    };
    let target = format!("{ECS}.RunTask");
    emulator().ask(&target, &run(json!([]), 3)).await;
    let strange = json!([{ "name": "SESSION_ID", "value": "No Session" }, { "name": "GENERATION", "value": "1" }]);
    emulator().ask(&target, &run(strange, 1)).await;
    let ours = json!([
        { "name": "SESSION_ID", "value": order(1, 1).session }, { "name": "GENERATION", "value": "1" },
    ]);
    emulator().ask(&target, &run(ours, 120)).await;
    let launcher = emulator().aws().await.launcher(settings);
    let listed = launcher.running().await.expect("running");
    assert_eq!(listed.len(), 120);
    assert!(
        listed
            .iter()
            .all(|task| task.session == order(1, 1).session)
    );
}

/// The table of how it is not AWS is in `template.rs`.
#[tokio::test]
async fn the_emulator_starts_a_second_task_by_the_same_token() {
    let launcher = emulator().aws().await.launcher(emulator().cluster().await);
    let first = launcher.launch(&order(1, 1)).await.expect("launch");
    let second = launcher.launch(&order(1, 1)).await.expect("launch");
    assert_ne!(
        first.name, second.name,
        "it learnt it: `tasks` need no front"
    );
}
