//! What people did last: the one record of who is there.
//!
//! Two things count. A *navigation*: a person's browser was given a page. And *presence*: a page that somebody sees, and has
//! touched a moment ago, says so (`door/presence.rs`). Nothing else does: not health checks, status, events, sockets and
//! their pings, modules, pictures, a tab that nobody looks at, a page that loads itself again, a program that follows links.
//!
//! Times are kept twice. How long ago something was is measured on the monotonic clock, because the wall clock may be
//! set; records name the wall clock's time, because nobody else knows ours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::Timestamp;
use http::{HeaderMap, Method, header};
use serde::Deserialize;
use tokio::sync::watch;

/// How often presence counts. Beacons between are answered and change nothing.
const COUNTED_EVERY: Duration = Duration::from_secs(5);
/// Beacons taken in one [`WINDOW`], from everybody together: 60 tabs that are all in use. Who is turned away loses nothing,
/// because then somebody has been counted a moment ago.
const BEACONS_PER_WINDOW: u32 = 120;
const WINDOW: Duration = Duration::from_secs(60);
/// Characters of a path that are remembered. It is shown to operators, who want to recognise the page.
const PATH_MAX: usize = 80;
/// Words in the names of programs that look at pages and are no person. In lower case.
///
/// What does not begin as browsers do is left out before; these pose as one.
const PROGRAMS: [&str; 38] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "headless",
    "phantomjs",
    "puppeteer",
    "playwright",
    "selenium",
    "lighthouse",
    "pagespeed",
    "gtmetrix",
    "pingdom",
    "uptime",
    "statuscake",
    "monitor",
    "checker",
    "checklink",
    "validator",
    "scan",
    "probe",
    "nikto",
    "nessus",
    "zgrab",
    "censys",
    "expanse",
    "facebookexternalhit",
    "preview",
    "unfurl",
    "embedly",
    "whatsapp",
    "safelinks",
    "proofpoint",
    "mimecast",
    "barracuda",
    "archiver",
    "httrack",
    "http-client",
];
/// Telephones whose name has one of those words in it.
const TELEPHONES: [&str; 1] = ["cubot"];

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// For records and people.
    pub(crate) at: Timestamp,
    /// For how long ago it was.
    pub(crate) instant: Instant,
}

impl Moment {
    /// The clocks' present moment. Decisions never call this: they are given `now`.
    pub(crate) fn now() -> Self {
        Self {
            at: Timestamp::now(),
            instant: Instant::now(),
        }
    }

    /// The time that has passed since `earlier`; zero if it lies in the future.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.instant.saturating_duration_since(earlier.instant)
    }

    /// The moment `duration` after this one. What the clock cannot name is as far away as it can.
    pub(crate) fn plus(self, duration: Duration) -> Self {
        const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let instant = self.instant.checked_add(duration);
        Self {
            at: self.at.plus(duration),
            instant: instant.unwrap_or_else(|| self.instant + FOR_EVER),
        }
    }
}

/// A page that was given to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Navigation {
    /// When.
    pub(crate) at: Moment,
    /// Which page: its path, never its query.
    pub(crate) path: Arc<str>,
}

/// What was last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Last {
    /// Since when the environment is there for people; none while it starts.
    pub(crate) woken: Option<Moment>,
    /// The last page.
    pub(crate) navigation: Option<Navigation>,
    /// When somebody was last known to be using one.
    pub(crate) presence: Option<Moment>,
}

impl Last {
    /// When a person last did something.
    pub(crate) fn activity(&self) -> Option<Moment> {
        let navigation = self.navigation.as_ref().map(|navigation| navigation.at);
        navigation
            .into_iter()
            .chain(self.presence)
            .max_by_key(|moment| moment.instant)
    }
}

/// What a page says of whoever has it before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Beacon {
    /// It is seen.
    pub(crate) visible: bool,
    /// A person used it within the last minutes.
    pub(crate) used: bool,
}

/// More beacons than all people together would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The record. Cheap to clone; the door writes into it, whoever decides about sleep reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    last: watch::Sender<Last>,
    /// When the window began, and the beacons in it.
    beacons: Mutex<Option<(Instant, u32)>>,
}

impl Activity {
    /// The environment is there for people from now on.
    pub(crate) fn woken(&self, now: Moment) {
        self.0.last.send_modify(|last| last.woken = Some(now));
    }

    /// A person was given a page.
    pub(crate) fn navigated(&self, path: &str, now: Moment) {
        let mut shown: String = path.chars().take(PATH_MAX).collect();
        if shown.len() < path.len() {
            shown.push('…');
        }
        self.0.last.send_modify(|last| {
            last.navigation = Some(Navigation {
                at: now,
                path: shown.into(),
            });
        });
    }

    /// Somebody is there, as others say.
    pub(crate) fn heard_of(&self, now: Moment) {
        self.0.last.send_modify(|last| last.presence = Some(now));
    }

    /// A page says who has it before them.
    pub(crate) fn beacon(&self, beacon: Beacon, now: Moment) -> Result<(), TooMany> {
        {
            let mut beacons = self
                .0
                .beacons
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let count = match *beacons {
                Some((began, count)) if now.instant.saturating_duration_since(began) < WINDOW => {
                    *beacons = Some((began, count.saturating_add(1)));
                    count
                }
                _ => {
                    *beacons = Some((now.instant, 1));
                    0
                }
            };
            if count >= BEACONS_PER_WINDOW {
                return Err(TooMany);
            }
        }
        if beacon.visible && beacon.used {
            self.0.last.send_if_modified(|last| {
                let counts = last
                    .presence
                    .is_none_or(|before| now.since(before) >= COUNTED_EVERY);
                if counts {
                    last.presence = Some(now);
                }
                counts
            });
        }
        Ok(())
    }

    /// What was last.
    pub(crate) fn last(&self) -> Last {
        self.0.last.borrow().clone()
    }

    /// What was last, and every change of it: who is about to sleep learns that somebody came.
    pub(crate) fn watch(&self) -> watch::Receiver<Last> {
        self.0.last.subscribe()
    }
}

/// Whether a person's browser asks for a page to show. Pure.
///
/// Browsers say what a request is for; those that do not are believed if they want a page. A page that loads itself again,
/// because its site was changed, is nobody's doing: browsers say that too, except Safari.
pub(crate) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if *method != Method::GET || headers.contains_key(header::UPGRADE) {
        return false;
    }
    // Made on suspicion: by the browser, by Safari's start page, by old Firefox.
    let ahead = ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .filter_map(|name| text(name))
        .any(|purpose| {
            ["prefetch", "prerender", "preview"]
                .iter()
                .any(|word| purpose.to_ascii_lowercase().contains(word))
        });
    let Some(name) = text("user-agent") else {
        return false;
    };
    if ahead || !is_browser(name) {
        return false;
    }
    let Some(mode) = text("sec-fetch-mode") else {
        return text("accept").is_some_and(|accept| accept.contains("text/html"));
    };
    let says_who_did_it = name.contains("Chrome/") || name.contains("Firefox/");
    let by_itself = text("sec-fetch-site") == Some("same-origin")
        && text("sec-fetch-user").is_none()
        && says_who_did_it;
    mode == "navigate"
        && text("sec-fetch-dest").is_none_or(|destination| destination == "document")
        && !by_itself
}

/// Whether a person sits before what has this name.
fn is_browser(name: &str) -> bool {
    let mut name = name.to_ascii_lowercase();
    for telephone in TELEPHONES {
        name = name.replace(telephone, "");
    }
    (name.starts_with("mozilla/") || name.starts_with("opera/"))
        && !PROGRAMS.iter().any(|program| name.contains(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    const SAFARI: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1";
    const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

    fn counts(method: &Method, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        is_navigation(method, &map)
    }

    #[test]
    fn a_page_that_a_person_asks_for_counts_and_nothing_else() {
        let navigate: &[(&'static str, &str)] = &[
            ("user-agent", CHROME),
            ("accept", "text/html,*/*"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let and = |more: &[(&'static str, &'static str)]| [navigate, more].concat();
        for (headers, expected) in [
            (and(&[]), true),
            (
                and(&[("sec-fetch-site", "none"), ("sec-fetch-user", "?1")]),
                true,
            ),
            (and(&[("sec-fetch-site", "cross-site")]), true),
            (
                and(&[("sec-fetch-site", "same-origin"), ("sec-fetch-user", "?1")]),
                true,
            ),
            // The page loaded itself again.
            (and(&[("sec-fetch-site", "same-origin")]), false),
            (and(&[("sec-purpose", "prefetch;prerender")]), false),
            (and(&[("purpose", "prefetch")]), false),
            (and(&[("x-purpose", "preview")]), false),
            (and(&[("upgrade", "websocket")]), false),
        ] {
            assert_eq!(counts(&Method::GET, &headers), expected, "{headers:?}");
        }
        for method in [Method::HEAD, Method::POST] {
            assert!(!counts(&method, navigate), "{method}");
        }
        let with = |name: &'static str, headers: &[(&'static str, &'static str)]| {
            counts(&Method::GET, &[&[("user-agent", name)], headers].concat())
        };
        let page = ("accept", "text/html,application/xhtml+xml");
        for (name, headers, expected) in [
            (FIREFOX, &[page][..], true),
            (FIREFOX, &[("accept", "*/*")], false),
            (
                FIREFOX,
                &[
                    page,
                    ("sec-fetch-mode", "cors"),
                    ("sec-fetch-dest", "empty"),
                ],
                false,
            ),
            (
                FIREFOX,
                &[
                    page,
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                false,
            ),
            (
                FIREFOX,
                &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
                false,
            ),
            // It never says who did it.
            (
                SAFARI,
                &[
                    page,
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
        ] {
            assert_eq!(with(name, headers), expected, "{name} {headers:?}");
        }
        assert!(!counts(&Method::GET, &[page]), "it does not say what it is");
    }

    #[test]
    fn programs_are_no_people() {
        for (name, person) in [
            (CHROME, true),
            (FIREFOX, true),
            (SAFARI, true),
            (
                "Opera/9.80 (J2ME/MIDP; Opera Mini/9.80 (S60; SymbOS) Presto/2.5.25 Version/10.54",
                true,
            ),
            (
                "Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36",
                true,
            ),
            (
                "Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 Mobile/15E148 [FBAN/FBIOS;FBAV/480.0]",
                true,
            ),
            (
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                false,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/140.0.0.0 Safari/537.36",
                false,
            ),
            (
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0) Chrome/140",
                false,
            ),
            (
                "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 Chrome/41 Safari/537.36 BingPreview/1.0b",
                false,
            ),
            ("Mozilla/5.0 zgrab/0.x", false),
            ("Mozilla/5.0 (compatible; CensysInspect/1.1)", false),
            ("Mozilla/5.0 (compatible; UptimeRobot/2.0)", false),
            ("W3C-checklink/5.0", false),
            ("curl/8.14.1", false),
            ("Wget/1.25", false),
            ("python-requests/2.32", false),
            ("Go-http-client/1.1", false),
            ("ELB-HealthChecker/2.0", false),
            ("facebookexternalhit/1.1", false),
            ("", false),
        ] {
            assert_eq!(is_browser(name), person, "{name}");
        }
    }

    #[test]
    fn presence_counts_now_and_then_and_only_of_a_page_in_use() {
        let activity = Activity::default();
        let start = Moment::now();
        let seen = |visible, used, seconds| {
            let now = start.plus(Duration::from_secs(seconds));
            activity
                .beacon(Beacon { visible, used }, now)
                .expect("few enough");
            activity.last().presence.map(|at| at.since(start).as_secs())
        };
        assert_eq!(seen(false, true, 0), None);
        assert_eq!(seen(true, false, 1), None);
        assert_eq!(seen(true, true, 2), Some(2));
        assert_eq!(seen(true, true, 4), Some(2));
        assert_eq!(seen(true, true, 7), Some(7));
        assert_eq!(activity.last().activity(), activity.last().presence);
    }

    #[test]
    fn a_flood_of_beacons_is_turned_away_and_the_next_minute_is_new() {
        let activity = Activity::default();
        let start = Moment::now();
        let beacon = Beacon {
            visible: true,
            used: true,
        };
        let taken = (0..500).filter(|_| activity.beacon(beacon, start).is_ok());
        assert_eq!(taken.count(), 120);
        assert_eq!(activity.beacon(beacon, start.plus(WINDOW)), Ok(()));
    }

    #[test]
    fn who_waits_for_somebody_is_told_of_the_page() {
        let activity = Activity::default();
        let mut watch = activity.watch();
        watch.mark_unchanged();
        let now = Moment::now();
        activity.navigated(&format!("/{}", "ä".repeat(200)), now);
        assert!(watch.has_changed().expect("it is there"));
        let path = watch.borrow().navigation.clone().expect("a page").path;
        assert_eq!(*path, format!("/{}…", "ä".repeat(PATH_MAX - 1)));
    }
}
