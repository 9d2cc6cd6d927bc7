//! Starts that cannot come about: what the log says, what the record says, how it exits, and that `check` says the same.

use contract::session::State;
use platform::conformance::front::{Act, Front};
use serde_json::{Value, json};

use super::{behind, is_for_operators, is_set, said};
use crate::git_servers::{HttpServer, SshServer};
use crate::support::seat::{Seat, Town, emulator, site};
use crate::support::{PATIENCE, Repository, agent, git};

/// A start that cannot come about.
struct Case {
    /// What is wrong.
    what: &'static str,
    seat: Seat,
    exit: i32,
    /// `failure.code`.
    code: &'static str,
    retryable: bool,
    /// Whether the record can be told. If not, nobody's record is touched.
    told: bool,
    /// What the last line of the log names.
    names: Vec<String>,
}

impl Case {
    fn new(what: &'static str, seat: Seat, exit: i32, code: &'static str, names: &[&str]) -> Self {
        Self {
            what,
            seat,
            exit,
            code,
            retryable: false,
            told: true,
            names: names.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn passing(self) -> Self {
        Self {
            retryable: true,
            ..self
        }
    }

    fn untold(self) -> Self {
        Self {
            told: false,
            ..self
        }
    }

    /// `check` says it, and then `run` ends so.
    async fn holds(self) {
        let Self { what, seat, .. } = &self;
        let before = seat.town.sessions.get(&seat.id).await.ok().flatten();
        let (exit, report) = checked(seat).await;
        assert_eq!(exit, self.exit, "{what}: {report}");
        let named = |text: &str| self.names.iter().all(|name| text.contains(name.as_str()));
        assert!(named(&report), "{what}: {:?}: {report}", self.names);
        assert!(report.contains("hint: "), "{what}: {report}");
        assert!(!report.contains(seat.id.label()), "{what}: {report}");
        let after = seat.town.sessions.get(&seat.id).await.ok().flatten();
        assert_eq!(before, after, "{what}: a check changes nothing");

        let container = seat.container().variable("LOG_LEVEL", "info");
        let (exit, log) = container.fails().await;
        assert_eq!(exit, self.exit, "{what}: {log}");
        let lines = is_for_operators(&log, seat);
        let ends: Vec<&Value> = lines
            .iter()
            .filter(|line| line["exit"].is_number())
            .collect();
        assert_eq!(ends.len(), 1, "{what}: it is said once: {log}");
        let end = ends[0];
        assert_eq!(end["level"], "ERROR", "{what}: {log}");
        assert_eq!(end["code"], self.code, "{what}: {log}");
        assert_eq!(end["exit"], self.exit, "{what}: {log}");
        let message = end["message"].as_str().unwrap_or_default();
        assert!(named(message), "{what}: {:?}: {log}", self.names);
        assert!(
            end["hint"].as_str().is_some_and(|hint| hint.len() > 20),
            "{what}: {log}"
        );

        let record = seat.town.sessions.get(&seat.id).await.ok().flatten();
        if !self.told {
            assert_eq!(record, before, "{what}: {log}");
            return;
        }
        let record = record.expect("the record stays");
        let failure = record
            .failure
            .unwrap_or_else(|| panic!("{what}: no failure: {log}"));
        assert_eq!(
            (record.state, failure.code.as_str(), failure.retryable),
            (State::Failed, self.code, self.retryable),
            "{what}: {log}"
        );
        assert_eq!(record.lease_until, None, "{what}");
        crate::support::is_plain(&failure.message);
    }
}

/// What `edit-agent check` says, and how it ends.
async fn checked(seat: &Seat) -> (i32, String) {
    let mut command = agent();
    command
        .arg("check")
        .args(&seat.town.arguments)
        .env("CLIENT_ID", seat.config.client_id.as_str())
        .env("SESSION_ID", seat.id.as_str())
        .env("PORT", "0")
        .envs(seat.town.variables.iter().cloned());
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

fn address(repository: &Repository) -> String {
    repository.path().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_client_is_said_in_the_record_and_by_check() {
    let town = Town::in_the_cloud().await;
    let clients = town.stack.clone().expect("in the cloud").clients;
    let repository = site();
    let fine = || town.session(repository.path().to_str().expect("UTF-8"), json!({}));

    let missing = fine().await;
    let key = json!({ "clientId": { "S": missing.config.client_id } });
    let delete = json!({ "TableName": clients, "Key": key });
    emulator()
        .ask("DynamoDB_20120810.DeleteItem", &delete)
        .await;
    let id = missing.config.client_id.to_string();
    Case::new(
        "no row",
        missing,
        20,
        "config_invalid",
        &["no configuration of the client", &id],
    )
    .holds()
    .await;

    let invalid = fine().await;
    // As an operator writes it at the console.
    let row = json!({
        "clientId": { "S": invalid.config.client_id },
        "status": { "S": "actve" },
        "domains": { "M": {
            "production": { "S": "ameliastamps.com" }, "edit": { "S": "edit ameliastamps" }, "api": { "S": "api.ameliastamps.com" },
        } },
        "repository": { "M": { "url": { "S": address(&repository) }, "branch": { "S": "" } } },
        "infrastructure": { "M": {} },
        "settings": { "M": {
            "containerSize": { "S": "huge" }, "idleTimeoutMinutes": { "N": "-3" }, "maxConcurrentSessions": { "N": "2" },
        } },
    });
    let put = json!({ "TableName": clients, "Item": row });
    emulator().ask("DynamoDB_20120810.PutItem", &put).await;
    let all = [
        "status",
        "domains.edit",
        "repository.branch",
        "settings.containerSize",
        "settings.idleTimeoutMinutes",
    ];
    Case::new(
        "a row with five mistakes",
        invalid,
        20,
        "config_invalid",
        &all,
    )
    .holds()
    .await;

    let suspended = town
        .session_of(&address(&repository), json!({ "status": "suspended" }))
        .await;
    Case::new(
        "suspended",
        suspended,
        21,
        "client_suspended",
        &["is suspended"],
    )
    .holds()
    .await;

    let nobody = fine().await;
    let sessions = town.stack.clone().expect("in the cloud").sessions;
    let key = json!({ "sessionId": { "S": nobody.id } });
    let delete = json!({ "TableName": sessions, "Key": key });
    emulator()
        .ask("DynamoDB_20120810.DeleteItem", &delete)
        .await;
    Case::new(
        "no session",
        nobody,
        20,
        "config_invalid",
        &["there is no session"],
    )
    .untold()
    .holds()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_repository_or_its_key_is_said_in_the_record_and_by_check() {
    let town = Town::in_the_cloud().await;
    let repository = site();
    let name = emulator().fresh_name();
    let secret = json!({ "Name": name, "SecretString": "ghp_NotTheRightOne" });
    let made = emulator().ask("secretsmanager.CreateSecret", &secret).await;
    let wrong = format!("secretsmanager:{}", made["ARN"].as_str().expect("an ARN"));
    let ssh = SshServer::start().await;
    let other_key = ssh.other_key();
    let other_key = std::fs::read_to_string(other_key.trim_start_matches("file:")).expect("there");
    let parameter =
        json!({ "Name": format!("/{name}"), "Value": other_key, "Type": "SecureString" });
    emulator().ask("AmazonSSM.PutParameter", &parameter).await;
    let http = HttpServer::with_token(&repository).await;
    let of =
        |over: Value| town.session_of("https://127.0.0.1/x.git", json!({ "repository": over }));

    for reference in [
        "secretsmanager:arn:aws:secretsmanager:eu-central-1:000000000000:secret:nowhere-AbCdEf",
        "ssm:/nowhere",
        "env:NO_SUCH_VARIABLE",
    ] {
        let seat = of(json!({ "url": http.url(&repository), "deployKey": reference })).await;
        Case::new(
            "no secret",
            seat,
            20,
            "config_invalid",
            &[reference, "does not exist"],
        )
        .holds()
        .await;
    }
    assert_eq!(http.seen().len(), 0, "without the key nobody is asked");

    let seat = of(json!({ "url": http.url(&repository), "deployKey": wrong })).await;
    Case::new(
        "a wrong token",
        seat,
        11,
        "remote_refused",
        &["did not accept the credentials"],
    )
    .holds()
    .await;
    assert!(
        http.seen().len() <= 16,
        "it is not tried for ever: {:#?}",
        http.seen()
    );

    let seat = of(json!({
        "url": ssh.url(&repository), "deployKey": format!("ssm:/{name}"), "hostKeys": [ssh.host_key()],
    }));
    Case::new(
        "a wrong key",
        seat.await,
        11,
        "remote_refused",
        &["did not accept the credentials"],
    )
    .holds()
    .await;
    assert!(ssh.connections() <= 4, "{}", ssh.log());

    let before = ssh.connections();
    let seat = of(json!({
        "url": ssh.url(&repository), "deployKey": ssh.deploy_key(), "hostKeys": [ssh.other_host_key()],
    }));
    Case::new(
        "another server",
        seat.await,
        11,
        "remote_refused",
        &[&ssh.host_key()],
    )
    .holds()
    .await;
    assert!(ssh.connections() - before <= 4, "{}", ssh.log());

    let open = HttpServer::open_to_all(&repository).await;
    let seat = of(json!({ "url": open.at("/nowhere.git") })).await;
    Case::new(
        "gone",
        seat,
        10,
        "repository_unusable",
        &["there is no git repository"],
    )
    .holds()
    .await;

    let renamed = site();
    git(renamed.path(), &["branch", "--move", "main", "trunk"]);
    let at_it = HttpServer::open_to_all(&renamed).await;
    let seat = of(json!({ "url": at_it.url(&renamed) })).await;
    Case::new(
        "renamed",
        seat,
        10,
        "repository_unusable",
        &["no branch main", "trunk"],
    )
    .holds()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_queues_that_are_missing_are_named() {
    let repository = site();
    for (variable, told) in [
        ("CLIENT_CONFIGS_TABLE", true),
        ("SESSIONS_TABLE", false),
        ("RECEIPTS_TABLE", true),
    ] {
        let mut town = Town::in_the_cloud().await;
        is_set(&mut town, variable, "no-such-table");
        let seat = town.session(&address(&repository), json!({})).await;
        let names = ["there is no table no-such-table", "infra/data.yaml"];
        let case = Case::new(variable, seat, 22, "backend_unavailable", &names);
        if told { case } else { case.untold() }.holds().await;
    }
    let town = Town::in_the_cloud().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let queue = seat.record().await.queue_url;
    emulator()
        .ask("AmazonSQS.DeleteQueue", &json!({ "QueueUrl": queue }))
        .await;
    Case::new(
        "no queue",
        seat,
        22,
        "backend_unavailable",
        &["there is no queue webordinary-edits-"],
    )
    .holds()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_may_not_do_is_said_once_and_not_tried_again() {
    let repository = site();
    let (front, town) = behind().await;
    let stack = town.stack.clone().expect("in the cloud");
    for (service, thing, told) in [
        ("DynamoDB_20120810", stack.clients.clone(), true),
        ("DynamoDB_20120810", stack.sessions.clone(), false),
        ("DynamoDB_20120810", stack.receipts.clone(), true),
        ("AmazonSQS", "webordinary-edits-".to_owned(), true),
    ] {
        let wanted = thing.clone();
        let denied = move |request: &platform::conformance::front::Request| {
            request.service() == service && request.body.contains(&wanted)
        };
        let denies = denied.clone();
        front.from_now_on(move |request| {
            if denies(request) {
                let user = "User: arn:aws:sts::1:assumed-role/edit-agent/task is not authorized to perform: it";
                return Act::Answer(400, said("AccessDeniedException", user));
            }
            Act::Pass
        });
        let seat = town.session(&address(&repository), json!({})).await;
        let before = front.seen().len();
        let names = ["the role may not do that to", "assumed-role/edit-agent"];
        let case = Case::new("no permission", seat, 22, "backend_unavailable", &names);
        if told { case } else { case.untold() }.holds().await;
        let asked = front.seen()[before..]
            .iter()
            .filter(|request| denied(request))
            .count();
        assert!(
            (2..=3).contains(&asked),
            "{service} {thing}: {asked} times by check and run"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_endpoint_that_does_not_say_which_task_it_is_ends_in_the_record() {
    let repository = site();
    let silent = Front::before(None, |_| Act::Silence).await;
    let garbage = Front::before(None, |_| {
        Act::Answer(200, "<html>Welcome</html>".to_owned())
    })
    .await;
    let lacking = Front::before(None, |_| Act::Answer(200, "{}".to_owned())).await;
    let forbidden = Front::before(None, |_| Act::Answer(404, String::new())).await;
    let nobody = {
        let gone = Front::before(None, |_| Act::Silence).await;
        gone.url()
    };
    for (what, url, names) in [
        ("nobody listens", nobody, "onnect"),
        ("it says nothing", silent.url(), "did not answer within 2 s"),
        ("garbage", garbage.url(), "no JSON"),
        ("not a task", lacking.url(), "no TaskARN"),
        ("404", forbidden.url(), "404"),
    ] {
        let mut town = Town::in_the_cloud().await;
        is_set(
            &mut town,
            "ECS_CONTAINER_METADATA_URI_V4",
            &format!("{url}/v4/x"),
        );
        let seat = town.session(&address(&repository), json!({})).await;
        let names = ["metadata endpoint", names];
        Case::new(what, seat, 22, "backend_unavailable", &names)
            .passing()
            .holds()
            .await;
    }
    for front in [silent, garbage, lacking, forbidden] {
        assert!(
            front.seen().len() <= 12,
            "it is not asked for ever: {}",
            front.seen().len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_is_not_told_is_named_all_at_once() {
    let repository = site();
    let town = Town::in_the_cloud().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let before = seat.record().await;
    let (exit, said) = seat
        .container()
        .without("ECS_CONTAINER_METADATA_URI_V4")
        .without("SESSION_ID")
        .variable("LOG_FORMAT", "xml")
        .fails()
        .await;
    assert_eq!(exit, 2, "{said}");
    let named = [
        "ECS_CONTAINER_METADATA_URI_V4",
        "SESSION_ID is not set",
        "LOG_FORMAT=xml",
        "hint: ",
    ];
    assert!(named.iter().all(|name| said.contains(name)), "{said}");
    assert_eq!(seat.record().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_registers_the_address_that_ecs_says() {
    let repository = site();
    let mut town = Town::in_the_cloud().await;
    // In a container nobody names an address: it listens on all of them.
    town.arguments.clear();
    let seat = town.session(&address(&repository), json!({})).await;
    let awake = seat.wakes().await;
    assert_eq!(
        seat.record().await.container_ip.as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(awake.visit("/").await.status, 200);
    assert_eq!(awake.stopped().await.0, 0);
}

/// An endpoint of credentials that fails so often first.
async fn credentials_after(failures: usize) -> Front {
    let mut asked = 0;
    Front::before(None, move |_| {
        asked += 1;
        if asked <= failures {
            return Act::Answer(500, "busy".to_owned());
        }
        let hour = std::time::Duration::from_secs(3600);
        let keys = json!({
            "AccessKeyId": "test", "SecretAccessKey": "test", "Token": "a-token-canary",
            "Expiration": contract::Timestamp::now().plus(hour),
        });
        Act::Answer(200, keys.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_come_late_are_waited_for_and_those_that_never_come_are_not() {
    let repository = site();
    let suspended = json!({ "status": "suspended" });
    let late = credentials_after(5).await;
    let mut town = Town::in_the_cloud().await;
    is_set(&mut town, "AWS_CONTAINER_CREDENTIALS_FULL_URI", &late.url());
    // It reads the configuration, and that is as far as this story goes.
    let seat = town
        .session_of(&address(&repository), suspended.clone())
        .await;
    let (exit, log) = seat.container().variable("LOG_LEVEL", "info").fails().await;
    assert_eq!(exit, 21, "{log}");
    is_for_operators(&log, &seat);

    let never = credentials_after(usize::MAX).await;
    let mut town = Town::in_the_cloud().await;
    is_set(
        &mut town,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        &never.url(),
    );
    let seat = town.session_of(&address(&repository), suspended).await;
    Case::new(
        "no credentials",
        seat,
        22,
        "backend_unavailable",
        &["credential"],
    )
    .untold()
    .holds()
    .await;
    let asked = never.seen().len();
    assert!(asked <= 150, "it is not asked for ever: {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_says_nothing_is_given_up_within_the_budget_of_its_phase() {
    let repository = site();
    let (front, town) = behind().await;
    front.from_now_on(|_| Act::Silence);
    let seat = town.session(&address(&repository), json!({})).await;
    let begun = std::time::Instant::now();
    Case::new(
        "silence",
        seat,
        22,
        "backend_unavailable",
        &["read the session's record"],
    )
    .untold()
    .holds()
    .await;
    assert!(begun.elapsed() < PATIENCE);
    assert!(front.seen().len() <= 40, "{}", front.seen().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_aws_does_not_believe_is_named() {
    let repository = site();
    let (front, town) = behind().await;
    front.from_now_on(|_| {
        let message = "Signature expired: 20261127T100000Z is now earlier than 20261127T101000Z (20261127T101500Z - 5 min.)";
        Act::Answer(400, said("InvalidSignatureException", message))
    });
    let seat = town.session(&address(&repository), json!({})).await;
    Case::new(
        "a wrong clock",
        seat,
        22,
        "backend_unavailable",
        &["clock", "Signature expired"],
    )
    .untold()
    .holds()
    .await;
    assert!(front.seen().len() <= 80, "{}", front.seen().len());
}
