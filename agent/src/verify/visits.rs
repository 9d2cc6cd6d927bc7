//! Which pages people look at, and which pages there are as far as links tell.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages that are remembered as visited.
const VISITED_MAX: usize = 50;
/// Pages that are known from links.
const LINKED_MAX: usize = 1000;
/// Bytes of a path that is remembered.
const PATH_MAX_BYTES: usize = 1000;

/// What is known of the site's pages. Cheap to clone; the door writes into it and the verifier reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visits {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug, Default)]
struct Pages {
    /// Newest first.
    visited: VecDeque<String>,
    linked: BTreeSet<String>,
}

impl Visits {
    /// Somebody looked at a page and saw it.
    pub(crate) fn visited(&self, path: &str) {
        if path.len() > PATH_MAX_BYTES {
            return;
        }
        let mut pages = self.lock();
        pages.visited.retain(|page| page != path);
        pages.visited.push_front(path.to_owned());
        pages.visited.truncate(VISITED_MAX);
    }

    /// A page links to these.
    pub(super) fn learn(&self, links: &[String]) {
        let mut pages = self.lock();
        for link in links {
            if link.len() <= PATH_MAX_BYTES && pages.linked.len() < LINKED_MAX {
                pages.linked.insert(link.clone());
            }
        }
    }

    /// The pages that people looked at last, newest first.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = String> + use<> {
        let pages: Vec<String> = self.lock().visited.iter().take(count).cloned().collect();
        pages.into_iter()
    }

    /// All pages that are known: first what people looked at, newest first, then what is linked.
    pub(super) fn known(&self) -> impl Iterator<Item = String> + use<> {
        let pages = self.lock();
        let linked = pages
            .linked
            .iter()
            .filter(|page| !pages.visited.contains(page));
        let known: Vec<String> = pages.visited.iter().chain(linked).cloned().collect();
        known.into_iter()
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
