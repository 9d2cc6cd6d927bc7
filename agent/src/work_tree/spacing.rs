//! Decides when a path may be written again. Pure: the caller passes `now`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::SPACING_MEASURED;
use crate::draft::{Node, PathChange};

/// How far apart two writes of one path are.
pub(crate) const SPACING: Duration = SPACING_MEASURED.saturating_mul(2);

/// What was written when, and what waits.
#[derive(Debug, Default)]
pub(super) struct Spacing {
    written: HashMap<String, Instant>,
    /// The newest content of every path that waits. They are written together, so that the site never sees half of a
    /// change set.
    waiting: BTreeMap<String, Node>,
    due: Option<Instant>,
    instruction_running: bool,
}

impl Spacing {
    /// Takes changes and returns what to write now: all of it (with whatever waited), or nothing.
    pub(super) fn offer(&mut self, changes: &[PathChange], now: Instant) -> BTreeMap<String, Node> {
        self.instruction_running = true;
        self.written
            .retain(|_, at| now.duration_since(*at) < SPACING);
        for change in changes {
            if let Some(at) = self.written.get(&change.path) {
                self.due = self.due.max(Some(*at + SPACING));
            }
            self.waiting
                .insert(change.path.clone(), change.after.clone());
        }
        match self.due {
            Some(due) if due > now => BTreeMap::new(),
            _ => self.take(now),
        }
    }

    /// Takes changes and returns them with whatever waited, whatever the time.
    pub(super) fn force(&mut self, changes: &[PathChange], now: Instant) -> BTreeMap<String, Node> {
        self.instruction_running = true;
        for change in changes {
            self.waiting
                .insert(change.path.clone(), change.after.clone());
        }
        self.take(now)
    }

    /// What waited, if its time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> BTreeMap<String, Node> {
        if self.due.is_some_and(|due| due <= now) {
            self.take(now)
        } else {
            BTreeMap::new()
        }
    }

    /// When what waits is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The content that waits for a path.
    pub(super) fn put_off(&self, path: &str) -> Option<&Node> {
        self.waiting.get(path)
    }

    /// The instruction whose changes were offered is done with the work tree.
    pub(super) fn instruction_done(&mut self) {
        self.instruction_running = false;
    }

    /// Whether nothing waits and no instruction is half done.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && !self.instruction_running
    }

    fn take(&mut self, now: Instant) -> BTreeMap<String, Node> {
        self.due = None;
        let ready = std::mem::take(&mut self.waiting);
        self.written
            .extend(ready.keys().map(|path| (path.clone(), now)));
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_path_is_ever_written_twice_within_the_spacing(steps in prop::collection::vec((0u64..90, 0usize..3), 1..60)) {
            let start = Instant::now();
            let mut now = start;
            let mut spacing = Spacing::default();
            let mut last: HashMap<String, Instant> = HashMap::new();
            let mut wanted: HashMap<String, Node> = HashMap::new();
            let mut shown: HashMap<String, Node> = HashMap::new();
            let mut written = |ready: BTreeMap<String, Node>, at: Instant, shown: &mut HashMap<String, Node>| {
                for (path, node) in ready {
                    if let Some(before) = last.insert(path.clone(), at) {
                        assert!(at.duration_since(before) >= SPACING, "{path} was written twice within the spacing");
                    }
                    shown.insert(path, node);
                }
            };
            for (wait, which) in steps {
                now += Duration::from_millis(wait);
                written(spacing.take_due(now), now, &mut shown);
                let path = ["a", "b", "c"][which].to_owned();
                let after = Node::Symlink(now.duration_since(start).as_nanos().to_le_bytes().to_vec());
                wanted.insert(path.clone(), after.clone());
                written(spacing.offer(&[PathChange { path, after }], now), now, &mut shown);
            }
            if let Some(due) = spacing.due() {
                written(spacing.take_due(due), due, &mut shown);
            }
            prop_assert_eq!(shown, wanted, "in the end everything that was asked for is shown");
        }
    }
}
