//! When a browser was given its page. Between a page and its socket to the dev server lies a moment in which nobody can
//! tell it anything; a change of that moment would not show until somebody loads the page again. So the runner is told, with
//! the socket, how old the page is, and tells it to load itself again if it missed something.
//!
//! A socket does not say of which page it is. The newest page that went to the same browser is taken; with two of them
//! opened in one moment, one may be loaded once more than it had to.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use contract::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// How old the page of a socket is, for the runner: milliseconds since 1970. Nobody else's word is taken.
const PAGE_AT: HeaderName = HeaderName::from_static("edit-page-at");
/// Browsers that are remembered.
const BROWSERS_MAX: usize = 100;

/// The newest page of each browser. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(Arc<Mutex<VecDeque<(Browser, Timestamp)>>>);

/// Whose page it is, as far as can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Browser(IpAddr, Option<HeaderValue>);

impl Browser {
    pub(super) fn of(address: IpAddr, headers: &HeaderMap) -> Self {
        Self(address, headers.get(header::USER_AGENT).cloned())
    }
}

impl Opened {
    /// A page was asked for then.
    pub(super) fn page(&self, browser: Browser, at: Timestamp) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|(known, _)| *known != browser);
        pages.push_front((browser, at));
        pages.truncate(BROWSERS_MAX);
    }

    /// Says with a socket how old its page is.
    pub(super) fn tell(&self, browser: &Browser, headers: &mut HeaderMap) {
        headers.remove(PAGE_AT);
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, at)) = pages.iter().find(|(known, _)| known == browser) {
            headers.insert(PAGE_AT, at.unix_ms().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_the_age_of_the_newest_page_of_its_browser() {
        let opened = Opened::default();
        let agent = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_static(name));
            Browser::of(IpAddr::from([127, 0, 0, 1]), &headers)
        };
        for at in [1, 2] {
            opened.page(agent("a"), Timestamp::from_unix_ms(at));
        }
        let told = |name| {
            let mut headers = HeaderMap::new();
            headers.insert(PAGE_AT, HeaderValue::from_static("999"));
            opened.tell(&agent(name), &mut headers);
            headers.get(PAGE_AT).cloned()
        };
        assert_eq!(told("a"), Some(HeaderValue::from_static("2")));
        assert_eq!(told("b"), None);
        for other in 0..BROWSERS_MAX {
            let name: &'static str = Box::leak(other.to_string().into_boxed_str());
            opened.page(agent(name), Timestamp::from_unix_ms(3));
        }
        assert_eq!(told("a"), None);
    }
}
