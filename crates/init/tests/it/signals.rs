//! Every signal that can be caught reaches the child, and its group.

use nix::libc;

use crate::support::{
    SEATS, Seat, eventually, kill, shell, sleeper, sleepers, state, unheard_of_nap,
};

/// What can be caught and is passed on as it is: not KILL and STOP, not CHLD, not what stops jobs, not the C library's own.
fn passed_on() -> impl Iterator<Item = i32> {
    let not = [9, 19, 17, 20, 21, 22, 32, 33];
    (1..=64).filter(move |signal| !not.contains(signal))
}

/// Says which signals it hears.
fn listener(signals: impl Iterator<Item = i32>) -> String {
    let traps: String = signals
        .map(|signal| format!("trap 'echo heard {signal}.' {signal}; "))
        .collect();
    format!("{traps} echo ready; while :; do sleep 1000 & wait; done")
}

#[test]
fn every_signal_that_can_be_caught_reaches_the_child() {
    for seat in SEATS {
        let mut run = shell(seat, &[], &listener(passed_on()));
        run.says("ready");
        for signal in passed_on() {
            run.hears(signal);
            run.says(&format!("heard {signal}."));
        }
        kill(run.child(), libc::SIGKILL);
        assert_eq!(run.ends().code(), 137, "{seat:?}");
    }
}

#[test]
fn a_signal_that_ends_the_child_ends_us_as_it() {
    for seat in SEATS {
        for signal in [
            libc::SIGTERM,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGHUP,
            34,
            64,
        ] {
            let mut run = shell(seat, &[], "echo ready; exec sleep 1000");
            run.says("ready");
            run.hears(signal);
            assert_eq!(run.ends().code(), 128 + signal, "{seat:?}");
        }
    }
}

#[test]
fn a_shells_child_hears_it_too() {
    // The shell ignores it; its child, which ends by it, ends the shell.
    for seat in SEATS {
        let nap = unheard_of_nap();
        let script = format!(
            "trap '' USR1; env --default-signal=USR1 sleep {nap}; echo child ended $?; exit 6"
        );
        let run = shell(seat, &[], &script);
        sleeper(&nap);
        run.hears(libc::SIGUSR1);
        let end = run.ends();
        assert_eq!((end.code(), end.output.as_str()), (6, "child ended 138"));
    }
}

#[test]
fn signals_that_come_before_the_child_is_ready_are_not_lost() {
    // TERM ends it or is heard by it, whenever it comes: a hundred times at once after the start.
    for _ in 0..100 {
        let run = shell(Seat::Subreaper, &[], "exec sleep 1000");
        let init = run.pid();
        // Once its child is there, init listens for sure.
        eventually("init has a child", || {
            let children = crate::support::children(init);
            (!children.is_empty()).then_some(()).ok_or_else(String::new)
        });
        run.hears(libc::SIGTERM);
        assert_eq!(run.ends().code(), 143);
    }
}

#[test]
fn signals_that_stop_jobs_stop_the_child_and_us() {
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        let mut run = shell(Seat::Subreaper, &[], &listener([libc::SIGCONT].into_iter()));
        run.says("ready");
        let (init, child) = (run.pid(), run.child());
        run.hears(signal);
        is_in_state(init, 'T');
        is_in_state(child, 'T');
        run.hears(libc::SIGCONT);
        run.says("heard 18.");
        is_in_state(init, 'S');
        run.hears(libc::SIGTERM);
        assert_eq!(run.ends().code(), 143);
    }
}

#[test]
fn as_pid_1_only_the_child_is_stopped() {
    let mut run = shell(Seat::Pid1, &[], &listener([libc::SIGCONT].into_iter()));
    run.says("ready");
    let (init, child) = (run.pid(), run.child());
    run.hears(libc::SIGTSTP);
    is_in_state(child, 'T');
    is_in_state(init, 'S');
    run.hears(libc::SIGCONT);
    run.says("heard 18.");
    run.hears(libc::SIGTERM);
    assert_eq!(run.ends().code(), 143);
}

#[test]
fn pid_1_is_immune_to_what_its_children_send() {
    let end = shell(Seat::Pid1, &[], "kill -KILL 1; kill -STOP 1; exit 5").ends();
    assert_eq!(end.code(), 5);
}

#[test]
fn stopping_at_rest_waits_for_nothing() {
    for seat in SEATS {
        // With a grace that is longer than anybody's patience.
        let nap = unheard_of_nap();
        let run = shell(seat, &["--grace", "3600"], &format!("exec sleep {nap}"));
        sleeper(&nap);
        run.hears(libc::SIGTERM);
        assert_eq!(run.ends().code(), 143);
        assert_eq!(sleepers(&nap), []);
    }
}

fn is_in_state(pid: i32, expected: char) {
    eventually("a process is stopped or runs", || {
        let state = state(pid);
        // A shell that has just been continued may still be running.
        let is = state == expected || (expected == 'S' && state == 'R');
        is.then_some(())
            .ok_or_else(|| format!("{pid} is {state}, not {expected}"))
    });
}
