//! Init ends as its child ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{EDIT_INIT, SEATS, Seat, init, shell};

#[test]
fn every_exit_code_is_the_childs() {
    for seat in SEATS {
        for code in 0..=255 {
            let end = shell(seat, &[], &format!("exit {code}")).ends();
            assert_eq!(end.code(), code, "{seat:?}");
            assert_eq!(end.errors, "");
        }
    }
}

#[test]
fn a_signal_that_ends_the_child_is_128_and_its_number() {
    // CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG and WINCH end nobody; 32 and 33 belong to the C library.
    let ends_nobody = [17, 18, 19, 20, 21, 22, 23, 28, 32, 33];
    for seat in SEATS {
        for signal in (1..=64).filter(|signal| !ends_nobody.contains(signal)) {
            let end = shell(seat, &[], &format!("ulimit -c 0; kill -{signal} $$")).ends();
            assert_eq!(end.code(), 128 + signal, "{seat:?}");
        }
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_line_about_what_to_do() {
    for (command, sentence) in [
        (
            "no-such-command",
            r#"edit-init: error: "no-such-command" was not found in PATH. Correct the name, or give the path of the file."#,
        ),
        (
            "/no/such/command",
            r#"edit-init: error: "/no/such/command" was not found. Correct the path, or put the file there."#,
        ),
        (
            "/etc/passwd/command",
            r#"edit-init: error: "/etc/passwd/command" was not found. Correct the path, or put the file there."#,
        ),
    ] {
        for seat in SEATS {
            let end = init(seat, [command, "argument"]).ends();
            assert_eq!((end.code(), end.errors.as_str()), (127, sentence));
        }
    }
}

#[test]
fn a_file_that_cannot_be_executed_is_126_and_one_line_about_what_to_do() {
    let folder = std::env::temp_dir().join(format!("edit-init-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    for (name, content, mode, code, sentence) in [
        (
            "plain",
            "#!/bin/sh\n",
            0o644,
            126,
            "may not be executed. Make it",
        ),
        (
            "text",
            "echo hello\n",
            0o755,
            126,
            "is no program for this machine. Begin",
        ),
        (
            "alien",
            "\x7fELF\u{1}\u{1}",
            0o755,
            126,
            "is no program for this machine. Begin",
        ),
        (
            "orphan",
            "#!/no/such/shell\n",
            0o755,
            127,
            "is there, but not the interpreter",
        ),
    ] {
        let path = folder.join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        let end = init(Seat::Subreaper, [&path]).ends();
        assert_eq!(end.code(), code, "{name}: {}", end.errors);
        assert!(
            end.errors.contains(sentence) && end.errors.lines().count() == 1,
            "{}",
            end.errors
        );
        assert!(end.errors.contains(name), "{}", end.errors);
    }
    let end = init(Seat::Subreaper, [&folder]).ends();
    assert_eq!(end.code(), 126);
    fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_wrong_call_is_2_and_says_where_help_is() {
    for (arguments, sentence) in [
        (
            &[][..],
            "edit-init: error: The command to run is missing. See edit-init --help.",
        ),
        (
            &["--"],
            "edit-init: error: The command to run is missing. See edit-init --help.",
        ),
        (
            &["--nonsense", "true"],
            r#"edit-init: error: There is no option "--nonsense". See edit-init --help."#,
        ),
    ] {
        let end = init(Seat::Subreaper, arguments).ends();
        assert_eq!((end.code(), end.errors.as_str()), (2, sentence));
    }
}

#[test]
fn help_names_every_option_and_code() {
    let help = init(Seat::Subreaper, ["--help"]).ends();
    assert_eq!((help.code(), help.errors.as_str()), (0, ""));
    for word in [
        "--restart",
        "--last-start",
        "--grace",
        "EDIT_AGENT_RESTARTS",
        "EDIT_AGENT_ASKED_TO_END",
        "LOG_FORMAT",
        "  2 ",
        " 71 ",
        "126",
        "127",
        "128+n",
    ] {
        assert!(help.output.contains(word), "{word}: {}", help.output);
    }
    assert!(help.output.lines().all(|line| line.len() <= 100));
    let version = init(Seat::Subreaper, ["--version"]).ends();
    assert_eq!(
        version.output,
        concat!("edit-init ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_child_that_dies_at_once_is_no_riddle() {
    // Before init listens, or while it does: a thousand times.
    let script = "i=0; while [ $i -lt 1000 ]; do \"$0\" -- /bin/false; [ $? = 1 ] || exit 9; i=$((i+1)); done";
    let ended = Command::new("sh").args(["-c", script, EDIT_INIT]).status();
    assert_eq!(ended.expect("a shell").code(), Some(0));
}
