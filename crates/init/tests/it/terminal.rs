//! With a terminal: it is the child's while that runs, and its keys reach the child.
//!
//! Whoever leads a session takes along, when it ends, what has not been read of its terminal. So each story reads first, and only
//! then lets it end: by one more line.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::pty::openpty;
use nix::unistd::tcgetpgrp;

use crate::support::{
    EDIT_INIT, PATIENCE, children, eventually, kill, number, sleeper, state, undisturbed,
    unheard_of_nap,
};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// A command that leads a session whose terminal it has.
struct Screen {
    child: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    seen: String,
}

impl Screen {
    fn of<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let slave = |pty: &OwnedFd| Stdio::from(pty.try_clone().expect("another"));
        let mut command = undisturbed();
        command.args(["setsid", "--ctty"]).args(arguments);
        command
            .stdin(slave(&pty.slave))
            .stdout(slave(&pty.slave))
            .stderr(slave(&pty.slave));
        let child = command.spawn().expect("started");
        drop((command, pty.slave));
        let keys = File::from(pty.master);
        let mut screen = keys.try_clone().expect("another");
        let (sender, shown) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO, when nobody has the terminal any more.
            while let Ok(length) = screen.read(&mut bytes) {
                if length == 0 || sender.send(bytes[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keys,
            shown,
            seen: String::new(),
        }
    }

    fn init<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of([EDIT_INIT].into_iter().chain(arguments))
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("typed");
    }

    fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(why) => panic!("{text:?} is not shown ({why}), only {:?}", self.seen),
            }
        }
    }

    fn pid(&self) -> i32 {
        number(self.child.id())
    }

    /// The group in the foreground.
    fn foreground(&self) -> i32 {
        tcgetpgrp(&self.keys).map_or(0, nix::unistd::Pid::as_raw)
    }

    fn ends(mut self) -> i32 {
        let status = eventually("it ends", || {
            let status = self.child.try_wait().expect("asked");
            status.ok_or_else(|| "it runs".to_owned())
        });
        status.code().expect("a code")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal goes, and whoever is left hears HUP.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn is_foreground(screen: &Screen, group: i32) {
    eventually("a group has the terminal", || {
        let foreground = screen.foreground();
        (foreground == group)
            .then_some(())
            .ok_or_else(|| format!("{foreground} has it, not {group}"))
    });
}

fn is_in_state(pid: i32, expected: char) {
    eventually("a process is stopped or sleeps", || {
        let state = state(pid);
        (state == expected)
            .then_some(())
            .ok_or_else(|| format!("{pid} is {state}"))
    });
}

#[test]
fn keys_reach_the_child() {
    for (key, signal) in [(CTRL_C, "INT"), (CTRL_BACKSLASH, "QUIT")] {
        let script = format!(
            "trap 'echo heard {signal}; read -r line; exit 5' {signal}; echo ready; while :; do sleep 1000 & wait; done"
        );
        let mut screen = Screen::init(["sh", "-c", &script]);
        screen.shows("ready");
        screen.types(key);
        screen.shows(&format!("heard {signal}"));
        screen.types("\r");
        assert_eq!(screen.ends(), 5);
    }
}

#[test]
fn ctrl_c_ends_a_daemon_for_good() {
    let nap = unheard_of_nap();
    let mut screen = Screen::init(["--restart", "sleep", &nap]);
    // Init does not hear the key itself: that it was meant, it has to know.
    is_foreground(&screen, sleeper(&nap));
    screen.types(CTRL_C);
    assert_eq!(screen.ends(), 130);
}

#[test]
fn ctrl_c_between_crash_and_restart_ends_it() {
    let mut screen = Screen::init(["--restart", "sh", "-c", "exit 101"]);
    // The next start is four seconds away.
    screen.shows("(restart 5;");
    screen.types(CTRL_C);
    assert_eq!(screen.ends(), 130);
}

#[test]
fn ctrl_z_stops_the_child_and_us_and_cont_continues_both() {
    let nap = unheard_of_nap();
    let mut screen = Screen::init(["sleep", &nap]);
    let child = sleeper(&nap);
    let init = screen.pid();
    is_foreground(&screen, child);
    screen.types(CTRL_Z);
    is_in_state(child, 'T');
    is_in_state(init, 'T');
    // A shell above would have its terminal again.
    is_foreground(&screen, init);
    kill(init, 18);
    is_in_state(child, 'S');
    is_foreground(&screen, child);
    screen.types(CTRL_C);
    assert_eq!(screen.ends(), 130);
}

#[test]
fn a_child_that_reads_at_once_is_not_stopped_for_good() {
    for _ in 0..100 {
        let mut screen = Screen::init(["head", "-n", "2"]);
        screen.types("typed\r");
        screen.shows("typed\r\ntyped\r\n");
        screen.types("\r");
        assert_eq!(screen.ends(), 0);
    }
}

#[test]
fn a_shell_has_control_of_its_jobs() {
    for _ in 0..10 {
        let mut screen = Screen::init(["bash", "--norc", "--noprofile", "-i"]);
        screen.types("echo \"flags are [[$-]]\"\r");
        screen.shows("flags are [[him");
        screen.types("exit 3\r");
        assert!(!screen.seen.contains("job control"), "{}", screen.seen);
        assert_eq!(screen.ends(), 3);
    }
}

#[test]
fn the_terminal_is_given_back() {
    let script = "\"$0\" true; read -r line; echo \"read $line\"; read -r line; exit 4";
    let mut screen = Screen::of(["sh", "-c", script, EDIT_INIT]);
    screen.types("typed\r");
    screen.shows("read typed");
    screen.types("\r");
    assert_eq!(screen.ends(), 4);
}

#[test]
fn a_child_that_reads_before_it_has_the_terminal_is_continued() {
    // Every call by which init hands it over comes late: the child is stopped by TTIN first.
    let late = "inject=ioctl:delay_enter=300000";
    let mut screen = Screen::of(
        [
            "strace",
            "-o",
            "/dev/null",
            "-e",
            "trace=ioctl",
            "-e",
            late,
            EDIT_INIT,
        ]
        .into_iter()
        .chain(["head", "-n", "2"]),
    );
    screen.types("typed\r");
    screen.shows("typed\r\ntyped\r\n");
    screen.types("\r");
    assert_eq!(screen.ends(), 0);
}

#[test]
fn a_job_in_the_background_does_not_take_the_terminal() {
    let script = "set -m; \"$0\" sh -c 'trap \"echo heard\" WINCH; echo ready; while :; do sleep 1000 & wait; done' & read -r line; kill $!; wait $!; exit $?";
    let mut screen = Screen::of(["bash", "--norc", "-c", script, EDIT_INIT]);
    screen.shows("ready");
    let init = eventually("one job", || {
        children(screen.pid())
            .first()
            .copied()
            .ok_or_else(String::new)
    });
    // Once it passes signals on, it has done all that it does at the start.
    kill(init, 28);
    screen.shows("heard");
    assert_eq!(screen.foreground(), screen.pid());
    screen.types("\r");
    assert_eq!(screen.ends(), 143);
}

#[test]
fn a_job_that_is_brought_to_the_foreground_takes_the_terminal_with_it() {
    let mut screen = Screen::of(["bash", "--norc", "--noprofile", "-i"]);
    screen.types("PS1=; echo prompt$((1+1))\r");
    screen.shows("prompt2");
    screen.types(&format!(
        "{EDIT_INIT} sh -c 'echo started$((1+1)); exec cat'\r"
    ));
    screen.shows("started2");
    screen.types(CTRL_Z);
    screen.shows("Stopped");
    screen.types("echo again$((1+1)); fg; echo code$?\r");
    screen.shows("again2");
    // bash, init, cat.
    let init = eventually("one job", || {
        children(screen.pid())
            .first()
            .copied()
            .ok_or_else(String::new)
    });
    let cat = eventually("one child", || {
        children(init).first().copied().ok_or_else(String::new)
    });
    is_foreground(&screen, cat);
    screen.types("hello there\r");
    screen.shows("hello there\r\nhello there\r\n");
    screen.types(CTRL_C);
    screen.shows("code130");
    screen.types("exit 9\r");
    assert_eq!(screen.ends(), 9);
}

#[test]
fn a_restarted_child_has_the_terminal_too() {
    let script = "echo start $EDIT_AGENT_RESTARTS; [ $EDIT_AGENT_RESTARTS ] || exit 101; read -r line; echo \"read $line\"; read -r line; exit 6";
    let mut screen = Screen::init(["--restart", "sh", "-c", script]);
    screen.shows("start 1");
    screen.types("typed\r");
    screen.shows("read typed");
    screen.types("\r");
    assert_eq!(screen.ends(), 6);
}
