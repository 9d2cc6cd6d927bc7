//! What the child gets: everything that init was given, as it was.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{EDIT_INIT, Run, SEATS, Seat, eventually, init, namespace, shell};

/// What `/proc/self/status` says of signals, for a command that is started so.
fn signals(settings: &[&str], under: &[&str]) -> Vec<String> {
    let mut command = Command::new("env");
    command.args(settings).args(under);
    let output = command.args(["cat", "/proc/self/status"]).output();
    let output = String::from_utf8(output.expect("env").stdout).expect("text");
    let lines = output.lines().map(str::to_owned);
    let lines: Vec<String> = lines
        .filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"))
        .collect();
    assert_eq!(lines.len(), 2, "{output}");
    lines
}

#[test]
fn blocked_and_ignored_signals_are_the_childs_as_they_were_ours() {
    for settings in [
        &[][..],
        &[
            "--ignore-signal=TTOU,SEGV,INT",
            "--block-signal=TTIN,ILL,TERM",
        ],
        &["--block-signal"],
        &["--ignore-signal=HUP,USR1", "--block-signal=CHLD,RTMIN"],
    ] {
        let bare = signals(settings, &[]);
        assert_eq!(signals(settings, &[EDIT_INIT]), bare, "{settings:?}");
        assert_eq!(signals(settings, &[EDIT_INIT, "--restart"]), bare);
    }
}

#[test]
fn a_broken_pipe_ends_the_child_as_it_would_without_us() {
    // SIGPIPE is ignored in us.
    let end = shell(Seat::Subreaper, &[], "kill -PIPE $$; echo survived").ends();
    assert_eq!((end.code(), end.output.as_str()), (141, ""));
}

#[test]
fn a_status_is_not_lost_when_we_are_started_with_chld_ignored() {
    let mut command = Command::new("env");
    command.args(["--ignore-signal=CHLD", EDIT_INIT, "sh", "-c", "exit 7"]);
    assert_eq!(Run::start(command, Seat::Subreaper).ends().code(), 7);
}

#[test]
fn stdin_is_the_childs() {
    let mut child = Command::new(EDIT_INIT)
        .arg("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"one\ntwo\n").expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.stdout, b"one\ntwo\n");
}

#[test]
fn arguments_and_environment_are_the_childs_to_the_byte() {
    let mut command = Command::new(EDIT_INIT);
    command.args([
        "--",
        "sh",
        "-c",
        "printf '[%s]' \"$@\" \"$ODD\"; echo",
        "sh",
    ]);
    command
        .args(["", "--help", "a b", "ü", "*"])
        .env("ODD", "x=y z");
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!(end.output, "[][--help][a b][ü][*][x=y z]");
}

#[test]
fn the_childs_descriptors_are_those_that_we_were_given() {
    let list = ["sh", "-c", "ls -l /proc/self/fd | wc -l"];
    let bare = Command::new(list[0])
        .args(&list[1..])
        .output()
        .expect("a shell");
    let bare = String::from_utf8(bare.stdout).expect("text");
    for options in [&[][..], &["--restart"]] {
        let end = init(Seat::Subreaper, [options, &list].concat()).ends();
        assert_eq!(end.output, bare.trim_end());
    }
}

#[test]
fn the_child_leads_a_group_and_a_session() {
    for seat in SEATS {
        // pid (sh) state ppid pgrp session
        let end = shell(seat, &[], "read -r pid name state parent group session rest < /proc/$$/stat; echo $pid $group $session").ends();
        let fields: Vec<&str> = end.output.split(' ').collect();
        assert!(
            fields[0] == fields[1] && fields[1] == fields[2],
            "{fields:?}"
        );
    }
}

fn is_in_the_root(init: i32) {
    eventually("init goes to /", || {
        let folder = std::fs::read_link(format!("/proc/{init}/cwd")).expect("it runs");
        (folder.as_os_str() == "/")
            .then_some(())
            .ok_or_else(|| folder.display().to_string())
    });
}

#[test]
fn the_child_is_where_we_were_started_and_we_are_in_the_root() {
    let mut command = Seat::Subreaper.command();
    command.args(["sh", "-c", "pwd; read -r line < /dev/zero"]);
    command.current_dir("/usr/lib");
    let mut run = Run::start(command, Seat::Subreaper);
    run.says("/usr/lib");
    is_in_the_root(run.pid());
    run.hears(15);
    assert_eq!(run.ends().code(), 143);
}

#[test]
fn a_mount_that_we_were_started_in_is_not_kept_busy() {
    let mut command = namespace();
    // A mount point that is there everywhere, for this namespace alone.
    let outside = "mount -t tmpfs none /mnt && cd /mnt && exec \"$0\" -- sh -c \"$1\"";
    let inside = "cd /; echo inside; read -r line; umount /mnt && echo free";
    command.args(["--mount-proc", "sh", "-c", outside, EDIT_INIT, inside]);
    let mut run = Run::start_with_stdin(command, Seat::Pid1);
    run.says("inside");
    is_in_the_root(run.pid());
    run.close_stdin();
    let end = run.ends();
    assert_eq!(
        (end.code(), end.output.as_str()),
        (0, "inside\nfree"),
        "{}",
        end.errors
    );
}

#[test]
fn the_program_is_found_in_path_or_by_its_path() {
    for (program, code) in [("true", 0), ("/bin/true", 0), ("false", 1)] {
        assert_eq!(init(Seat::Subreaper, [program]).ends().code(), code);
    }
}
