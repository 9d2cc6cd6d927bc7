//! What the child leaves behind, and how far init can reach it.
//!
//! As PID 1 it is everybody: `kill(-1)` holds still nobody can fork past. As a subreaper it is everybody below us, whom `/proc` tells;
//! without it, and without being the subreaper, only the child's group is known.

use std::fs;
use std::io::Read as _;

use nix::libc;
use nix::unistd::{Pid, getpid};

use crate::kernel;

/// PID 1's way to say everybody but itself.
const EVERYBODY: i32 = -1;

/// Whom init can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All of the container.
    Everybody,
    /// All that descend from us.
    Descendants,
    /// Only the child's group; orphans outside it are ours to reap, but we do not know them.
    Group {
        /// Whether orphans come to us.
        subreaper: bool,
    },
}

impl Reach {
    /// Finds out, and says in words what cannot be done.
    pub(crate) fn find() -> (Self, Option<String>) {
        if getpid() == Pid::from_raw(1) {
            return (Self::Everybody, None);
        }
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            let sentence = format!(
                "Orphans are not reaped: this is not PID 1, and the kernel does not let it be a subreaper ({}). Make it PID 1.",
                errno.desc()
            );
            return (Self::Group { subreaper: false }, Some(sentence));
        }
        if own_processes_are_in_proc() {
            (Self::Descendants, None)
        } else {
            let sentence = "What the program leaves outside its process group is reaped but cannot be ended: /proc is not there. Mount it, or make this PID 1.".to_owned();
            (Self::Group { subreaper: true }, Some(sentence))
        }
    }

    /// Whether processes are left, given whether we have children.
    pub(crate) fn anything_left(self, children: bool, group: Option<Pid>) -> bool {
        match self {
            // Whoever lives has a chain of parents that leads to us.
            Self::Everybody | Self::Descendants => children,
            Self::Group { .. } => {
                let members = |group: Pid| kernel::send(-group.as_raw(), 0).is_ok();
                children || group.is_some_and(members)
            }
        }
    }

    /// Asks all that is left to end. Who is stopped hears it when continued.
    pub(crate) fn ask(self, group: Option<Pid>) {
        self.send(group, &[libc::SIGTERM, libc::SIGCONT]);
    }

    /// Ends all that is left.
    pub(crate) fn kill(self, group: Option<Pid>) {
        self.send(group, &[libc::SIGKILL]);
    }

    fn send(self, group: Option<Pid>, signals: &[i32]) {
        let each = |whom: i32| {
            for signal in signals {
                // ESRCH: gone already. EPERM: somebody else's, which is said when it does not end.
                kernel::send(whom, *signal).ok();
            }
        };
        match self {
            Self::Everybody => each(EVERYBODY),
            Self::Descendants => descendants(&processes(), getpid().as_raw())
                .into_iter()
                .for_each(each),
            Self::Group { .. } => group.into_iter().for_each(|group| each(-group.as_raw())),
        }
    }
}

/// A process and its parent.
type Process = (i32, i32);

/// Whether `/proc` is there and of our own namespace: in another's, the numbers are those of strangers.
fn own_processes_are_in_proc() -> bool {
    fs::read_link("/proc/self").is_ok_and(|pid| pid.as_os_str() == getpid().to_string().as_str())
}

/// Everybody whom `/proc` shows.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // The parent stands right behind the name, which has 16 bytes at most.
            let mut start = [0; 128];
            let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
            let length = file.read(&mut start).ok()?;
            Some((pid, parent(&start[..length])?))
        })
        .collect()
}

/// The parent in a `stat`: `pid (name) state parent …`, where the name may be anything.
fn parent(stat: &[u8]) -> Option<i32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// All below `ancestor`.
fn descendants(processes: &[Process], ancestor: i32) -> Vec<i32> {
    let mut found = vec![ancestor];
    let mut looked_at = 0;
    while let Some(parent) = found.get(looked_at).copied() {
        looked_at += 1;
        let children = processes.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        // Numbers are read one after the other: a number that came back meanwhile must not make a circle.
        if looked_at > processes.len() {
            break;
        }
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_whatever_the_process_is_called() {
        for (stat, expected) in [
            ("7 (sh) S 3 7 7 0", Some(3)),
            ("7 (a) b) (c d) S 3 7 7 0", Some(3)),
            ("7 (ev) il) Z 12345 7", Some(12345)),
            ("7 () R 1 7", Some(1)),
            ("7 (sh", None),
            ("7 (sh) S", None),
            ("", None),
        ] {
            assert_eq!(parent(stat.as_bytes()), expected, "{stat}");
        }
    }

    #[test]
    fn only_what_is_below_us_descends_from_us() {
        let processes = [(2, 1), (3, 1), (4, 3), (5, 4), (6, 2), (9, 5), (7, 3)];
        let mut found = descendants(&processes, 3);
        found.sort_unstable();
        assert_eq!(found, [4, 5, 7, 9]);
        assert_eq!(descendants(&processes, 9), []);
    }

    #[test]
    fn a_circle_comes_to_an_end() {
        let found = descendants(&[(2, 3), (3, 2), (4, 1)], 2);
        assert!(found.contains(&3) && !found.contains(&4), "{found:?}");
    }
}
