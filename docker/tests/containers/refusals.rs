//! Containers that cannot be what they should: each ends in one clear line, and with a code that README.md has.

use std::time::Duration;

use crate::engine::{Ended, Recipe, until};
use crate::town::Town;

fn said(ended: &Ended) -> String {
    format!("{}{}", ended.said, ended.complained)
}

/// As if everything else were told.
fn told(recipe: Recipe) -> Recipe {
    recipe
        .variable("CLIENT_ID", "amelia")
        .variable("SESSION_ID", "amelia_s1")
        .variable("AWS_REGION", "eu-central-1")
}

const COMMAND: [&str; 5] = ["run", "--ip", "10.0.0.1", "--task", "task-1"];

#[test]
fn a_container_in_which_nobody_can_be_kept_apart_does_not_begin() {
    for (recipe, why) in [
        (Recipe::agent().user("10001:10001"), "runs as user 10001"),
        (
            Recipe::agent().user("10001:10001").with_init(),
            "runs as user 10001",
        ),
        (Recipe::agent().without_capabilities(), "without CAP_CHOWN"),
        (
            Recipe::agent()
                .without_capabilities()
                .capability("SETUID")
                .capability("SETGID")
                .capability("CHOWN"),
            "without CAP_KILL",
        ),
        (
            Recipe::agent().without_capability("SETPCAP"),
            "without CAP_SETPCAP",
        ),
    ] {
        let ended = told(recipe).run(&COMMAND);
        let said = said(&ended);
        assert_eq!(ended.code, 25, "{why}: {said}");
        assert!(said.contains(why), "{why}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(said.matches("error").count(), 1, "once: {said}");
    }
}

#[test]
fn with_too_few_processes_for_a_site_it_does_not_begin() {
    let ended = told(Recipe::agent().like_on_fargate().processes(100)).run(&COMMAND);
    assert_eq!(ended.code, 25, "{ended:?}");
    assert!(said(&ended).contains("may have 100 processes"), "{ended:?}");
}

#[test]
fn with_another_first_process_it_ends_as_it_would_by_itself() {
    let ended = Recipe::agent().like_on_fargate().with_init().run(&[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(said(&ended).contains("CLIENT_ID is not set"), "{ended:?}");
    let ended = Recipe::agent()
        .with_init()
        .run(&["init", "--", "/bin/sh", "-c", "exit 7"]);
    assert_eq!(ended.code, 7, "{ended:?}");
}

/// Without /proc nothing could be proven. The engine always mounts one; somebody with too many rights hides it.
#[test]
fn without_proc_it_does_not_begin() {
    let ended = told(
        Recipe::agent()
            .capability("SYS_ADMIN")
            .without_apparmor()
            .program("/bin/sh"),
    )
    .run(&[
        "-euc",
        "mount -t tmpfs none /proc; exec /usr/local/bin/edit-agent run --ip 10.0.0.1 --task task-1",
    ]);
    assert_eq!(ended.code, 25, "{ended:?}");
    assert!(said(&ended).contains("/proc is not there"), "{ended:?}");
    assert_eq!(said(&ended).matches("error").count(), 1, "{ended:?}");
}

/// A library that is loaded before the C library, and by which it is always 1970.
const BEGINNING: &str = r"
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) { (void)clock; time->tv_sec = 7; time->tv_nsec = 0; return 0; }
";

#[test]
fn at_the_beginning_of_time_it_does_not_begin() {
    let folder = tempfile::tempdir().expect("there is room");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), readable).expect("ours");
    let (source, library) = (
        folder.path().join("beginning.c"),
        folder.path().join("beginning.so"),
    );
    std::fs::write(&source, BEGINNING).expect("there is room");
    let compiled = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiled.expect("cargo links with it").success());
    let recipe = Recipe::agent()
        .like_on_fargate()
        .folder(folder.path(), "/clock")
        .variable("LD_PRELOAD", "/clock/beginning.so");
    let ended = told(recipe).run(&COMMAND);
    assert_eq!(ended.code, 26, "{ended:?}");
    assert!(said(&ended).contains("it is 1970-01-01"), "{ended:?}");
}

/// What is ended may not want to be, and may be quicker: it signals whatever it may, for as long as it lives.
#[test]
fn whoever_is_ended_can_neither_kill_nor_stop_what_ends_it() {
    let environment = Recipe::agent()
        .like_on_fargate()
        .room("/tmp", 16)
        .program("/bin/sleep")
        .start(&["1000000"]);
    let of_the_site = || {
        let mut all = environment.processes();
        // What is dead waits for PID 1, which is no init here.
        all.retain(|process| process.uid == 10001 && process.state != 'Z');
        all
    };
    for signal in ["SIGKILL", "SIGSTOP"] {
        let besieger = format!(
            "for (;;) {{ try {{ process.kill(-1, '{signal}') }} catch {{}} for (const pid of require('fs').readdirSync('/proc')) try {{ if (pid > 1) require('os').setPriority(Number(pid), 19) }} catch {{}} require('fs').writeFileSync('/tmp/{signal}', '') }}"
        );
        let order = format!(
            "setpriv --reuid 10001 --regid 10001 --clear-groups setsid node -e \"{besieger}\" >/dev/null 2>&1 </dev/null &"
        );
        environment.exec(&["/bin/sh", "-c", &order]).well();
        let begun = until(Duration::from_secs(30), || {
            let seen = environment.exec(&["/bin/ls", &format!("/tmp/{signal}")]);
            if seen.code == 0 { Ok(()) } else { Err(seen) }
        });
        begun.unwrap_or_else(|seen| panic!("{signal}: it does not begin: {seen:?}"));
        assert_ne!(of_the_site(), []);
        let ended = environment.exec(&[
            "/usr/local/bin/edit-agent",
            "end",
            "--uid",
            "10001",
            "--as",
            "10004",
        ]);
        assert_eq!(ended.code, 0, "{signal}: {ended:?}");
        assert_eq!(of_the_site(), [], "{signal}");
    }
}

#[test]
fn init_ends_as_its_program_ends() {
    let recipe = Recipe::agent().like_on_fargate();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ] {
        let ended = recipe.run(&["init", "--", "/bin/sh", "-c", script]);
        assert_eq!(ended.code, code, "{script}: {ended:?}");
    }
    assert_eq!(recipe.run(&["init", "--", "/no/such"]).code, 127);
    assert_eq!(recipe.run(&["init", "--", "/etc/passwd"]).code, 126);
    assert_eq!(recipe.run(&["init"]).code, 2);
}

#[test]
fn a_workspace_that_cannot_be_written_and_a_secret_that_lies_about_are_failed_starts() {
    let town = Town::new();
    let folder = tempfile::tempdir().expect("there is room");
    let run = |recipe: Recipe, task: &str| {
        let command = town.command(task);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        recipe.run(&command)
    };
    let ended = run(
        town.environment().folder(folder.path(), "/workspace"),
        "task-1",
    );
    assert_eq!(ended.code, 14, "{}", said(&ended));
    let record = town.record();
    assert_eq!(record["state"], "failed", "{record:#}");
    assert_eq!(record["failure"]["code"], "storage", "{record:#}");

    // Somebody has mounted something in with a secret in it: that is found before anything of the client's runs.
    let open = tempfile::tempdir().expect("there is room");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(open.path(), readable).expect("ours");
    std::fs::write(
        open.path().join("note"),
        "AWS_SESSION_TOKEN=a-token-that-lies-about",
    )
    .expect("ours");
    let ended = run(
        town.environment()
            .shared_folder(open.path(), "/tmp/shared")
            .variable("AWS_SESSION_TOKEN", "a-token-that-lies-about"),
        "task-2",
    );
    assert_eq!(ended.code, 25, "{}", said(&ended));
    assert!(
        said(&ended).contains("AWS_SESSION_TOKEN in /tmp/shared/note"),
        "{}",
        said(&ended)
    );
    let record = town.record();
    assert_eq!(record["failure"]["code"], "isolation_broken", "{record:#}");
}
