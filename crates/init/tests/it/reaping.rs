//! Orphans are reaped, and nobody's status is lost.

use crate::support::{
    EDIT_INIT, Run, SEATS, Seat, eventually, kill, parent, shell, sleeper, sleepers,
    unheard_of_nap, zombies,
};

const ORPHANS: usize = 10_000;
const CHILDREN: usize = 300;

#[test]
fn ten_thousand_orphans_are_reaped_while_three_hundred_children_keep_their_statuses() {
    let script = format!(
        "orphans() {{ i=0; while [ $i -lt {ORPHANS} ]; do (true &); i=$((i+1)); done; }}
         orphans & orphans=$!
         wrong=0; n=0
         while [ $n -lt {CHILDREN} ]; do
             for code in 0 1 2 3 4 5 6 7 8 9; do
                 (sleep 0.0$code; exit $((n + code - 256 * ((n + code) / 256)))) & eval child$code=$!
             done
             for code in 0 1 2 3 4 5 6 7 8 9; do
                 eval wait \\$child$code
                 [ $? = $((n + code - 256 * ((n + code) / 256))) ] || wrong=$((wrong+1))
             done
             n=$((n+10))
         done
         wait $orphans
         echo made $? wrong $wrong of $n
         exec sleep 1000000"
    );
    for seat in SEATS {
        let mut run = shell(seat, &[], &script);
        run.says(&format!("made 0 wrong 0 of {CHILDREN}"));
        let init = run.pid();
        eventually("all are reaped", || match zombies(init) {
            0 => Ok(()),
            some => Err(format!("{some} zombies")),
        });
        run.hears(15);
        assert_eq!(run.ends().code(), 143);
    }
}

#[test]
fn an_orphan_is_ours_and_is_reaped_when_it_ends() {
    for seat in SEATS {
        let nap = unheard_of_nap();
        // Out of the group and the session, as daemons are.
        let mut run = shell(
            seat,
            &[],
            &format!("(setsid sleep {nap} &); echo ready; exec sleep 1000000"),
        );
        run.says("ready");
        let (init, orphan) = (run.pid(), sleeper(&nap));
        eventually("the orphan is init's", || {
            let parent = parent(orphan);
            (parent == init)
                .then_some(())
                .ok_or_else(|| format!("it is {parent}'s"))
        });
        kill(orphan, 9);
        eventually("the orphan is reaped", || match parent(orphan) {
            0 => Ok(()),
            parent => Err(format!("it is {parent}'s")),
        });
        run.hears(15);
        assert_eq!(run.ends().code(), 143, "{seat:?}");
    }
}

#[test]
fn more_orphans_than_are_reaped_at_once_are_reaped_all() {
    // They end while init is stopped, so that it finds all of them together, and no later one wakes it.
    let script = "echo ready; read -r line; i=0; while [ $i -lt 3000 ]; do (true &); i=$((i+1)); done; echo made; exec sleep 1000000";
    let mut command = Seat::Subreaper.command();
    command.args(["sh", "-c", script]);
    let mut run = Run::start_with_stdin(command, Seat::Subreaper);
    run.says("ready");
    let init = run.pid();
    kill(init, 19);
    run.close_stdin();
    run.says("made");
    eventually("there are zombies", || match zombies(init) {
        2500.. => Ok(()),
        few => Err(few.to_string()),
    });
    kill(init, 18);
    eventually("all are reaped", || match zombies(init) {
        0 => Ok(()),
        some => Err(format!("{some} zombies")),
    });
    run.hears(15);
    assert_eq!(run.ends().code(), 143);
}

#[test]
fn orphans_that_end_with_the_child_do_not_change_its_status() {
    for seat in SEATS {
        let script = "i=0; while [ $i -lt 300 ]; do (sh -c 'exit 9' &); i=$((i+1)); done; exit 42";
        for _ in 0..10 {
            assert_eq!(shell(seat, &[], script).ends().code(), 42, "{seat:?}");
        }
    }
}

#[test]
fn an_init_below_an_init_keeps_its_own_orphans() {
    let nap = unheard_of_nap();
    let script = format!("\"$0\" -- sh -c '(sleep {nap} &); exit 3'; echo inner $?; exit 4");
    let mut command = Seat::Pid1.command();
    command.args(["--", "sh", "-c", &script, EDIT_INIT]);
    let end = Run::start(command, Seat::Pid1).ends();
    assert_eq!((end.code(), end.output.as_str()), (4, "inner 3"));
    assert_eq!(sleepers(&nap), []);
}
