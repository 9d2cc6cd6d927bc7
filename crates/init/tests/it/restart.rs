//! A daemon that crashed is started anew: bounded, later each time, and with nothing left of the one before.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{EDIT_INIT, Run, SEATS, Seat, init, kill, shell, sleepers, unheard_of_nap};

const RESTART: &str = "--restart";
/// What is said before the longest time in which nothing runs.
const LAST_BACK_OFF: &str = "it is started anew in 4000 ms (restart 5;";

#[test]
fn a_killed_daemon_is_started_anew_and_its_orphans_are_gone_by_then() {
    for seat in SEATS {
        let nap = unheard_of_nap();
        // One in its group, one in a session that ignores TERM.
        let script = format!(
            "echo start ${{EDIT_AGENT_RESTARTS-first}}; [ $EDIT_AGENT_RESTARTS ] ||
             {{ sleep {nap} & trap '' TERM; setsid sleep {nap} & trap - TERM; }}; exec sleep 1000000"
        );
        // Nobody is there whose work a grace could save.
        let mut run = shell(seat, &[RESTART, "--grace", "1000"], &script);
        run.says("start first");
        let (init, daemon) = (run.pid(), run.program(&nap));
        kill(daemon, 9);
        run.complains(
            "was killed (signal 9; perhaps memory ran out); it is started anew in 250 ms",
        );
        run.says("start 1");
        assert_eq!(sleepers(&nap), []);
        assert_eq!(run.pid(), init);
        run.hears(15);
        let end = run.ends();
        assert_eq!(end.code(), 143);
        assert!(
            end.errors
                .ends_with("was ended by signal 15 (TERM); it is not started anew."),
            "{end:?}"
        );
    }
}

#[test]
fn a_daemon_that_goes_on_crashing_is_given_up_after_five_restarts_with_its_last_status() {
    let began = Instant::now();
    let end = shell(
        Seat::Pid1,
        &[RESTART],
        "echo start $EDIT_AGENT_RESTARTS; [ \"$EDIT_AGENT_RESTARTS\" = 5 ] && kill -9 $$; exit 101",
    )
    .ends();
    assert_eq!(end.code(), 137);
    assert_eq!(
        end.output,
        "start\nstart 1\nstart 2\nstart 3\nstart 4\nstart 5"
    );
    // 0.25 + 0.5 + 1 + 2 + 4: at least.
    assert!(
        began.elapsed() >= Duration::from_millis(7750),
        "{:?}",
        began.elapsed()
    );
    for (number, delay_ms) in (1..).zip([250, 500, 1000, 2000, 4000]) {
        let said = format!(
            "sh ended with code 101; it is started anew in {delay_ms} ms (restart {number}; at most 5 in 10 minutes)."
        );
        assert!(end.errors.contains(&said), "{}", end.errors);
        assert!(
            end.errors
                .contains(&format!("sh is started anew (restart {number})."))
        );
    }
    let last = end.errors.lines().last().expect("a line");
    assert_eq!(
        last,
        "edit-init: error: sh was killed (signal 9; perhaps memory ran out), after 5 restarts within 10 minutes; it is not started any more. See its log for why."
    );
    assert_eq!(end.errors.lines().count(), 11);
}

#[test]
fn an_ending_that_is_meant_ends_us() {
    for seat in SEATS {
        for code in [0, 1, 2, 25, 71, 126, 127, 137, 255] {
            let end = shell(seat, &[RESTART], &format!("echo start; exit {code}")).ends();
            assert_eq!((end.code(), end.output.as_str()), (code, "start"));
            assert!(
                end.errors.ends_with(&format!(
                    "sh ended with code {code}; it is not started anew."
                )),
                "{end:?}"
            );
        }
    }
}

#[test]
fn without_restart_nothing_is_started_anew() {
    for seat in SEATS {
        for (script, code) in [("exit 101", 101), ("exit 70", 70), ("kill -9 $$", 137)] {
            let end = shell(seat, &[], &format!("echo start; {script}")).ends();
            assert_eq!(
                (end.code(), end.output.as_str(), end.errors.as_str()),
                (code, "start", "")
            );
        }
    }
}

#[test]
fn a_daemon_that_was_asked_to_end_is_not_started_anew_however_it_ends() {
    for seat in SEATS {
        for signal in [1, 2, 3, 15] {
            for (last, code) in [("exit 101", 101), ("kill -9 $$", 137), ("exit 0", 0)] {
                let script = format!(
                    "trap '{last}' {signal}; echo start; while :; do sleep 1000 & wait; done"
                );
                let mut run = shell(seat, &[RESTART], &script);
                run.says("start");
                run.hears(signal);
                let end = run.ends();
                assert_eq!(
                    (end.code(), end.output.as_str()),
                    (code, "start"),
                    "{end:?}"
                );
            }
        }
    }
}

#[test]
fn a_signal_that_was_passed_on_is_no_crash() {
    let mut run = shell(
        Seat::Subreaper,
        &[RESTART],
        "echo start; exec sleep 1000000",
    );
    run.says("start");
    run.hears(10);
    assert_eq!(run.ends().code(), 138);
}

#[test]
fn term_during_the_back_off_ends_it_at_once_with_143() {
    for seat in SEATS {
        let mut run = shell(seat, &[RESTART], "echo start; exit 101");
        run.complains(LAST_BACK_OFF);
        run.hears(10);
        run.hears(15);
        let end = run.ends();
        assert_eq!(end.code(), 143);
        assert_eq!(end.output, ["start"; 5].join("\n"));
        assert!(
            end.errors
                .ends_with("edit-init: sh is not started anew: signal 15 (TERM) came."),
            "{end:?}"
        );
    }
}

/// What a program saves when it is asked to end: by itself if it hears it, and at a last start if it was asked while it was down.
const SAVES: &str = "echo start ${EDIT_AGENT_RESTARTS-first} ${EDIT_AGENT_ASKED_TO_END-}; [ $EDIT_AGENT_ASKED_TO_END ] && exit 6; exit 101";

#[test]
fn who_has_something_to_save_has_a_last_start_and_ends_with_its_status() {
    for seat in SEATS {
        let mut run = shell(seat, &[RESTART, "--last-start"], SAVES);
        run.complains(LAST_BACK_OFF);
        run.hears(15);
        let end = run.ends();
        assert_eq!(end.code(), 6, "{end:?}");
        let starts = [
            "start first",
            "start 1",
            "start 2",
            "start 3",
            "start 4",
            "start 5 0",
        ];
        assert_eq!(end.output, starts.join("\n"));
        assert!(
            end.errors.contains(
                "edit-init: signal 15 (TERM) came while sh was down after a crash: it is started one last time"
            ),
            "{end:?}"
        );
    }
}

#[test]
fn who_crashes_when_it_is_asked_to_end_has_a_last_start_and_a_word_from_outside_is_none() {
    let script = "echo start ${EDIT_AGENT_ASKED_TO_END-}; [ $EDIT_AGENT_ASKED_TO_END ] && kill -9 $$; trap 'exit 101' TERM; sleep 1000000 & echo listens; wait";
    let mut command = Seat::Subreaper.command();
    command.env("EDIT_AGENT_ASKED_TO_END", "9");
    command.args([RESTART, "--last-start", "sh", "-c", script]);
    let mut run = Run::start(command, Seat::Subreaper);
    run.says("listens");
    run.hears(15);
    let end = run.ends();
    // Killed, and not started another time.
    assert_eq!(end.code(), 137, "{end:?}");
    assert_eq!(end.output, "start\nlistens\nstart 0");
}

#[test]
fn term_after_a_crashed_tree_was_cleared_finds_nothing_of_it() {
    for seat in SEATS {
        let nap = unheard_of_nap();
        let script =
            format!("trap '' TERM; setsid sleep {nap} & trap - TERM; echo start; exit 101");
        let mut run = shell(seat, &[RESTART, "--grace", "1000"], &script);
        run.complains(LAST_BACK_OFF);
        run.hears(15);
        let end = run.ends();
        assert_eq!(end.code(), 143);
        assert_eq!(end.output, ["start"; 5].join("\n"));
        assert_eq!(sleepers(&nap), []);
    }
}

#[test]
fn a_command_that_is_missing_is_not_tried_again() {
    let end = init(Seat::Subreaper, [RESTART, "no-such-command"]).ends();
    assert_eq!(end.code(), 127);
    assert_eq!(end.errors.lines().count(), 2, "{}", end.errors);
}

#[test]
fn a_restarted_daemon_is_where_the_first_was() {
    let mut command = Seat::Subreaper.command();
    command.args([
        RESTART,
        "sh",
        "-c",
        "pwd; [ $EDIT_AGENT_RESTARTS ] || exit 101",
    ]);
    command.current_dir("/usr/lib");
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!(end.output, "/usr/lib\n/usr/lib");
}

#[test]
fn a_restarted_daemon_has_the_signals_that_the_first_had() {
    let mut command = Command::new("env");
    command.args([
        "--default-signal",
        "--block-signal=USR1",
        "--ignore-signal=USR2",
        EDIT_INIT,
        RESTART,
        "bash",
        "-c",
    ]);
    command.arg("grep -E 'SigBlk|SigIgn' /proc/self/status; [ $EDIT_AGENT_RESTARTS ] || exit 101");
    let end = Run::start(command, Seat::Subreaper).ends();
    let lines: Vec<&str> = end.output.lines().collect();
    assert_eq!((lines.len(), &lines[..2]), (4, &lines[2..]), "{end:?}");
    assert!(
        lines[0].ends_with("0200") && lines[1].ends_with("0800"),
        "{end:?}"
    );
}

#[test]
fn the_count_is_ours_and_not_one_that_we_were_given() {
    let script = "echo start ${EDIT_AGENT_RESTARTS-first}; [ $EDIT_AGENT_RESTARTS ] || exit 101";
    let mut command = Seat::Subreaper.command();
    command
        .args([RESTART, "sh", "-c", script])
        .env("EDIT_AGENT_RESTARTS", "7");
    let end = Run::start(command, Seat::Subreaper).ends();
    assert_eq!(end.output, "start first\nstart 1");
}

#[test]
fn what_is_said_is_json_for_whoever_reads_json() {
    let mut command = Seat::Pid1.command();
    command.args([
        RESTART,
        "sh",
        "-c",
        "[ $EDIT_AGENT_RESTARTS ] || kill -9 $$",
    ]);
    command.env("LOG_FORMAT", "json");
    let end = Run::start(command, Seat::Pid1).ends();
    let lines: Vec<&str> = end.errors.lines().collect();
    for (line, expected) in lines.iter().zip([
        r#"Z","level":"WARN","target":"init","message":"sh was killed (signal 9; perhaps memory ran out); it is started anew in 250 ms (restart 1; at most 5 in 10 minutes).","signal":9,"restart":1,"delayMs":250}"#,
        r#"Z","level":"INFO","target":"init","message":"sh is started anew (restart 1).","restart":1}"#,
        r#"Z","level":"INFO","target":"init","message":"sh ended with code 0; it is not started anew.","exitCode":0}"#,
    ]) {
        assert!(line.starts_with(r#"{"timestamp":"2"#) && line.ends_with(expected), "{line}");
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn nobody_reading_what_we_say_does_not_hurt_the_daemon() {
    // A write to a closed pipe sends us PIPE, which must not be passed on.
    let script = "[ $EDIT_AGENT_RESTARTS ] || exit 101; sleep 0.3; exit 4";
    let mut child = Command::new(EDIT_INIT)
        .args([RESTART, "sh", "-c", script])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stderr.take());
    assert_eq!(child.wait().expect("ended").code(), Some(4));
}
