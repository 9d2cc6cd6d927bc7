//! Two environments of two clients and the gateway before them, on a network of their own.

use std::time::Duration;

use crate::engine::{Recipe, Running, until};
use crate::session::STOP_TIME_MAX;
use crate::town::{ENVIRONMENT, SESSION, Town, ask};

const ROUTER: u8 = 5;
const OTHER: u8 = ENVIRONMENT + 1;
const OTHER_SESSION: &str = "bruno_other";
const PAGE_TIME_MAX: Duration = Duration::from_secs(90);

/// The gateway, as a task of its own is started.
fn gateway(town: &Town) -> Running {
    let network = format!("{}/24", town.network.address(0));
    town.citizen(Recipe::router(), ROUTER)
        .read_only()
        .without_capabilities()
        .without_new_privileges()
        .variable("ALLOWED_CIDRS", &network)
        // No load balancer is before it here: nobody is believed what one says.
        .variable("TRUSTED_HOPS", "192.0.2.0/24")
        .variable("ECS_CLUSTER", "edit-environments")
        .variable("TASK_DEFINITION", "edit-agent")
        .variable("SUBNETS", "subnet-0")
        .variable("SECURITY_GROUPS", "sg-0")
        .variable(
            "INTAKE_QUEUE_URL",
            "http://emulator:4566/000000000000/webordinary-intake.fifo",
        )
        .variable(
            "DEAD_QUEUE_URL",
            "http://emulator:4566/000000000000/webordinary-edits-dead.fifo",
        )
        .variable("LINK_KEYS", &format!("one:{}", "5a".repeat(32)))
        .start(&["serve"])
}

#[test]
fn the_gateway_shows_each_client_its_own_site_and_nobody_elses() {
    let town = Town::new();
    // The router makes the session of the other client when somebody comes; here nobody does.
    town.aws(&format!(
        "mine = session({SESSION:?})\n\
         url = sqs.create_queue(QueueName='webordinary-edits-{OTHER_SESSION}.fifo', Attributes={{'FifoQueue': 'true', 'DeduplicationScope': 'messageGroup', 'FifoThroughputLimit': 'perMessageGroupId'}})['QueueUrl']\n\
         said = sessions.put_item(Item=mine | {{'sessionId': {OTHER_SESSION:?}, 'clientId': 'bruno', 'userId': 'bruno', 'queueUrl': url, 'previewUrl': 'https://edit.bruno.localhost/'}})['ResponseMetadata']['HTTPStatusCode']"
    ));
    let first = town.environment().start(&town.command("task-1"));
    let second = town.environment_of("bruno", OTHER_SESSION, OTHER).start(&[
        "run",
        "--ip",
        &town.network.address(OTHER),
        "--task",
        "task-2",
    ]);
    town.record_when("row['state'] == 'ready'");
    town.record_of(OTHER_SESSION, "row['state'] == 'ready'");
    town.writes("ours", "src/pages/ours.md", "# Only Amelia has this\n");
    assert_eq!(town.receipt("ours")["status"], "pushed");

    let gateway = gateway(&town);
    let address = format!("{}:8080", town.network.address(ROUTER));
    let well = until(PAGE_TIME_MAX, || {
        if gateway.is_healthy() {
            Ok(())
        } else {
            Err(())
        }
    });
    assert!(
        well.is_ok(),
        "the gateway is not well: {:#?}",
        gateway.lines()
    );

    let entered = |client: &str, session: &str| {
        let host = format!("edit.{client}.localhost");
        let (status, said) = ask(
            &address,
            &format!("/session/{session}/"),
            &[("Host", &host)],
        );
        assert_eq!(status, 303, "{said}");
        let cookie = said
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("set-cookie: ")
                    .map(|_| &line[12..])
            })
            .unwrap_or_else(|| panic!("no cookie: {said}"));
        cookie.split(';').next().unwrap_or_default().to_owned()
    };
    let page = |client: &str, path: &str, cookie: &str| {
        let host = format!("edit.{client}.localhost");
        ask(&address, path, &[("Host", &host), ("Cookie", cookie)])
    };
    let amelia = entered("amelia", SESSION);
    let bruno = entered("bruno", OTHER_SESSION);
    let (status, said) = page("amelia", "/ours/", &amelia);
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("Only Amelia has this"), "{said}");
    let (status, said) = page("bruno", "/", &bruno);
    assert_eq!(status, 200, "{said}");
    assert!(!page("bruno", "/ours/", &bruno).1.contains("Only Amelia"));
    // With the other's cookie, with the other's session, with none: nothing, and always the same.
    let nothing = page("bruno", "/ours/", "").0;
    assert_eq!(nothing, 404);
    assert_eq!(page("bruno", "/ours/", &amelia).0, 404);
    let host = [("Host", "edit.bruno.localhost")];
    assert_eq!(ask(&address, &format!("/session/{SESSION}/"), &host).0, 404);

    // Who is gone is not shown: the page waits for it.
    let (code, _) = second.stop(STOP_TIME_MAX);
    assert_eq!(code, 0);
    let waits = until(PAGE_TIME_MAX, || {
        let (status, said) = page("bruno", "/", &bruno);
        if said.contains("/_edit/static/") {
            Ok(())
        } else {
            Err((status, said))
        }
    });
    waits.unwrap_or_else(|(status, said)| panic!("{status}: {said}"));
    assert_eq!(page("amelia", "/ours/", &amelia).0, 200);
    assert_eq!(first.stop(STOP_TIME_MAX).0, 0);
    assert_eq!(gateway.stop(STOP_TIME_MAX).0, 0);
}
