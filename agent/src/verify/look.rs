//! Asks the dev server for one page or file, and sees whether it is whole.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use contract::SitePath;
use contract::receipt::PageProblem;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::affected::is_browsers;
use super::judgement::Subject;
use crate::site::{percent_encoded, request};

/// How long a page may take. It is asked a second time if it takes longer: some are slow only the first time.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);
/// Redirects that are followed, as browsers do.
const REDIRECTS_MAX: usize = 20;
/// Bytes of a page that are read. What is longer has rendered as far as anybody can tell.
const PAGE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a page in which links are looked for.
const LINKS_MAX_BYTES: usize = 512 * 1024;
/// With this, and nothing after it, Astro ends a page that failed in the middle (5 to 7): so that its overlay can show.
const BROKEN_OFF: &[u8] = br#"<script type="module" src="/@vite/client"></script>"#;

/// Something that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A page, by its path.
    Page(String),
    /// A file that the browser loads by itself, by its path from the site root.
    Module(String),
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The HTTP status of the last answer; 0 if there was none, or not to the end.
    pub(super) status: u16,
    /// What is wrong.
    pub(super) problem: Option<PageProblem>,
    /// Whether the connection broke: the dev server may have died.
    pub(super) went_away: bool,
    /// Whether Astro is going to tell browsers why.
    pub(super) is_explained_later: bool,
    /// Paths of the site to which it links.
    pub(super) links: Vec<String>,
    /// Files of the site that it has browsers load as scripts, each with its query.
    pub(super) scripts: Vec<String>,
}

impl Place {
    /// A page.
    pub(super) fn page(path: impl AsRef<str>) -> Self {
        Self::Page(path.as_ref().to_owned())
    }

    /// Where a subject can be looked at.
    pub(super) fn of(subject: &Subject) -> Option<Self> {
        match subject {
            Subject::Site => None,
            Subject::Page(path) => Some(Self::page(path)),
            // A script of a page is named with its query.
            Subject::File(file) if file.contains('?') => Some(Self::Module(file.clone())),
            Subject::File(file) => {
                let path: SitePath = file.parse().ok()?;
                is_browsers(&path).then(|| Self::Module(file.clone()))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(path) => f.write_str(path),
            Self::Module(file) => write!(f, "file {file}"),
        }
    }
}

/// Looks at a place; a second time if it takes too long.
pub(super) async fn at(address: SocketAddr, place: &Place) -> Look {
    for _ in 0..2 {
        if let Ok(look) = tokio::time::timeout(LOOK_TIME_MAX, follow(address, place)).await {
            return look;
        }
        tracing::info!(%place, "it takes long");
    }
    wrong(0, format!("no answer within {} s", LOOK_TIME_MAX.as_secs()))
}

fn wrong(status: u16, message: String) -> Look {
    let problem = PageProblem {
        message,
        ..PageProblem::default()
    };
    Look {
        status,
        problem: Some(problem),
        ..Look::default()
    }
}

async fn follow(address: SocketAddr, place: &Place) -> Look {
    let (mut path, accept) = match place {
        Place::Page(path) => (path.clone(), "text/html"),
        Place::Module(file) => (format!("/{file}"), "*/*"),
    };
    let mut seen = BTreeSet::new();
    loop {
        let answer = match ask(address, &path, accept).await {
            Ok(answer) => answer,
            Err(why) => {
                let mut look = wrong(0, format!("the site broke off: {why}"));
                look.went_away = true;
                return look;
            }
        };
        let onwards = (300..400)
            .contains(&answer.status)
            .then(|| onwards(&answer.headers, address, &path))
            .flatten();
        match onwards {
            Some(next) if seen.len() == REDIRECTS_MAX || !seen.insert(path.clone()) => {
                return wrong(
                    answer.status,
                    format!("it leads in a circle: {path}, {next}, …"),
                );
            }
            Some(next) => path = next,
            None => return judged(&answer, place),
        }
    }
}

fn judged(answer: &Answer, place: &Place) -> Look {
    let status = answer.status;
    // The page for errors answers as one.
    let is_meant = status == 500
        && matches!(place, Place::Page(path) if path.trim_end_matches('/').ends_with("/500"));
    let failure = if status >= 500 && !is_meant {
        Some(format!("it answers {status}"))
    } else if answer.is_html() && answer.broke_off {
        Some("it breaks off in the middle".to_owned())
    } else {
        None
    };
    if let Some(failure) = failure {
        return Look {
            is_explained_later: true,
            ..wrong(status, failure)
        };
    }
    let (links, scripts) = match place {
        Place::Page(_) if answer.is_html() => {
            let text = String::from_utf8_lossy(&answer.beginning);
            (links(&text), scripts(&text))
        }
        _ => (Vec::new(), Vec::new()),
    };
    Look {
        status,
        links,
        scripts,
        ..Look::default()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    /// The first bytes of the body.
    beginning: Vec<u8>,
    /// Whether it ends as Astro ends a page that failed in the middle.
    broke_off: bool,
}

impl Answer {
    fn is_html(&self) -> bool {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/html"))
    }
}

async fn ask(address: SocketAddr, path: &str, accept: &str) -> Result<Answer, String> {
    let path = percent_encoded(path);
    request::ask(address, &path, accept, async |parts, body| {
        let (beginning, broke_off) = read(body).await?;
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            beginning,
            broke_off,
        })
    })
    .await
}

/// Reads a body to its end, or as far as it goes. Keeps its beginning, and whether it ends in [`BROKEN_OFF`].
async fn read(mut body: Incoming) -> Result<(Vec<u8>, bool), String> {
    let (mut beginning, mut ending, mut length) = (Vec::new(), Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        let room = LINKS_MAX_BYTES.saturating_sub(beginning.len());
        beginning.extend_from_slice(&data[..data.len().min(room)]);
        ending.extend_from_slice(&data[data.len().saturating_sub(BROKEN_OFF.len())..]);
        ending.drain(..ending.len().saturating_sub(BROKEN_OFF.len()));
        if length > PAGE_MAX_BYTES {
            return Ok((beginning, false));
        }
    }
    let broke_off = ending == BROKEN_OFF;
    Ok((beginning, broke_off))
}

/// Where a redirect leads, if to the site itself.
fn onwards(headers: &HeaderMap, address: SocketAddr, from: &str) -> Option<String> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let location = location
        .strip_prefix(&format!("http://{address}"))
        .unwrap_or(location);
    let location = location.split('#').next()?;
    if location.starts_with("//") || location.contains("://") {
        return None;
    }
    if location.starts_with('/') {
        return Some(location.to_owned());
    }
    let folder = from.split('?').next()?.rsplit_once('/')?.0;
    Some(format!("{folder}/{location}"))
}

/// The pages of the site to which a page links. A few that are missed, or are no pages, do no harm: they are only
/// candidates for a look.
fn links(html: &str) -> Vec<String> {
    let mut links = BTreeSet::new();
    for link in attributes(html, "href=") {
        let path = link.split(['?', '#']).next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_page = path.starts_with('/')
            && !path.starts_with("//")
            && !path.starts_with("/_")
            && !path.starts_with("/@")
            && name
                .rsplit_once('.')
                .is_none_or(|(_, ending)| ending == "html");
        if is_page {
            links.insert(path.to_owned());
        }
    }
    links.into_iter().collect()
}

/// The files of the site that a page has browsers load as scripts: what stands in a `<script>` of a component is one, and the
/// page itself is made without it.
fn scripts(html: &str) -> Vec<String> {
    let own = attributes(html, "src=").filter_map(|source| source.strip_prefix("/src/"));
    let mut scripts: Vec<String> = own
        .map(|source| format!("src/{}", source.replace("&#38;", "&").replace("&amp;", "&")))
        .collect();
    scripts.sort();
    scripts.dedup();
    scripts
}

/// The values of an attribute, as they are written.
fn attributes<'a>(html: &'a str, name: &'static str) -> impl Iterator<Item = &'a str> {
    html.match_indices(name).filter_map(move |(at, _)| {
        let rest = &html[at + name.len()..];
        let quote = rest.chars().next().filter(|c| ['"', '\''].contains(c))?;
        Some(rest[1..].split_once(quote)?.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_the_pages_of_the_site() {
        let html = r##"<a href="/about/">A</a> <a class=x href='/journal/one?a=1#top'> <link href="/favicon.svg">
            <a href="https://example.com/x">, <a href="//example.com/y">, <a href="#here">, <script src="/@vite/client">"##;
        assert_eq!(links(html), ["/about/", "/journal/one"]);
    }

    #[test]
    fn scripts_are_the_sites_own() {
        let html = r#"<script type="module" src="/@vite/client"></script><script type="module"
            src="/src/pages/index.astro?astro&#38;type=script&#38;index=0&#38;lang.ts"></script>"#;
        assert_eq!(
            scripts(html),
            ["src/pages/index.astro?astro&type=script&index=0&lang.ts"]
        );
    }

    #[test]
    fn a_redirect_is_followed_within_the_site() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4321));
        for (location, expected) in [
            ("/b/", Some("/b/")),
            ("http://127.0.0.1:4321/b/#x", Some("/b/")),
            ("c", Some("/a/c")),
            ("https://example.com/", None),
            ("//example.com/", None),
        ] {
            let headers = HeaderMap::from_iter([(
                header::LOCATION,
                location.parse().expect("a header value"),
            )]);
            assert_eq!(
                onwards(&headers, address, "/a/b?x=1").as_deref(),
                expected,
                "{location}"
            );
        }
    }
}
