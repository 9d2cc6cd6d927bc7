//! Where something is missing that init would like to have.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::support::{
    EDIT_INIT, Run, Seat, eventually, namespace, sleeper, sleepers, unheard_of_nap,
};

/// A namespace whose `/proc` is empty.
fn without_proc(script: &str) -> Command {
    let mut command = namespace();
    let hide = format!("mount -t tmpfs none /proc || exit 99; {script}");
    command.args(["sh", "-c", &hide, EDIT_INIT]);
    command
}

/// A file that leads `edit-init` into an errno, by `strace`.
fn struck(injection: &str) -> Command {
    let mut command = Command::new("strace");
    let calls = injection.split(':').next().unwrap_or_default();
    command.args(["-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={injection}"), EDIT_INIT]);
    command
}

#[test]
fn pid_1_needs_no_proc() {
    let nap = unheard_of_nap();
    let script = format!(
        "exec \"$0\" --grace 0.2 -- sh -c '(setsid sleep {nap} &); trap \"\" TERM; sleep {nap} & exit 5'"
    );
    let end = Run::start(without_proc(&script), Seat::Pid1).ends();
    assert_eq!(end.code(), 5);
    assert_eq!(sleepers(&nap), []);
    assert_eq!(
        end.errors,
        "edit-init: warning: What sh left did not end when asked (TERM); it is killed."
    );
}

#[test]
fn pid_1_restarts_without_proc() {
    let script = "exec \"$0\" --restart sh -c 'echo start; [ $EDIT_AGENT_RESTARTS ] || kill -9 $$'";
    let end = Run::start(without_proc(script), Seat::Pid1).ends();
    assert_eq!((end.code(), end.output.as_str()), (0, "start\nstart"));
}

#[test]
fn a_subreaper_without_proc_says_what_it_cannot_and_ends_the_group() {
    let nap = unheard_of_nap();
    let script = format!("\"$0\" -- sh -c 'sleep {nap} & exit 5'; echo code $?");
    let end = Run::start(without_proc(&script), Seat::Subreaper).ends();
    assert_eq!(end.output, "code 5");
    assert_eq!(
        end.errors,
        "edit-init: warning: What the program leaves outside its process group is reaped but cannot be ended: /proc is not there. Mount it, or make this PID 1."
    );
    assert_eq!(sleepers(&nap), []);
}

#[test]
fn somebody_elses_proc_is_none() {
    // Its numbers are those of another namespace: by them, strangers would be ended.
    let mut command = namespace();
    command.args([
        "sh",
        "-c",
        "\"$0\" -- sh -c 'exit 5'; echo code $?",
        EDIT_INIT,
    ]);
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!(end.output, "code 5");
    assert!(end.errors.contains("/proc is not there"), "{}", end.errors);
}

#[test]
fn who_cannot_be_subreaper_says_so_and_goes_on() {
    let nap = unheard_of_nap();
    let mut command = struck("prctl:error=EINVAL");
    command.args(["sh", "-c", &format!("sleep {nap} & exit 5")]);
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!(end.code(), 5);
    assert_eq!(
        end.errors,
        "edit-init: warning: Orphans are not reaped: this is not PID 1, and the kernel does not let it be a subreaper (Invalid argument). Make it PID 1."
    );
    eventually("the group has ended", || match sleepers(&nap)[..] {
        [] => Ok(()),
        ref left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_full_table_of_processes_is_71_and_one_line() {
    let mut command = struck("clone,clone3,vfork:error=EAGAIN");
    command.arg("true");
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!(end.code(), 71);
    assert_eq!(
        end.errors,
        r#"edit-init: error: "true" could not be started: Try again. Raise the limit of processes or memory, or end something."#
    );
}

#[test]
fn a_full_table_of_processes_is_tried_again_where_restarts_are() {
    let mut command = struck("clone,clone3,vfork:error=EAGAIN:when=1");
    command.args(["--restart", "sh", "-c", "echo start; exit 3"]);
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!((end.code(), end.output.as_str()), (3, "start"));
    assert!(
        end.errors
            .contains("sh could not be started; it is started anew in 250 ms"),
        "{}",
        end.errors
    );
}

#[test]
fn no_descriptor_left_is_71_and_one_line() {
    let mut command = struck("signalfd4:error=EMFILE");
    command.arg("true");
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!(end.code(), 71);
    assert_eq!(
        end.errors,
        "edit-init: error: true cannot be looked after: Too many open files. Raise the limit of open files or memory."
    );
}

#[test]
fn a_reader_that_has_stopped_reading_does_not_stop_us() {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let writer = OwnedFd::from(writer);
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
    let mut full = std::fs::File::from(writer.try_clone().expect("another"));
    while full.write(&[b'x'; 4096]).is_ok() {}
    while full.write(b"x").is_ok() {}
    // Those who write now would wait.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("set");
    let nap = unheard_of_nap();
    let mut child = Command::new(EDIT_INIT)
        .args([
            "--restart",
            "sh",
            "-c",
            &format!("[ $EDIT_AGENT_RESTARTS ] || exit 101; exec sleep {nap}"),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::from(writer))
        .spawn()
        .expect("started");
    sleeper(&nap);
    crate::support::kill(crate::support::number(child.id()), 15);
    let status = eventually("it ends", || {
        child
            .try_wait()
            .expect("asked")
            .ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(status.code(), Some(143));
}

#[test]
fn nothing_to_write_to_is_no_reason_to_stop() {
    let script = "exec 0<&- 1>&- 2>&-; exec \"$0\" --restart sh -c '[ $EDIT_AGENT_RESTARTS ] || exit 101; exit 6'";
    let ended = Command::new("sh").args(["-c", script, EDIT_INIT]).status();
    assert_eq!(ended.expect("a shell").code(), Some(6));
}
