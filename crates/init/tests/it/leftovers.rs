//! What is left when the child has ended: asked, then killed, and never waited for if there is nothing.

use crate::support::{
    Run, SEATS, Seat, eventually, init, kill, shell, sleeper, sleepers, state, unheard_of_nap,
};

/// Nobody's patience: a test that waits for it fails.
const FOREVER: [&str; 2] = ["--grace", "3600"];
const BRIEF: [&str; 2] = ["--grace", "0.2"];

#[test]
fn what_is_left_is_asked_to_end_wherever_it_hides() {
    for seat in SEATS {
        // In the group, in a session of its own, an orphan, and below one that stays.
        let naps: Vec<String> = (0..4).map(|_| unheard_of_nap()).collect();
        let script = format!(
            "sleep {} & setsid sleep {} & (setsid sleep {} &); setsid sh -c 'trap \"wait; exit\" TERM; sleep {} & wait' &
             read -r line; exit 7",
            naps[0], naps[1], naps[2], naps[3]
        );
        let mut command = seat.command();
        command.args(FOREVER).args(["sh", "-c", &script]);
        let mut run = Run::start_with_stdin(command, seat);
        for nap in &naps {
            sleeper(nap);
        }
        run.close_stdin();
        let end = run.ends();
        assert_eq!((end.code(), end.errors.as_str()), (7, ""), "{seat:?}");
        for nap in naps {
            assert_eq!(sleepers(&nap), []);
        }
    }
}

#[test]
fn what_is_left_may_take_the_time_that_it_needs() {
    for seat in SEATS {
        let nap = unheard_of_nap();
        let left = format!(
            "trap \"echo asked; read -r line <&3; echo cleared up; exit\" TERM; sleep {nap} & echo ready; wait"
        );
        let script = format!("exec 3<&0; setsid sh -c '{left}' & exec sleep 1000000");
        let mut command = seat.command();
        command.args(FOREVER).args(["--", "sh", "-c", &script]);
        let mut run = Run::start_with_stdin(command, seat);
        run.says("ready");
        run.program(&nap);
        // Before it is what it becomes, it has the trap, and hears in vain.
        sleeper(&nap);
        run.hears(15);
        // It is at it for as long as we like.
        run.says("asked");
        run.close_stdin();
        let end = run.ends();
        assert_eq!(
            (end.code(), end.output.as_str()),
            (143, "ready\nasked\ncleared up"),
            "{seat:?}"
        );
    }
}

#[test]
fn what_does_not_end_when_asked_is_killed_and_said() {
    for seat in SEATS {
        let nap = unheard_of_nap();
        let script = format!("trap '' TERM; setsid sleep {nap} & trap - TERM; exec sleep 1000000");
        let run = shell(seat, &BRIEF, &script);
        run.program(&nap);
        run.hears(15);
        let end = run.ends();
        assert_eq!(
            (end.code(), end.errors.as_str()),
            (
                143,
                "edit-init: warning: What sh left did not end when asked (TERM); it is killed."
            ),
            "{seat:?}"
        );
        assert_eq!(sleepers(&nap), []);
    }
}

#[test]
fn who_is_stopped_hears_that_it_is_asked() {
    for seat in SEATS {
        let nap = unheard_of_nap();
        let run = shell(
            seat,
            &FOREVER,
            &format!("setsid sleep {nap} & exec sleep 1000000"),
        );
        let sleeper = sleeper(&nap);
        kill(sleeper, 19);
        eventually("it is stopped", || match state(sleeper) {
            'T' => Ok(()),
            other => Err(other.to_string()),
        });
        run.hears(15);
        let end = run.ends();
        assert_eq!((end.code(), end.errors.as_str()), (143, ""));
        assert_eq!(sleepers(&nap), []);
    }
}

#[test]
fn a_second_term_is_impatience() {
    for seat in SEATS {
        let nap = unheard_of_nap();
        let script = format!("trap '' TERM; setsid sleep {nap} & trap - TERM; exec sleep 1000000");
        let run = shell(seat, &FOREVER, &script);
        let child = run.program(&nap);
        run.hears(15);
        eventually("the child has ended", || match state(child) {
            '-' => Ok(()),
            other => Err(other.to_string()),
        });
        run.hears(15);
        assert_eq!(run.ends().code(), 143);
        assert_eq!(sleepers(&nap), []);
    }
}

#[test]
fn a_fork_bomb_ends_with_its_child() {
    // As PID 1 nothing outruns `kill(-1)`. Bounded by itself, so that a failure leaves the machine alive.
    let nap = unheard_of_nap();
    let script = format!(
        "trap '' TERM; bomb() {{ i=0; while [ $i -lt 200 ]; do sleep {nap} & i=$((i+1)); done; wait; }}; bomb & bomb & bomb & trap - TERM; exec sleep 0.05"
    );
    for seat in SEATS {
        let end = shell(seat, &BRIEF, &script).ends();
        assert_eq!(end.code(), 0, "{seat:?}");
        assert_eq!(sleepers(&nap), []);
    }
}

#[test]
fn strangers_are_left_alone() {
    let nap = unheard_of_nap();
    let mut stranger = std::process::Command::new("sleep")
        .arg(&nap)
        .spawn()
        .expect("started");
    let other = unheard_of_nap();
    let run = shell(
        Seat::Subreaper,
        &BRIEF,
        &format!("trap '' TERM; setsid sleep {other} & trap - TERM; exec sleep 1000000"),
    );
    run.program(&other);
    run.hears(15);
    assert_eq!(run.ends().code(), 143);
    assert_eq!(sleepers(&other), []);
    assert!(stranger.try_wait().expect("asked").is_none());
    stranger.kill().expect("killed");
    stranger.wait().expect("ended");
}

#[test]
fn nothing_left_is_not_waited_for() {
    for seat in SEATS {
        let end = init(seat, ["--grace", "3600", "true"]).ends();
        assert_eq!((end.code(), end.errors.as_str()), (0, ""));
    }
}
