//! How signals are heard: all are blocked, and read from a descriptor. Nothing interrupts init, and none is lost.

use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The ears of init.
#[derive(Debug)]
pub(crate) struct Ears {
    descriptor: SignalFd,
    /// What was blocked before: the child gets it back.
    pub(crate) blocked_before: SigSet,
}

impl Ears {
    /// From here on nothing interrupts. They stay blocked for good: whoever supervises ends afterwards, with the status that it
    /// found, and not by a signal that came late.
    pub(crate) fn open() -> Result<Self, Errno> {
        let all = SigSet::all();
        let blocked_before = all.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let descriptor =
            SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self {
            descriptor,
            blocked_before,
        })
    }

    /// Waits until there is something to hear, at most so long.
    pub(crate) fn wait(&self, at_most: Option<Duration>) {
        let timeout = at_most.map_or(PollTimeout::NONE, |at_most| {
            // Up: a wait that ends a moment early is made again, and again.
            let at_most = at_most.saturating_add(Duration::from_micros(999));
            PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX)
        });
        let mut wanted = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        // It can fail only for want of kernel memory; then it is looked at once more often than needed.
        poll(&mut wanted, timeout).ok();
    }

    /// The next signal that somebody sent.
    pub(crate) fn next(&self) -> Option<i32> {
        loop {
            let heard = self.descriptor.read_signal().ok()??;
            let signal = i32::try_from(heard.ssi_signo).ok()?;
            // Our own: the reader of a line that we wrote is gone. The child must not hear of it.
            let own = signal == libc::SIGPIPE && heard.ssi_pid == std::process::id();
            if !own {
                return Some(signal);
            }
        }
    }
}
