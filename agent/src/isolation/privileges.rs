//! What the daemon keeps of being root: starting children as others, ending them, and giving files away.
//!
//! It reads and writes as everybody else does: by owner, group and mode. So a mistake in a path is refused by the kernel and not only
//! by us.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, setgroups};

use super::unfit;
use crate::failure::Failure;

/// What is used, by everything that runs as root in the container.
const USED: [Capability; 4] = [
    Capability::CAP_CHOWN,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// What is to be given up, the last of it last. Fails if something is missing that is used, or with which the rest is given up.
pub(super) fn surplus() -> Result<Vec<Capability>, Failure> {
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let missing: Vec<String> = USED
        .iter()
        .filter(|used| !held.contains(used))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(unfit(
            format!("the container was started without {}", missing.join(", ")),
            "Leave the agent CAP_CHOWN, CAP_KILL, CAP_SETGID and CAP_SETUID (and CAP_SETPCAP, with which it gives up the rest).",
        ));
    }
    let bounded = caps::read(None, CapSet::Bounding).map_err(failed)?;
    let mut surplus: Vec<Capability> = bounded
        .into_iter()
        .filter(|capability| !USED.contains(capability))
        .collect();
    // Giving one up takes this one: it goes last.
    surplus.sort_by_key(|capability| *capability == Capability::CAP_SETPCAP);
    if !surplus.is_empty() && !held.contains(&Capability::CAP_SETPCAP) {
        return Err(unfit(
            "the container was started without CAP_SETPCAP, so that the agent cannot give up what it does not use",
            "Leave it CAP_SETPCAP, or drop everything but CAP_CHOWN, CAP_KILL, CAP_SETGID and CAP_SETUID.",
        ));
    }
    Ok(surplus)
}

/// Gives up every other capability, for this process and whatever it starts.
pub(super) fn cut() -> Result<(), Failure> {
    let surplus = surplus()?;
    if caps::has_cap(None, CapSet::Permitted, Capability::CAP_SETPCAP).map_err(failed)? {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)?;
    }
    for capability in surplus {
        caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
    }
    let used: CapsHashSet = USED.into_iter().collect();
    // These would reach a child that is not root. Whatever is ambient goes with what is inheritable.
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &used).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &used).map_err(failed)?;
    Ok(())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn failed(error: caps::errors::CapsError) -> Failure {
    unfit(
        format!("the capabilities could not be given up: {error}"),
        "Look at what the container engine allows the system calls capset and prctl.",
    )
}

/// Joins the group that shares the work tree. What is written from now on is no business of anybody outside its group, and no
/// memory of ours is ever left in a file.
pub(super) fn join(tree: Gid) -> Result<(), Failure> {
    let failed = |operation: &'static str| {
        move |error: nix::errno::Errno| {
            unfit(
                format!("could not {operation}: {error}"),
                "Look at what the container engine allows.",
            )
        }
    };
    setgroups(&[tree]).map_err(failed("join the group of the work tree"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("forbid core dumps"))?;
    umask(Mode::from_bits_truncate(0o007));
    Ok(())
}
