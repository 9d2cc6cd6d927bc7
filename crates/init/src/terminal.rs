//! Who has the terminal.
//!
//! Keys such as Ctrl-C reach the group in the foreground, and whoever else reads is stopped. So the child's group gets the
//! foreground while it runs. `posix_spawn` cannot do that in the child, before its program begins, as a shell does: we do it a moment
//! later. A child that asked for the terminal in that moment was stopped with TTIN or TTOU, and is continued.

use std::io::{IsTerminal as _, stdin};

use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The terminal that controls us, at stdin.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Whether a child of ours has it.
    handed_over: bool,
}

impl Terminal {
    /// None if stdin is no terminal, or somebody else's.
    pub(crate) fn find() -> Option<Self> {
        let ours = stdin().is_terminal() && tcgetpgrp(stdin()).is_ok();
        ours.then_some(Self { handed_over: false })
    }

    /// Gives the foreground to a group, if it is ours to give: not from a job in the background, and not twice, for the child
    /// may have given it to a job of its own.
    pub(crate) fn hand_over(&mut self, group: Pid) {
        if !self.handed_over && tcgetpgrp(stdin()) == Ok(getpgrp()) {
            self.handed_over = tcsetpgrp(stdin(), group).is_ok();
        }
    }

    /// Takes it back, so that whoever started us finds it as it was, and keys reach us while there is no child.
    pub(crate) fn take_back(&mut self) {
        if std::mem::take(&mut self.handed_over) {
            // From the background this is allowed because TTOU is blocked. It may have been hung up.
            tcsetpgrp(stdin(), getpgrp()).ok();
        }
    }

    /// Whether the child's group has it, as far as we know.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Whether this group is the one in the foreground.
    pub(crate) fn is_of(&self, group: Pid) -> bool {
        self.handed_over && tcgetpgrp(stdin()) == Ok(group)
    }
}
