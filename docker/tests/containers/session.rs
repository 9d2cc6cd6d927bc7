//! A session in a container, from its start to its end: what its producer, its owner and its operator see.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::engine::Running;
use crate::town::{ENVIRONMENT, SESSION, Town, ask};

/// How long ECS waits before it kills.
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(120);

/// How long nobody may be there before it sleeps, from its next start on.
fn idles_for(town: &Town, minutes: &str) {
    town.aws(&format!("said = clients.update_item(Key={{'clientId': 'amelia'}}, UpdateExpression='SET settings.idleTimeoutMinutes = :m', ExpressionAttributeValues={{':m': Decimal('{minutes}')}})['ResponseMetadata']['HTTPStatusCode']"));
}

/// Asked to stop, and with nothing to do.
fn ends_well(environment: &Running) {
    let (code, took) = environment.stop(STOP_TIME_MAX);
    let said = environment.lines().join("\n");
    assert_eq!(code, 0, "after {took:?}:\n{said}");
}

const ROOT: u32 = 0;
const SITE: u32 = 10001;

#[test]
fn an_environment_lives_sleeps_and_lives_again_and_nothing_is_lost_or_done_twice() {
    let town = Town::new();
    town.wants_builds();
    for number in 1..=3 {
        let (id, path) = (
            format!("page-{number}"),
            format!("src/pages/page-{number}.md"),
        );
        town.writes(&id, &path, &format!("# Page {number}\n"));
    }
    town.sends(
        "never",
        &json!([{ "op": "replace", "path": "src/pages/index.astro", "find": "no such words", "replace": "Old" }]),
    );
    let recipe = town.environment().memory_mib(1024);
    let environment = recipe.start(&town.command("task-1"));
    for number in 1..=3 {
        let receipt = town.receipt(&format!("page-{number}"));
        assert_eq!(receipt["status"], "pushed", "{receipt:#}");
    }
    assert_eq!(town.receipt("never")["status"], "rejected");

    let record = town.record_when("row['state'] == 'ready'");
    assert_eq!(record["generation"], 1.0, "{record:#}");
    let isolation = &record["isolation"];
    assert_eq!(isolation["users"], true, "{record:#}");
    assert_eq!(isolation["boundary"], "noEndpoint", "{record:#}");
    assert!(isolation["attempts"].as_f64() > Some(50.0), "{record:#}");
    let (status, page) = town.page("/page-2/");
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("Page 2"), "{page}");
    let door = format!("{}:8080", town.network.address(ENVIRONMENT));
    assert_eq!(
        ask(&door, "/page-2/", &[]).0,
        421,
        "the door answers a stranger"
    );
    assert!(environment.is_healthy());
    let processes = environment.processes();
    assert_eq!(
        processes
            .iter()
            .filter(|process| process.state == 'Z')
            .count(),
        0,
        "{processes:#?}"
    );
    // Init, the daemon and nobody else are root.
    let root: Vec<&str> = processes
        .iter()
        .filter(|process| process.uid == ROOT)
        .map(|process| process.name.as_str())
        .collect();
    assert_eq!(root, ["edit-init", "edit-agent"], "{processes:#?}");

    ends_well(&environment);
    assert_eq!(town.record()["state"], "dormant");

    // Somebody asks while it sleeps, twice the same. Another container, with nothing of the first one's, and without new privileges.
    // Nobody is there: it sleeps by itself.
    idles_for(&town, "0.2");
    town.writes("again", "src/pages/again.md", "# Again\n");
    town.writes("page-1", "src/pages/page-1.md", "# Page 1\n");
    let environment = recipe
        .clone()
        .without_new_privileges()
        .start(&town.command("task-2"));
    assert_eq!(
        environment.exit_code(STOP_TIME_MAX),
        0,
        "{:#?}",
        environment.lines()
    );
    assert_eq!(town.record()["state"], "dormant");
    assert_eq!(town.receipt("again")["status"], "pushed");
    assert_eq!(town.landed(), ["again", "page-3", "page-2", "page-1"]);
    idles_for(&town, "15");
    let environment = recipe.start(&town.command("task-3"));

    // It is published, which builds it, as a user of its own that leaves nothing running.
    town.asks("live", &json!({ "type": "publish" }));
    let receipt = town.receipt("live");
    assert_eq!(receipt["status"], "published", "{receipt:#}");
    assert_eq!(
        town.landed(),
        [""; 0],
        "all of it is on the published branch"
    );
    let processes = environment.processes();
    let users: BTreeSet<u32> = processes.iter().map(|process| process.uid).collect();
    assert_eq!(users, BTreeSet::from([ROOT, SITE]), "{processes:#?}");

    ends_well(&environment);
    let record = town.record();
    assert_eq!(
        (&record["state"], &record["generation"]),
        (&json!("dormant"), &json!(3.0)),
        "{record:#}"
    );
    assert_eq!(record["sessionId"], SESSION);
}
