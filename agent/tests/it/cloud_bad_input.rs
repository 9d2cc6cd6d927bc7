//! Bad input in the cloud: what is missing, forbidden, wrong, silent or garbage. Each ends in the right receipt or failure
//! record, within its budget, with bounded retries and without a lost message; and the log tells whoever is called at night.
//!
//! What is wrong before an environment is there is in [`starts`], what goes wrong while it works in [`storms`], and what
//! comes through the queue, or is killed, in [`messages`].

mod messages;
mod starts;
mod storms;

use platform::conformance::front::{Act, Front};
use serde_json::Value;

use crate::support::ecs::SECRET_PATH;
use crate::support::seat::{Seat, Town, emulator};
use crate::support::{Repository, state};

/// The cloud, with a server between it and the containers; this test itself asks the emulator.
async fn behind() -> (Front, Town) {
    let front = Front::before(Some(emulator().port()), |_| Act::Pass).await;
    let mut town = Town::in_the_cloud().await;
    is_set(&mut town, "AWS_ENDPOINT_URL", &front.url());
    (front, town)
}

/// Every container of the town is told so.
fn is_set(town: &mut Town, name: &str, value: &str) {
    town.variables.retain(|(known, _)| known != name);
    town.variables.push((name.to_owned(), value.to_owned()));
}

/// How a service says no.
fn said(code: &str, message: &str) -> String {
    serde_json::json!({ "__type": format!("com.amazonaws#{code}"), "message": message }).to_string()
}

/// A disk of a container's own, as in the cloud; only the dependencies are there already.
fn own_disk() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, here) = (state().join("store"), folder.path().join("store"));
    std::fs::create_dir_all(&store).expect("made");
    std::os::unix::fs::symlink(store, here).expect("linked");
    folder
}

/// The instructions that landed on the draft, in order.
fn landed(repository: &Repository) -> Vec<String> {
    let trailers = repository.git(&[
        "log",
        "--reverse",
        "--format=%(trailers:key=Edit-Instruction,valueonly,separator=)",
        "main..edit/spring",
    ]);
    trailers.lines().map(str::to_owned).collect()
}

/// What an operator reads at night: lines for programs, and nothing that opens a door or is a client's.
fn is_for_operators(log: &str, seat: &Seat) -> Vec<Value> {
    for secret in [seat.id.label(), SECRET_PATH, "a-token-canary"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
    let lines = log.lines().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?} of: {log}"))
    });
    lines.collect()
}
