//! What is in the image of an environment, and how the agent in it ends when it is not told what it needs.

use std::time::Duration;

use crate::engine::{Network, Recipe, Volume, agent_image, configuration, until};

/// The users of the image.
const SITE: &str = "10001:10001";

#[test]
fn the_image_says_what_it_is() {
    let agent = Recipe::agent().like_on_fargate();
    assert!(agent.run(&["--version"]).well().starts_with("edit-agent "));
    assert!(agent.run(&["--help"]).well().contains("run"));

    let configuration = configuration(&agent_image());
    assert_eq!(configuration["StopSignal"], "SIGTERM");
    assert_eq!(
        configuration["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/usr/local/bin/edit-agent", "health"])
    );
    let variables = configuration["Env"].to_string();
    for secret in ["KEY", "TOKEN", "SECRET", "PASSWORD"] {
        assert!(!variables.contains(secret), "{variables}");
    }
}

#[test]
fn without_a_client_it_ends_in_clear_lines() {
    let ended = Recipe::agent().like_on_fargate().run(&[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let said = format!("{}{}", ended.said, ended.complained);
    assert!(said.contains("CLIENT_ID is not set"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_command_that_it_does_not_know_is_a_wrong_call() {
    let ended = Recipe::agent().like_on_fargate().run(&["juggle"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.complained.contains("juggle"), "{ended:?}");
}

#[test]
fn the_package_managers_work_for_the_site_without_a_network() {
    let shell = Recipe::agent()
        .like_on_fargate()
        .user(SITE)
        .without_new_privileges()
        .variable("HOME", "/tmp")
        .program("/bin/sh");
    let said = shell
        .run(&[
            "-euc",
            "for program in node npm npx pnpm yarn bun; do echo $program $($program --version); done; ls /tmp",
        ])
        .well();
    for program in [
        "node v", "npm 11.", "npx 11.", "pnpm 10.", "yarn 1.", "bun 1.",
    ] {
        assert!(
            said.lines().any(|line| line.starts_with(program)),
            "{program} is missing in {said}"
        );
    }
}

#[test]
fn nobody_in_the_image_becomes_somebody_else() {
    let found = Recipe::agent()
        .program("/usr/bin/find")
        .run(&["/", "-xdev", "-type", "f", "-perm", "/6000"]);
    assert_eq!(found.well(), "", "these change who runs them");
}

#[test]
fn nothing_in_the_image_can_be_written_by_the_site() {
    let found = Recipe::agent().user(SITE).program("/bin/sh").run(&[
        "-c",
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o ! -type l -writable -print",
    ]);
    let mut writable: Vec<&str> = found.said.lines().collect();
    writable.retain(|path| !["/tmp", "/var/tmp", "/run/lock"].contains(path));
    assert_eq!(writable, Vec::<&str>::new());
}

#[test]
fn root_is_in_the_group_of_the_tree_and_a_volume_is_whose_the_image_says() {
    let workspace = Volume::new();
    let said = Recipe::agent()
        .like_on_fargate()
        .volume(&workspace, "/workspace")
        .program("/bin/sh")
        .run(&[
            "-c",
            "id -nG; stat -c '%U %a' /workspace /tmp; : >/workspace/kept",
        ])
        .well();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].split(' ').any(|group| group == "tree"), "{said}");
    assert_eq!(&lines[1..], ["root 755", "root 1777"], "{said}");

    let again = Recipe::agent()
        .volume(&workspace, "/workspace")
        .program("/bin/ls")
        .run(&["/workspace"]);
    assert_eq!(again.well(), "kept", "what is in a volume stays");
}

#[test]
fn it_has_the_capabilities_of_the_task_definition_and_no_more() {
    let recipe = Recipe::agent().like_on_fargate().program("/bin/grep");
    // CHOWN 0, KILL 5, SETGID 6, SETUID 7, SETPCAP 8.
    let said = recipe.run(&["CapEff", "/proc/self/status"]).well();
    assert!(said.ends_with("00000000000001e1"), "{said}");
}

/// The limits of a container are the kernel's: whoever needs more memory than there is, or more processes, does not get it.
#[test]
fn a_container_has_no_more_than_it_is_given() {
    let recipe = Recipe::agent()
        .memory_mib(128)
        .processes(32)
        .processors(1.0);
    let eater = "const kept = []; for (;;) kept.push(Buffer.alloc(8 << 20, 1));";
    let ended = recipe
        .clone()
        .program("/usr/local/bin/node")
        .run(&["-e", eater]);
    assert_eq!(ended.code, 137, "{ended:?}");

    let bomb = "i=0; while [ $i -lt 64 ]; do sleep 5 & i=$((i+1)); done; echo made all";
    let ended = recipe.program("/bin/sh").run(&["-c", bomb]);
    assert!(!ended.said.contains("made all"), "{ended:?}");

    let ended = Recipe::agent()
        .room("/workspace", 4)
        .program("/bin/sh")
        .run(&["-c", "head -c 8388608 /dev/zero >/workspace/much"]);
    assert!(ended.complained.contains("No space left"), "{ended:?}");
}

/// The vocabulary itself: what is started says its lines, shows its processes, and ends with what it is told.
#[test]
fn a_container_that_was_started_ends_when_it_is_asked_to() {
    let script = "trap 'echo asked; exit 7' TERM; echo here; while :; do sleep 0.1; done";
    let shell = Recipe::agent().program("/bin/sh");
    let running = shell.start(&["-c", script]);
    running.line_with("here", Duration::from_secs(20));
    assert!(running.is_running());

    let first = running.processes().into_iter().next().expect("it runs");
    assert_eq!((first.pid, first.uid), (1, 0), "{first:?}");
    assert_eq!(first.outside, running.pid());
    assert_ne!(first.state, 'Z');
    assert_eq!(
        running.exec(&["/bin/cat", "/proc/1/comm"]).well(),
        first.name
    );

    let (code, took) = running.stop(Duration::from_secs(10));
    assert_eq!(code, 7);
    assert!(
        took < Duration::from_secs(10),
        "it was killed after {took:?}"
    );
    running.line_with("asked", Duration::from_secs(5));
    assert_eq!(running.lines().first().map(String::as_str), Some("here"));

    let running = shell.with_init().start(&["-c", "sleep 1000"]);
    running.kill("KILL");
    assert_eq!(running.exit_code(Duration::from_secs(20)), 137);
}

#[test]
fn containers_of_a_network_reach_each_other_and_nobody_else() {
    let network = Network::new();
    let folder = tempfile::tempdir().expect("there is room");
    std::fs::write(folder.path().join("page"), "here").expect("there is room");
    // Node.js is what the image has to serve and to ask with.
    let node = Recipe::agent().program("/usr/local/bin/node");
    let server = node
        .clone()
        .at(&network, 10)
        .folder(folder.path(), "/pages")
        .start(&[
            "-e",
            "require('http').createServer((_, to) => to.end(require('fs').readFileSync('/pages/page'))).listen(8080, () => console.log('listening'))",
        ]);
    server.line_with("listening", Duration::from_secs(20));

    let ask = |address: &str| {
        format!(
            "fetch('{address}', {{ signal: AbortSignal.timeout(5000) }}).then(a => a.text()).then(console.log, e => {{ console.log(e.cause?.code ?? e.name); process.exit(1) }})"
        )
    };
    let neighbour = node
        .clone()
        .at(&network, 11)
        .knowing("server", &network, 10);
    assert_eq!(
        neighbour.run(&["-e", &ask("http://server:8080/")]).well(),
        "here"
    );
    let beside = node.clone().beside(&server);
    assert_eq!(
        beside.run(&["-e", &ask("http://127.0.0.1:8080/")]).well(),
        "here"
    );
    // The story is in the network itself.
    let address = format!("{}:8080", network.address(10));
    until(Duration::from_secs(5), || {
        std::net::TcpStream::connect(&address)
    })
    .unwrap_or_else(|error| panic!("{address}: {error}"));
    let outside = neighbour.run(&["-e", &ask("http://192.0.2.1/")]);
    assert_eq!(outside.code, 1, "there is a way out: {outside:?}");
}

/// No part of the agent listens yet, so nothing is well: the check ends, and says no.
#[test]
fn a_container_whose_agent_does_not_serve_is_not_healthy() {
    let running = Recipe::agent().program("/bin/sleep").start(&["1000"]);
    assert!(!running.is_healthy());
}
