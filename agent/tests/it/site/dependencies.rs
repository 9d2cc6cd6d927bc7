//! How the site's dependencies get into place, and what is said where that takes a detour.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::minimal;
use crate::support::{Environment, PATIENCE, Repository, Start, agent, copy_tree, no_processes_of};

#[tokio::test]
async fn a_new_dependency_is_installed_and_one_that_cannot_be_is_said() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--allow", "dependencies", "--on-broken", "keep"])
        .ready()
        .await;
    // As a developer makes such a change: with npm, in a copy.
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(repository.path().join(name), copy.path().join(name)).expect("copied");
    }
    npm(
        copy.path(),
        &[
            "install",
            "--package-lock-only",
            "--ignore-scripts",
            "is-number@7.0.0",
        ],
    )
    .await;
    let written = |name: &str| format!("{name}=@{}", copy.path().join(name).display());
    let mut events = environment.events(None).await;
    let page = "---\nimport isNumber from 'is-number';\n---\n<html><body>{isNumber('5e3') ? 'a number' : 'none'}</body></html>";
    environment
        .lands(&[
            "--write",
            &written("package.json"),
            "--write",
            &written("package-lock.json"),
            "--write",
            &format!("src/pages/number.astro={page}"),
        ])
        .await;
    assert_eq!(
        events.site_states_until("serving").await,
        ["halted", "installing", "starting", "serving"]
    );
    environment.page_with("/number/", "a number").await;

    let manifest = std::fs::read_to_string(copy.path().join("package.json")).expect("there");
    let typo = manifest.replace("is-number", "is-number-with-a-typo-of-edit-agent");
    environment
        .lands(&["--write", &format!("package.json={typo}")])
        .await;
    let status = environment
        .status_when("broken", |status| status["site"]["state"] == "broken")
        .await;
    let message = status["site"]["problem"]["message"]
        .as_str()
        .expect("words");
    assert!(
        message.contains("could not be installed") && message.contains("E404"),
        "{message}"
    );
    environment
        .lands(&["--write", &format!("package.json={manifest}")])
        .await;
    environment.page_with("/number/", "a number").await;
    assert_eq!(environment.status().await["site"]["health"], "ok");
}

async fn npm(folder: &Path, arguments: &[&str]) {
    let output = tokio::process::Command::new("npm")
        .args(arguments)
        .args(["--no-audit", "--no-fund"])
        .current_dir(folder)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("npm ends")
        .expect("npm runs");
    assert!(
        output.status.success(),
        "npm {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn an_install_that_hangs_keeps_nobody_from_stopping() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--allow", "dependencies"])
        .ready()
        .await;
    let workspace = environment.ready["workspace"]
        .as_str()
        .expect("a path")
        .to_owned();
    // A registry that takes the call and never answers.
    let registry = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = registry.local_addr().expect("it listens");
    let manifest = std::fs::read_to_string(repository.path().join("package.json")).expect("there");
    let manifest = manifest.replace(
        "\"preact\":",
        "\"never-answered-edit-agent\": \"1.0.0\",\n    \"preact\":",
    );
    let (npmrc, manifest) = (
        format!(".npmrc=registry=http://{address}/\n"),
        format!("package.json={manifest}"),
    );
    let changes = [
        "--id",
        "hangs",
        "--no-wait",
        "--write",
        &npmrc,
        "--write",
        &manifest,
    ];
    let sent = environment.send_output(&changes);
    let called = tokio::time::timeout(PATIENCE, registry.accept());
    let (_, called) = tokio::join!(sent, called);
    let _call = called.expect("it is called").expect("accepted");
    assert_eq!(environment.status().await["site"]["state"], "installing");

    let began = Instant::now();
    let (stopped, code, _) = environment.stop().await;
    // It has not been judged, so it has not happened: it waits for the next start.
    assert_eq!(
        (code, &stopped["unpushed"], &stopped["queued"]),
        (0, &json!(0), &json!(1))
    );
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    no_processes_of(&workspace).await;
}

/// Which way the dependencies of an environment came.
fn route(environment: &Environment) -> &str {
    environment
        .seen
        .iter()
        .find(|event| event["phase"] == "install" && event["state"] == "done")
        .and_then(|event| event["detail"].as_str())
        .expect("it was installed")
}

/// State of its own: what is installed is installed, whatever earlier runs of the tests have stored.
fn own_state() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn starting_in(state: &tempfile::TempDir, repository: &Repository) -> Start {
    Start::of(&repository.address())
        .variable("EDIT_AGENT_STATE", &state.path().display().to_string())
}

#[tokio::test]
async fn without_a_lock_file_that_is_said_and_the_second_time_they_come_from_the_store() {
    let state = own_state();
    let repository = minimal("5.18.2", r#", "overrides": { "rollup": "4.67.4" }"#);
    // As people see it.
    let mut child = agent()
        .args(["dev", &repository.address(), "--port", "0"])
        .env("EDIT_AGENT_STATE", state.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    let ready = async {
        while !said.contains("Preview") {
            let line = lines
                .next_line()
                .await
                .expect("readable")
                .unwrap_or_else(|| panic!("it ended:\n{said}"));
            said.push_str(&line);
            said.push('\n');
        }
    };
    tokio::time::timeout(PATIENCE, ready)
        .await
        .unwrap_or_else(|_| panic!("not ready"));
    assert!(
        said.contains("there is no lock file; installing what package.json allows today"),
        "{said}"
    );
    child.kill().await.expect("killed");

    let another = minimal("5.18.2", r#", "overrides": { "rollup": "4.67.4" }"#);
    let environment = starting_in(&state, &another).ready().await;
    assert_eq!(route(&environment), "from the store");
    environment.page_with("/", "The first note").await;
    assert!(
        !environment.work_tree().join("canary").exists(),
        "an install script ran"
    );
}

#[tokio::test]
async fn a_lock_file_that_does_not_fit_is_followed_as_far_as_it_goes() {
    let state = own_state();
    let repository = Repository::amelia();
    let manifest = std::fs::read_to_string(repository.path().join("package.json")).expect("there");
    repository.write(
        "package.json",
        &manifest.replace("\"preact\":", "\"is-number\": \"7.0.0\",\n    \"preact\":"),
    );
    repository.commit_all("A dependency that is not in the lock file");

    let (code, words) = starting_in(&state, &repository)
        .with(&["--no-install"])
        .failure()
        .await;
    assert_eq!(code, 16, "{words}");
    assert!(
        words.contains("Astro is not installed") && words.contains("--no-install"),
        "{words}"
    );

    let environment = starting_in(&state, &repository).ready().await;
    assert_eq!(route(&environment), "installed");
    let installed = |name: &str| {
        let manifest = environment
            .work_tree()
            .join(format!("node_modules/{name}/package.json"));
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(manifest).expect("installed")).expect("JSON");
        manifest["version"].clone()
    };
    assert_eq!(
        (installed("is-number"), installed("preact")),
        (json!("7.0.0"), json!("10.29.8"))
    );
    environment.page_with("/", "Rare stamps").await;
    let (_, code, log) = environment.stop().await;
    assert_eq!(code, 0);
    assert!(
        log.contains("EUSAGE") && log.contains("installing as near to the lock file as possible"),
        "{log}"
    );
}

#[tokio::test]
async fn the_lock_files_of_pnpm_yarn_and_bun_are_followed() {
    let state = own_state();
    for (lock, overrides) in [
        (
            "pnpm-lock.yaml",
            r#", "pnpm": { "overrides": { "rollup": "4.67.4" } }"#,
        ),
        ("yarn.lock", r#", "resolutions": { "rollup": "4.67.4" }"#),
        ("bun.lock", r#", "overrides": { "rollup": "4.67.4" }"#),
    ] {
        let repository = minimal("5.18.2", overrides);
        let committed = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/locks")
            .join(lock);
        std::fs::copy(committed, repository.path().join(lock)).expect("copied");
        repository.commit_all("Lock");
        let environment = starting_in(&state, &repository).ready().await;
        assert_eq!(route(&environment), "installed", "{lock}");
        environment.page_with("/", "The first note").await;
        environment
            .lands(&[
                "--replace",
                "src/pages/index.astro",
                "A minimal site",
                "A changed site",
            ])
            .await;
        environment.page_with("/", "A changed site").await;
        assert!(
            !environment.work_tree().join("canary").exists(),
            "an install script ran with {lock}"
        );
        let tree = environment.work_tree();
        let (_, code, log) = environment.stop().await;
        assert_eq!(code, 0);
        // Yarn refuses packages that do not name this Node, and the fall-back takes them.
        assert_eq!(
            log.contains("is incompatible with this module") && log.contains("installing as near"),
            lock == "yarn.lock",
            "{log}"
        );
        // Whoever installs, the lock file stays as it is.
        assert_eq!(
            std::fs::read(tree.join(lock)).expect("there"),
            std::fs::read(repository.path().join(lock)).expect("there"),
            "{lock}"
        );
        // The same from the store, links and all.
        let again = Repository::empty();
        copy_tree(repository.path(), again.path());
        again.commit_all("The same");
        let environment = starting_in(&state, &again).ready().await;
        assert_eq!(route(&environment), "from the store", "{lock}");
        environment.page_with("/", "The first note").await;
        environment.stop().await;
    }
}
