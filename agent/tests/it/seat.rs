//! In the container's seat: launched for one session of one client, on the local adapters. The same life as in the cloud.

use std::time::Duration;

use contract::session::{ParkedAt, Phase, ProofKey, State, Transition};
use contract::{Status, Timestamp};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::seat::{Awake, Seat, Town, only_child, site, work_tree};
use crate::support::{Repository, git};

fn address(repository: &Repository) -> String {
    repository.path().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_wakes_serves_sleeps_and_wakes_again() {
    let repository = site();
    let town = Town::on_a_laptop();
    // Three seconds without anybody.
    let seat = town
        .session(&address(&repository), json!({ "idleTimeoutMinutes": 0.05 }))
        .await;
    seat.replaces("one", "Rare stamps", "Rare & old stamps")
        .await;

    let awake = seat.wakes().await;
    let receipt = awake.watched(awake.receipt("one")).await;
    assert_eq!(receipt.status, Status::Pushed, "{receipt:#?}");
    let pushed = git(repository.path(), &["rev-parse", "edit/spring"]);
    assert_eq!(receipt.commit.expect("a commit").as_str(), pushed);
    awake
        .watched(awake.page_with("/", "Rare & old stamps"))
        .await;
    let known = seat.record_when("told who is there", |record| {
        record.last_activity_at.is_some()
    });
    let ready = awake.watched(known).await;
    assert_eq!((ready.generation.0, ready.phase), (1, None));

    let (code, said) = awake.ended().await;
    assert_eq!(code, 0, "{said}");
    let asleep = seat.record().await;
    assert_eq!(asleep.state, State::Dormant);
    assert_eq!(
        (asleep.container_ip, asleep.task_arn, asleep.lease_until),
        (None, None, None)
    );
    assert_eq!(asleep.parked, []);

    // Somebody asks for something while it sleeps, and nobody comes to look at it.
    seat.replaces("two", "no such words", "Old stamps").await;
    let awake = seat.wakes().await;
    let (code, said) = awake.ended().await;
    assert_eq!(code, 0, "{said}");
    let second = seat.receipt("two").await;
    assert_eq!(second.status, Status::Rejected, "{second:#?}");
    let asleep = seat.record().await;
    assert_eq!((asleep.state, asleep.generation.0), (State::Dormant, 2));
    assert!(asleep.last_activity_at.is_some(), "who was there before");
    let history = git(
        repository.path(),
        &["log", "--format=%s", "main..edit/spring"],
    );
    assert_eq!(history.lines().count(), 1, "nothing twice: {history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_answers_nobody_but_the_router_of_this_generation() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    let awake = seat.wakes().await;
    let page = awake.visit("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Rare stamps"));
    let anybody = crate::support::ask(&awake.authority(), "GET", "/", &[], None).await;
    assert_eq!(anybody.status, 421);
    assert!(!anybody.text().contains("Rare stamps"));
    assert!(anybody.headers.get("edit-proof").is_none());
    let health = crate::support::ask(&awake.authority(), "GET", "/_edit/health", &[], None).await;
    assert_eq!(health.status, 200, "the container's own health check");
    // Another generation's proof is somebody else's.
    let mut older = seat.record().await;
    older.generation = contract::Generation(7);
    let proof = contract::proof::Proof::new(
        older.proof_key.as_ref().expect("woken"),
        older.session_id.clone(),
        older.generation,
    )
    .expect("a key");
    let shown = proof.request(Timestamp::now(), contract::proof::Nonce::new([1; 16]));
    let refused = crate::support::ask(
        &awake.authority(),
        "GET",
        "/",
        &[("edit-proof", &shown)],
        None,
    )
    .await;
    assert_eq!(refused.status, 421);
    assert_eq!(awake.stopped().await.0, 0);
}

/// A defect of ours ends a loop and no process. As the first process it starts the daemon anew, in its own session, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_panics_is_a_crash_and_what_it_was_at_is_done_once() {
    is_a_crash("panic:before-receipt").await;
}

/// Without it the lease would run out, and nobody would know why.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_panics_is_a_crash_too() {
    is_a_crash("panic:renewal").await;
}

/// A container whose daemon crashes there, and is started anew in it.
fn crashes_at(seat: &Seat, place: &str) -> Awake {
    let container = seat.container().supervised();
    let container = container.variable("EDIT_AGENT_CRASH_AT", place);
    container.with(&["--task", "the-first"]).starts()
}

async fn is_a_crash(place: &str) {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    seat.replaces("one", "Rare stamps", "Rare & old stamps")
        .await;
    let mut awake = crashes_at(&seat, place);
    awake.says("it is started anew in 250 ms").await;
    // Until it begins anew the record is that of before the crash.
    let record = seat.record_when("ready a second time", |record| {
        record.state == State::Ready && record.wakes_ms.len() == 2
    });
    let record = record.await;
    let awake = awake.registered().await;
    assert_eq!(awake.receipt("one").await.status, Status::Pushed);
    assert_eq!((record.generation.0, record.failure), (1, None));
    let said = awake.said();
    assert!(said.contains("\"exit\":101"), "{said}");
    let history = repository.git(&["log", "--format=%s", "main..edit/spring"]);
    assert_eq!(history.lines().count(), 1, "{history}");
    nix::sys::signal::kill(awake.first_process(), Signal::SIGTERM).expect("signalled");
    let (code, said) = awake.ended().await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(seat.record().await.state, State::Dormant);
}

/// A container that is stopped is thrown away, workspace and all: not even a crash a moment before is a reason to lose what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_parked_though_it_is_told_to_stop_just_after_a_crash() {
    // While it is down, and while it starts.
    for moment in ["it is started anew in 250 ms", "\"restarts\":1"] {
        let stopped = |mut awake: Awake| async move {
            let daemon = only_child(awake.first_process());
            nix::sys::signal::kill(daemon, Signal::SIGKILL).expect("killed");
            awake.says(moment).await;
            awake
        };
        let place = is_parked("no place", |_| (), stopped).await;
        assert!(matches!(place, ParkedAt::Ref(_)), "{place:?}");
    }
}

/// Told to stop it finishes, and that can crash as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_parked_though_it_crashes_when_it_is_told_to_stop() {
    for place in ["ended", "panic:ended"] {
        let parked = is_parked(place, |_| (), |awake| async { awake }).await;
        assert!(matches!(parked, ParkedAt::Ref(_)), "{parked:?}");
    }
}

/// A commit that nobody could push is neither pushed unseen nor lost: the next environment has it, and it is done once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_a_crash_is_parked_and_done_once() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    seat.replaces("one", "Rare stamps", "Rare & old stamps")
        .await;
    let mut awake = crashes_at(&seat, "after-commit");
    awake.says("it is started anew in 250 ms").await;
    nix::sys::signal::kill(awake.first_process(), Signal::SIGTERM).expect("signalled");
    let (code, said) = awake.ended().await;
    assert_eq!(code, 0, "{said}");
    let record = seat.record().await;
    assert_eq!(record.state, State::Dormant, "{said}");
    let commits: u32 = record.parked.iter().map(|parked| parked.commits).sum();
    assert_eq!(commits, 1, "{record:#?}\n{said}");
    let drafts = repository.git(&["branch", "--list", "edit/spring"]);
    assert_eq!(drafts, "", "nobody has looked at it as it stands");

    // The disk of a container is gone with it.
    let workspace = work_tree(&seat).parent().expect("one").to_owned();
    std::fs::remove_dir_all(workspace).expect("removed");
    let awake = seat.wakes().await;
    assert_eq!(awake.receipt("one").await.status, Status::Pushed);
    let history = repository.git(&["log", "--format=%s", "main..edit/spring"]);
    assert_eq!(history.lines().count(), 1, "{history}");
    assert_eq!(awake.stopped().await.0, 0);
    assert_eq!(seat.record().await.parked, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_parked_after_a_crash_though_the_remote_is_away() {
    let goes_away = |repository: &Repository| {
        std::fs::rename(
            repository.path().join("objects"),
            repository.path().join("away"),
        )
        .expect("renamed");
    };
    let parked = is_parked("ended", goes_away, |awake| async { awake }).await;
    assert!(matches!(parked, ParkedAt::Bundle(_)), "{parked:?}");
}

/// Somebody writes a file, `meanwhile` happens to the remote, it is told to stop after `before`: where the file is then.
async fn is_parked<B: Future<Output = Awake>>(
    crash_at: &str,
    meanwhile: impl FnOnce(&Repository),
    before: impl FnOnce(Awake) -> B,
) -> ParkedAt {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    let awake = crashes_at(&seat, crash_at).registered().await;
    std::fs::write(work_tree(&seat).join("notes.md"), "By hand\n").expect("written");
    meanwhile(&repository);
    let awake = before(awake).await;
    nix::sys::signal::kill(awake.first_process(), Signal::SIGTERM).expect("signalled");
    let (code, said) = awake.ended().await;
    assert_eq!(code, 0, "{said}");
    let record = seat.record().await;
    assert_eq!(record.state, State::Dormant, "{said}");
    let [parked] = record.parked.as_slice() else {
        panic!("it is parked: {record:#?}\n{said}");
    };
    assert_eq!(parked.files, ["notes.md"]);
    // Whatever the site would do, it has no part in that.
    let (_, last) = said.rsplit_once("\"last\":true").expect("a last start");
    assert!(!last.contains("\"phase\":\"install\""), "{last}");
    parked.place.clone()
}

/// Its port answers, and its page is shown: that is no health, while nothing that is asked for is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_stands_still_makes_it_unhealthy_though_the_port_answers() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    let stalling = seat
        .container()
        .variable("EDIT_AGENT_CRASH_AT", "stall:at-rest");
    let awake = stalling.starts().registered().await;
    let port = awake
        .authority()
        .rsplit_once(':')
        .expect("a port")
        .1
        .to_owned();
    let health = || {
        let mut command = crate::support::agent();
        command.args(["health", "--port", &port]).output()
    };
    let well = health().await.expect("it is run");
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    let unwell = tokio::time::timeout(crate::support::PATIENCE, async {
        loop {
            pace.tick().await;
            let answer = health().await.expect("it is run");
            if answer.status.code() != Some(0) {
                return answer;
            }
        }
    });
    let unwell = unwell.await.expect("it becomes unhealthy");
    assert_eq!(unwell.status.code(), Some(1), "{unwell:?}");
    let said = String::from_utf8_lossy(&unwell.stderr);
    assert!(said.contains(r#""pipeline":"stuck""#), "{said}");
    assert_eq!(awake.visit("/").await.status, 200);
    awake.killed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_containers_of_one_session_exactly_one_serves() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    let awake = seat.wakes().await;
    let before = seat.record().await;
    // Without GENERATION it would have to wake the session, which is awake.
    let (code, said) = seat.container().fails().await;
    assert_eq!(code, 18, "{said}");
    assert!(said.contains("was not taken"), "{said}");
    // With the generation that acts, another task has it.
    let (code, said) = seat
        .container()
        .variable("GENERATION", "1")
        .with(&["--task", "another-task"])
        .fails()
        .await;
    assert_eq!(code, 18, "{said}");
    let after = seat.record().await;
    assert_eq!(
        (after.state, after.task_arn),
        (State::Ready, before.task_arn)
    );
    assert_eq!(awake.visit("/").await.status, 200);
    assert_eq!(awake.stopped().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_stopped_for_longer_than_its_lease_touches_nothing_any_more() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    let older = seat.wakes().await;
    // It renews at once to say so, and then not for a while: a writer that is stopped holds the table of a laptop.
    seat.record_when("told why it is awake", |record| {
        record.awake_because.is_some()
    })
    .await;
    // Stopped as a machine stops that is migrated: it does not know.
    older.signal(Signal::SIGSTOP);
    let until = older.seat.record().await.lease_until.expect("a lease");
    seat.record_when("without a lease", |_| Timestamp::now() > until)
        .await;
    // The lock on the folder is the laptop's own; in the cloud each container has its own disk.
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(
        crate::support::state().join("store"),
        folder.path().join("store"),
    )
    .expect("linked");
    let newer = seat
        .container()
        .variable("WORKSPACE_DIR", &folder.path().display().to_string())
        .starts()
        .registered()
        .await;
    assert_eq!(seat.record().await.generation.0, 2);
    seat.replaces("one", "Rare stamps", "Old stamps").await;
    assert_eq!(seat.receipt("one").await.status, Status::Pushed);
    let record = seat.record().await;
    let tip = git(repository.path(), &["rev-parse", "edit/spring"]);

    older.signal(Signal::SIGCONT);
    let (code, said) = older.ended().await;
    assert_eq!(code, 18, "{said}");
    let after = seat.record().await;
    assert_eq!(
        (after.generation, after.state, after.container_ip),
        (record.generation, State::Ready, record.container_ip)
    );
    assert_eq!(git(repository.path(), &["rev-parse", "edit/spring"]), tip);
    assert_eq!(newer.visit("/").await.status, 200);
    assert_eq!(newer.stopped().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_overtakes_what_waits() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    for number in 1..=3 {
        let path = format!("src/pages/page-{number}.md");
        let change = json!({ "op": "write", "path": path, "content": "# A page\n" });
        seat.sends(
            &format!("page-{number}"),
            json!({ "type": "edit", "changes": [change] }),
        )
        .await;
    }
    seat.sends(
        "never-mind",
        json!({ "type": "cancel", "instructionId": "page-3" }),
    )
    .await;
    let awake = seat.wakes().await;
    assert_eq!(awake.receipt("never-mind").await.status, Status::Cancelled);
    assert_eq!(awake.receipt("page-3").await.status, Status::Cancelled);
    for id in ["page-1", "page-2"] {
        assert_eq!(awake.receipt(id).await.status, Status::Pushed);
    }
    seat.sends(
        "too-late",
        json!({ "type": "cancel", "instructionId": "page-1" }),
    )
    .await;
    let receipt = awake.receipt("too-late").await;
    assert_eq!(receipt.status, Status::Rejected);
    assert_eq!(receipt.error.expect("an error").code.as_str(), "too_late");
    // What was called off before it came is not carried out when it comes.
    seat.sends(
        "early",
        json!({ "type": "cancel", "instructionId": "page-4" }),
    )
    .await;
    assert_eq!(awake.receipt("early").await.status, Status::Cancelled);
    let change = json!({ "op": "write", "path": "src/pages/page-4.md", "content": "# A page\n" });
    seat.sends("page-4", json!({ "type": "edit", "changes": [change] }))
        .await;
    seat.sends(
        "then",
        json!({ "type": "edit", "changes": [{ "op": "delete", "path": "src/pages/page-1.md" }] }),
    )
    .await;
    assert_eq!(awake.receipt("then").await.status, Status::Pushed);
    assert_eq!(awake.receipt("page-4").await.status, Status::Cancelled);
    let files = git(
        repository.path(),
        &["ls-tree", "--name-only", "edit/spring", "src/pages/"],
    );
    assert!(
        files.contains("page-2") && !files.contains("page-3") && !files.contains("page-4"),
        "{files}"
    );
    assert_eq!(awake.stopped().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_by_hand_is_parked_and_comes_back() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({ "idleTimeoutMinutes": 0.05 }))
        .await;
    let awake = seat.wakes().await;
    let tree = work_tree(&seat);
    std::fs::write(tree.join("src/pages/by-hand.md"), "# By hand\n").expect("written");
    let (code, said) = awake.ended().await;
    assert_eq!(code, 0, "{said}");
    let record = seat.record().await;
    let [parked] = record.parked.as_slice() else {
        panic!("something is parked: {record:#?}")
    };
    assert_eq!(parked.files, ["src/pages/by-hand.md"]);
    let ParkedAt::Ref(name) = &parked.place else {
        panic!("the remote takes it: {parked:?}")
    };
    assert_eq!(
        git(repository.path(), &["rev-parse", name]),
        parked.commit.as_str()
    );
    let branches = git(repository.path(), &["branch", "--format=%(refname)"]);
    assert!(
        !branches.contains("rescue"),
        "no branch of the owner's: {branches}"
    );

    // The disk of a container is gone with it.
    std::fs::remove_dir_all(tree.parent().expect("the workspace")).expect("removed");
    let awake = seat.wakes().await;
    awake.watched(awake.page_with("/by-hand/", "By hand")).await;
    let by_hand = json!(["src/pages/by-hand.md"]);
    let listed = awake.status_when("uncommitted", |status| status["uncommitted"] == by_hand);
    awake.watched(listed).await;
    seat.sends("keep", json!({ "type": "commit" })).await;
    let kept = awake.watched(awake.receipt("keep")).await;
    assert_eq!(kept.status, Status::Pushed, "{kept:#?}");
    assert_eq!(awake.stopped().await.0, 0);
    assert_eq!(seat.record().await.parked, []);
    let left = git(repository.path(), &["for-each-ref", "refs/edit"]);
    assert_eq!(left, "", "what was taken up is cleared away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_an_edit_loses_nothing_and_does_nothing_twice() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    for number in 1..=8 {
        let path = format!("src/pages/page-{number}.md");
        let change = json!({ "op": "write", "path": path, "content": "# A page\n" });
        seat.sends(
            &format!("page-{number}"),
            json!({ "type": "edit", "changes": [change] }),
        )
        .await;
    }
    let mut starts = 0;
    loop {
        starts += 1;
        let awake = seat.wakes().await;
        // One more than the last time, so that each stop hits another place.
        let next = format!("page-{}", (starts * 3).min(8));
        seat.receipt(&next).await;
        let (code, said) = awake.stopped().await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(seat.record().await.state, State::Dormant);
        if next == "page-8" {
            break;
        }
    }
    let commits = git(
        repository.path(),
        &[
            "log",
            "--reverse",
            "--format=%(trailers:key=Edit-Instruction,valueonly,separator=)",
            "main..edit/spring",
        ],
    );
    let expected: Vec<String> = (1..=8).map(|number| format!("page-{number}")).collect();
    assert_eq!(commits.lines().collect::<Vec<_>>(), expected);
    assert_eq!(seat.queue.depth().await.expect("answered").waiting, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_why_in_the_record() {
    let town = Town::on_a_laptop();
    let repository = site();
    let nowhere = repository.path().join("nowhere").display().to_string();
    for (over, code, said) in [
        (
            json!({ "repository": { "url": nowhere } }),
            10,
            "repository_unusable",
        ),
        (
            json!({ "repository": { "branch": "mian" } }),
            10,
            "repository_unusable",
        ),
        (json!({ "status": "suspended" }), 21, "client_suspended"),
        (
            json!({ "repository": { "url": "ssh://git@127.0.0.1:9/x.git", "deployKey": "env:NO_SUCH_KEY" } }),
            20,
            "config_invalid",
        ),
    ] {
        let mut config = json!({ "repository": { "url": address(&repository) } });
        merge(&mut config, &over);
        let seat = town.session_of(&address(&repository), config).await;
        let (exit, log) = seat.container().fails().await;
        assert_eq!(exit, code, "{over}: {log}");
        let record = seat.record().await;
        let failure = record.failure.expect("a failure");
        assert_eq!(
            (record.state, failure.code.as_str()),
            (State::Failed, said),
            "{over}: {log}"
        );
        assert!(!failure.retryable, "{over}");
        crate::support::is_plain(&failure.message);
        assert_eq!(record.lease_until, None);
    }
}

fn merge(value: &mut serde_json::Value, over: &serde_json::Value) {
    if let (Some(value), Some(over)) = (value.as_object_mut(), over.as_object()) {
        for (name, over) in over {
            merge(value.entry(name).or_insert(serde_json::Value::Null), over);
        }
    } else {
        value.clone_from(over);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_keep_it_awake_and_machines_do_not() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({ "idleTimeoutMinutes": 0.1 }))
        .await;
    let awake = seat.wakes().await;
    // One that is there already, so that there is time for another.
    assert_eq!(awake.visit("/").await.status, 200);
    assert_eq!(awake.visit("/about/").await.status, 200);
    let status = awake.status().await;
    assert!(
        status["awakeBecause"]
            .as_str()
            .is_some_and(|because| because.contains("/about/")),
        "{status:#}"
    );
    let begun = std::time::Instant::now();
    // Asked all the time, and by nobody.
    let asked = async {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        loop {
            pace.tick().await;
            awake.request("GET", "/_edit/health", &[], None).await;
            awake
                .request("GET", "/@vite/client", &[("accept", "*/*")], None)
                .await;
            awake
                .request(
                    "GET",
                    "/",
                    &[("accept", "text/html"), ("user-agent", "Googlebot/2.1")],
                    None,
                )
                .await;
        }
    };
    tokio::select! {
        _ = seat.record_when("draining or asleep", |record| matches!(record.state, State::Draining | State::Dormant)) => {}
        () = asked => {}
    }
    assert!(begun.elapsed() < crate::support::PATIENCE);
    assert_eq!(awake.ended().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_a_site_in_a_folder_its_own_install_its_own_variables_and_its_own_policy() {
    let developer = Repository::empty();
    crate::support::copy_tree(
        &crate::support::fixture(),
        &developer.path().join("packages/site"),
    );
    developer.write(
        "packages/site/src/pages/shop.astro",
        "---\nconst shop = import.meta.env.PUBLIC_SHOP;\n---\n<html><body><h1>{shop}</h1></body></html>\n",
    );
    developer.commit_all("The site");
    let repository = developer.bare_copy();
    let over = json!({
        "site": {
            "root": "packages/site",
            "installCommand": "npm ci --prefer-offline --no-audit",
            "env": { "PUBLIC_SHOP": "Amelia & daughters" },
        },
        "policy": { "allowConfig": true },
    });
    let seat = Town::on_a_laptop()
        .session_of(&address(&repository), over)
        .await;
    let awake = seat.wakes().await;
    awake.page_with("/shop/", "Amelia &amp; daughters").await;
    let change = json!({ "op": "write", "path": "tsconfig.json", "content": "{ \"extends\": \"astro/tsconfigs/base\" }\n" });
    seat.sends("config", json!({ "type": "edit", "changes": [change] }))
        .await;
    assert_eq!(awake.receipt("config").await.status, Status::Pushed);
    let changed = git(
        repository.path(),
        &["diff", "--name-only", "main", "edit/spring"],
    );
    assert_eq!(changed, "packages/site/tsconfig.json");
    assert_eq!(awake.stopped().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_wake_of_the_router_is_told_how_far_it_is() {
    let repository = site();
    let seat = Town::on_a_laptop()
        .session(&address(&repository), json!({}))
        .await;
    // The router's wake: it makes the generation and the key, and starts a task with the generation.
    let now = Timestamp::now();
    let wake = Transition::Wake {
        seen: contract::Generation(0),
        proof_key: ProofKey("ab".repeat(32)),
        lease_until: now.plus(Duration::from_secs(60)),
    };
    let woken = seat
        .town
        .sessions
        .transition(&seat.id, contract::Generation(0), &wake, 2, now)
        .await
        .expect("answered")
        .expect("woken");
    assert_eq!(woken.generation.0, 1);
    let container = seat.container().variable("GENERATION", "1").starts();
    let phases = std::cell::RefCell::new(Vec::new());
    let ready = seat
        .record_when("ready", |record| {
            let mut phases = phases.borrow_mut();
            if phases.last() != Some(&record.phase) {
                phases.push(record.phase);
            }
            record.state == State::Ready
        })
        .await;
    let mut phases = phases.into_inner();
    assert_eq!(ready.proof_key, woken.proof_key, "the router's key stays");
    assert_eq!(phases.pop(), Some(None), "who is ready is in no phase");
    let phases: Vec<Phase> = phases.into_iter().flatten().collect();
    assert!(phases.is_sorted(), "it never goes back: {phases:?}");
    assert!(phases.contains(&Phase::Serve), "{phases:?}");
    let awake = container.registered().await;
    assert_eq!(awake.visit("/").await.status, 200);
    assert_eq!(awake.stopped().await.0, 0);
}
