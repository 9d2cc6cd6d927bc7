//! Notices that somebody wrote to the file, without looking into it again and again.
//!
//! Every commit of every process appends to the write-ahead log, and Linux tells us so. A look ten times a second would
//! do as well, and is what other systems get; but waking up costs a tenth of a millisecond before any work is done, and
//! an environment at rest is to use next to nothing.

use std::path::Path;
use std::time::Duration;

pub(super) use system::Watch;

/// How long a receiver goes without a look although nobody told it of a write. Bounds what it costs if a file system
/// does not tell.
const TOLD: Duration = Duration::from_secs(1);

/// The same where nobody ever tells. A person does not notice a tenth of a second.
const NEVER_TOLD: Duration = Duration::from_millis(100);

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::OwnedFd;

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    use tokio::net::unix::pipe::Receiver;

    use super::{Duration, NEVER_TOLD, Path, TOLD};

    /// A watch on the write-ahead log. One a waiting receiver: it belongs to that receiver's runtime and ends with it.
    #[derive(Debug)]
    pub(in crate::local) struct Watch {
        /// `None` where the kernel has no more of them to give (there are 128 a user).
        events: Option<Receiver>,
    }

    impl Watch {
        pub(in crate::local) fn of(log: &Path) -> Self {
            let begin = || {
                let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
                inotify.add_watch(log, AddWatchFlags::IN_MODIFY).ok()?;
                // It is no pipe, but is read like one; what tokio has for descriptors in general is unsafe code.
                Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify)).ok()
            };
            Self { events: begin() }
        }

        /// How long to wait for [`Self::written`] before looking all the same.
        pub(in crate::local) fn patience(&self) -> Duration {
            if self.events.is_some() {
                TOLD
            } else {
                NEVER_TOLD
            }
        }

        /// Completes when somebody has written since the last time it did. Cancel safe.
        pub(in crate::local) async fn written(&self) {
            let Some(events) = &self.events else {
                return std::future::pending().await;
            };
            if events.readable().await.is_err() {
                return std::future::pending().await;
            }
            // What they say is all the same. Until nothing is left, because readiness is told once.
            let mut buffer = [0; 4096];
            while events.try_read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Duration, NEVER_TOLD, Path};

    /// Nobody tells.
    #[derive(Debug)]
    pub(in crate::local) struct Watch;

    impl Watch {
        pub(in crate::local) fn of(_log: &Path) -> Self {
            Self
        }

        pub(in crate::local) fn patience(&self) -> Duration {
            NEVER_TOLD
        }

        pub(in crate::local) async fn written(&self) {
            std::future::pending().await
        }
    }
}
