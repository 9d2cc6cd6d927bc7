//! A session in a container, from its start to its end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::town::{ENVIRONMENT, SESSION, Town};

/// How long an environment may take to be ready, its dependencies installed, on a machine that is building something else.
const READY_TIME_MAX: Duration = Duration::from_secs(300);
/// How long ECS waits before it kills.
const STOP_TIME_MAX: Duration = Duration::from_secs(120);

/// The first line of an answer.
fn answer(address: &str, path: &str) -> String {
    let mut door = TcpStream::connect(address).expect("the door is open");
    write!(
        door,
        "GET {path} HTTP/1.1\r\nHost: edit.amelia.localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("it listens");
    let mut said = String::new();
    door.read_to_string(&mut said).ok();
    said.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_session_starts_shows_nothing_to_strangers_and_ends_when_it_is_asked_to() {
    let town = Town::new();
    assert_eq!(town.git(&["branch", "--list"]).well().trim(), "* main");
    let command = town.command("task-1");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let environment = town
        .environment()
        .memory_mib(1024)
        .processes(512)
        .start(&command);
    environment.line_with("\"message\":\"ready\"", READY_TIME_MAX);

    let record = town.record();
    assert_eq!(record["state"]["S"], "ready", "{record}");
    assert_eq!(record["sessionId"]["S"], SESSION);
    let address = format!("{}:8080", town.network.address(ENVIRONMENT));
    assert!(
        answer(&address, "/").contains(" 421 "),
        "the door answers a stranger"
    );
    let zombies: Vec<_> = environment
        .processes()
        .into_iter()
        .filter(|process| process.state == 'Z')
        .collect();
    assert_eq!(zombies, []);

    let (code, took) = environment.stop(STOP_TIME_MAX);
    assert_eq!(
        code,
        0,
        "after {took:?}:\n{}",
        environment.lines().join("\n")
    );
    assert_eq!(town.record()["state"]["S"], "dormant");
}
