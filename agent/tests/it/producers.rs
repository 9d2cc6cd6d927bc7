//! Producers: the programs of `docs/producers.md`, as they stand there, and `edit-agent send --queue`. None of them knows where
//! an environment is, or whether there is one.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use contract::{ErrorCode, Status};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::seat::{Seat, Town, emulator, site};
use crate::support::{PATIENCE, Repository, agent, git, workspace};

/// What the programs in TypeScript need, pinned: the clients, and the compiler that says whether their types are right.
const PACKAGES: [&str; 5] = [
    "@aws-sdk/client-dynamodb@3.1162.0",
    "@aws-sdk/client-sqs@3.1162.0",
    "@aws-sdk/lib-dynamodb@3.1162.0",
    "@types/node@22.20.5",
    "typescript@7.0.2",
];

fn guide() -> String {
    std::fs::read_to_string(workspace().join("docs/producers.md")).expect("there is a guide")
}

/// The programs of the guide, by language and name: what stands behind the three backticks.
fn programs() -> BTreeMap<String, String> {
    let mut programs = BTreeMap::new();
    let mut open: Option<(String, String)> = None;
    for line in guide().lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(name)) => open = Some((name.to_owned(), String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => programs.extend(open.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    programs
}

/// The folder with the packages, made by whoever is the first; others wait.
fn packages() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let versions: Vec<&str> = PACKAGES
        .iter()
        .filter_map(|package| package.rsplit('@').next())
        .collect();
    let folder = target.join(format!("producers-{}", versions.join("-")));
    let complete = folder.join("complete");
    let lock = File::create(target.join("producers.lock")).expect("a lock");
    lock.lock().expect("file systems lock");
    if !complete.exists() {
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).expect("made");
        let output = std::process::Command::new("npm")
            .args([
                "install",
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
            ])
            .args(PACKAGES)
            .arg("--prefix")
            .arg(&folder)
            .output()
            .expect("npm runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        File::create(&complete).expect("a mark that it is complete");
    }
    folder
}

/// The programs in TypeScript, checked strictly and compiled. Their modules are found because the folder is below the packages.
fn compiled(programs: &BTreeMap<String, String>) -> TempDir {
    let packages = packages();
    let folder = tempfile::tempdir_in(&packages).expect("a folder");
    let mut compiler = std::process::Command::new(packages.join("node_modules/typescript/bin/tsc"));
    compiler
        .current_dir(folder.path())
        .args(["--strict", "--noEmitOnError", "--skipLibCheck"])
        .args([
            "--module", "nodenext", "--target", "es2022", "--types", "node",
        ]);
    for (name, text) in programs {
        if let Some(name) = name.strip_prefix("ts ") {
            let file = format!("{name}.mts");
            std::fs::write(folder.path().join(&file), text).expect("written");
            compiler.arg(file);
        }
    }
    let output = compiler.output().expect("the compiler runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    folder
}

/// A program of the guide, ready to run. `language` is what stands behind the backticks.
fn program(language: &str, name: &str, text: &str, compiled: &Path) -> Command {
    match language {
        "sh" => {
            let mut command = Command::new("sh");
            // Version 1 of the command line, the one that pip has, does not go by AWS_ENDPOINT_URL.
            let endpoint = r#"aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }"#;
            command.arg("-c").arg(format!("{endpoint}\n{text}"));
            let aws = emulator().program("aws");
            let own = aws.parent().expect("it is in a folder").to_owned();
            let path = std::env::var_os("PATH").unwrap_or_default();
            let path = std::iter::once(own).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(path).expect("folders"));
            command
        }
        "python" => {
            let mut command = Command::new(emulator().program("python"));
            command.args(["-c", text]);
            command
        }
        "ts" => {
            let mut command = Command::new("node");
            command.arg(compiled.join(format!("{name}.mjs")));
            command
        }
        other => panic!("nobody here speaks {other}"),
    }
}

/// Runs a program to its end: its exit code, what it said on stdout, and on stderr.
async fn run(mut command: Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .expect("it runs");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// The ids of the instructions that are on the draft, oldest first.
fn landed(repository: &Repository) -> Vec<String> {
    let format = "--format=%(trailers:key=Edit-Instruction,valueonly,separator=)";
    let log = git(
        repository.path(),
        &["log", "--reverse", format, "main..edit/spring"],
    );
    log.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_program_of_the_guide_sends_an_edit_and_hears_what_became_of_it() {
    let town = Town::in_the_cloud().await;
    let stack = town.stack.clone().expect("in the cloud");
    let repository = site();
    let results = emulator()
        .queue(&format!("{}-results.fifo", stack.name), None)
        .await;
    let remote = repository.path().to_str().expect("UTF-8");
    let seat = town
        .session_of(remote, json!({ "resultsQueueUrl": results }))
        .await;
    let queue = seat.record().await.queue_url;
    let awake = seat.wakes().await;

    let programs = programs();
    let compiled = compiled(&programs);
    for language in ["sh", "python", "ts"] {
        let id = format!("by-{language}");
        let variables = [
            ("QUEUE_URL", queue.as_str()),
            ("RECEIPTS_TABLE", &stack.receipts),
            ("RESULTS_QUEUE_URL", &results),
            ("CLIENT_ID", seat.config.client_id.as_str()),
            ("SESSION_ID", seat.id.as_str()),
            ("INSTRUCTION_ID", &id),
        ];
        let ready = |name: &str| {
            let text = &programs[&format!("{language} {name}")];
            let mut command = program(language, name, text, compiled.path());
            command.envs(emulator().variables()).envs(variables);
            command
        };
        let mut by_index = ready("receipt");
        by_index.env_remove("SESSION_ID");
        for (what, command, said) in [
            ("send", ready("send"), vec![]),
            ("receipt", ready("receipt"), vec!["pushed"]),
            ("receipt by the index", by_index, vec!["pushed"]),
            ("results", ready("results"), vec!["pushed", &id]),
        ] {
            let (code, out, error) = run(command).await;
            assert_eq!(
                code,
                0,
                "{language}, {what}: {out}{error}\n{}",
                awake.said()
            );
            for words in said {
                assert!(out.contains(words), "{language}, {what}: {out}{error}");
            }
        }
        assert_eq!(landed(&repository).last(), Some(&id));
    }
    assert_eq!(landed(&repository), ["by-sh", "by-python", "by-ts"]);
    awake.page_with("/", "Rare and old stamps").await;
    awake.page_with("/opening-hours/", "Opening hours").await;
    for queue in [&queue, &results] {
        let left = emulator()
            .queue_attribute(queue, "ApproximateNumberOfMessages")
            .await;
        assert_eq!(left, "0", "nothing is left in {queue}");
    }
    assert_eq!(awake.stopped().await.0, 0);
}

/// `edit-agent send --queue` of somebody who has the client's id in a variable.
struct Sender<'a> {
    seat: &'a Seat,
    queue: &'a str,
}

impl Sender<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let stack = self.seat.town.stack.as_ref().expect("in the cloud");
        let mut command = agent();
        command
            .args(["send", "--queue", self.queue])
            .args(["--author", "Amelia <amelia@ameliastamps.com>"])
            .args(arguments)
            .envs(emulator().variables())
            .env("CLIENT_ID", self.seat.config.client_id.as_str())
            .env("RECEIPTS_TABLE", &stack.receipts)
            .current_dir("/");
        command
    }

    /// Its exit code, and what a person reads.
    async fn says(&self, arguments: &[&str]) -> (i32, String) {
        let (code, out, error) = run(self.command(arguments)).await;
        (code, format!("{out}{error}"))
    }

    /// Its exit code, and the receipt that it prints for programs.
    async fn receipt(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, out, error) = run(self.command(&[&["--json"], arguments].concat())).await;
        let receipt = serde_json::from_str(&out);
        (code, receipt.unwrap_or_else(|_| panic!("{out}{error}")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_reaches_a_queue_whether_or_not_anybody_is_awake() {
    let town = Town::in_the_cloud().await;
    let stack = town.stack.clone().expect("in the cloud");
    let repository = site();
    let seat = town
        .session(repository.path().to_str().expect("UTF-8"), json!({}))
        .await;
    // Its name does not say whose it is, as the intake's does not.
    let queue = emulator()
        .queue(
            &format!("{}-some.fifo", stack.name),
            Some((&stack.dead, 10)),
        )
        .await;
    let sender = Sender {
        seat: &seat,
        queue: &queue,
    };
    let waiting = async |number: &str| {
        let mut last = String::new();
        let counted = tokio::time::timeout(PATIENCE, async {
            while last != number {
                last = emulator()
                    .queue_attribute(&queue, "ApproximateNumberOfMessages")
                    .await;
            }
        });
        assert!(counted.await.is_ok(), "{last} messages wait, not {number}");
    };

    // Everybody is asleep. One does not wait for the receipt, and one has enough of it.
    let session = seat.id.as_str();
    let first = [
        "--session",
        session,
        "--id",
        "first",
        "--write",
        "src/pages/a.md=# A",
    ];
    let said = sender.says(&[&["--no-wait"], &first[..]].concat()).await;
    assert_eq!(said, (0, "accepted first\n".to_owned()));
    waiting("1").await;
    let second = [
        "--session",
        session,
        "--id",
        "second",
        "--write",
        "src/pages/b.md=# B",
    ];
    let mut command = sender.command(&second);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.kill_on_drop(true).spawn().expect("it starts");
    waiting("2").await;
    let pid = i32::try_from(child.id().expect("it runs")).expect("a pid");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGINT,
    )
    .expect("signalled");
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let ended = ended.expect("it ends").expect("it ran");
    assert_eq!(ended.status.code(), Some(130));
    insta::assert_snapshot!(String::from_utf8_lossy(&ended.stderr), @r"
    error: stopped waiting for the receipt of second
      hint: It stays in the queue and is carried out all the same; send it again with the same --id to follow it, or call it off with --cancel.
    ");
    let (code, said) = sender.says(&["--session", session, "--undo", "last"]).await;
    assert_eq!(code, 2, "{said}");

    let container = seat.container().variable("INSTRUCTIONS_QUEUE_URL", &queue);
    let awake = container.starts().registered().await;
    // The same again: one edit, and its one receipt.
    let (code, receipt) = sender.receipt(&first).await;
    assert_eq!(
        (code, &receipt["status"]),
        (0, &json!("pushed")),
        "{receipt:#}"
    );
    let (code, receipt) = sender.receipt(&second).await;
    assert_eq!(
        (code, &receipt["status"]),
        (0, &json!("pushed")),
        "{receipt:#}"
    );
    // By the thread: then the receipt is found by the client's index.
    let (code, said) = sender
        .says(&[
            "--thread",
            "spring",
            "--id",
            "third",
            "--delete",
            "src/pages/a.md",
        ])
        .await;
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("pushed third\n"), "{said}");
    let (code, receipt) = sender
        .receipt(&["--thread", "spring", "--id", "fourth", "--undo", "third"])
        .await;
    assert_eq!(
        (code, &receipt["status"]),
        (0, &json!("pushed")),
        "{receipt:#}"
    );
    // What was used before is not used again.
    let reused = [
        "--session",
        session,
        "--id",
        "first",
        "--delete",
        "src/pages/b.md",
    ];
    let (code, said) = sender.says(&reused).await;
    assert_eq!(code, 1);
    insta::assert_snapshot!(said, @r"
    error: the id first was used before for another instruction, which is pushed
      hint: Send it under a new id; the first instruction is untouched.
    ");
    // A cancel may overtake what it calls off on its way.
    let cancel = ["--session", session, "--id", "cancel", "--cancel", "late"];
    let (code, said) = sender.says(&cancel).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with("cancelled cancel\n  What was waiting is cancelled.\n"),
        "{said}"
    );
    let late = [
        "--session",
        session,
        "--id",
        "late",
        "--delete",
        "src/pages/b.md",
    ];
    let (code, receipt) = sender.receipt(&late).await;
    assert_eq!(
        (code, &receipt["status"]),
        (1, &json!("cancelled")),
        "{receipt:#}"
    );
    let too_late = ["--session", session, "--id", "sorry", "--cancel", "second"];
    let (code, receipt) = sender.receipt(&too_late).await;
    assert_eq!(
        (code, &receipt["error"]["code"]),
        (1, &json!("too_late")),
        "{receipt:#}"
    );
    // Where nobody can be asked, it says so and does not wait for ever.
    let elsewhere = [&first[..], &["--receipts-table", "nowhere"]].concat();
    let (code, said) = sender.says(&elsewhere).await;
    assert_eq!(code, 22, "{said}");
    assert!(
        said.contains("there is no table nowhere") && said.contains("it stays in the queue"),
        "{said}"
    );

    assert_eq!(landed(&repository), ["first", "second", "third", "fourth"]);
    assert_eq!(awake.receipt("cancel").await.status, Status::Cancelled);
    assert_eq!(awake.stopped().await.0, 0);
}

/// Every code with its meaning and what to do, as the guide has it.
fn codes() -> String {
    let rows = ErrorCode::ALL.iter().map(|code| {
        format!(
            "| `{}` | {} | {} |\n",
            code.as_str(),
            code.meaning(),
            code.hint()
        )
    });
    format!(
        "| `error.code` | what happened | what to do |\n|---|---|---|\n{}",
        rows.collect::<String>()
    )
}

#[test]
fn the_guide_has_every_error_code_of_the_contract() {
    let text = guide();
    let (before, rest) = text.split_once("<!-- codes -->\n").expect("a beginning");
    let (table, after) = rest.split_once("<!-- /codes -->").expect("an end");
    if std::env::var_os("UPDATE_WORDS").is_some() {
        let new = format!("{before}<!-- codes -->\n{}<!-- /codes -->{after}", codes());
        std::fs::write(workspace().join("docs/producers.md"), new).expect("written");
        return;
    }
    assert!(
        table == codes(),
        "docs/producers.md is out of date: run `UPDATE_WORDS=1 cargo test --test it -- producers::the_guide` and commit it"
    );
}
