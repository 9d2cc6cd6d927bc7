//! What a path asks for. Only what is spelt exactly so is ours: what is spelt in another way is a path of the site, and the
//! door judges it.

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind<'p> {
    /// `/session/<id>` and what is below it: the entry.
    Entry {
        /// What stands where an id should be.
        session: &'p str,
        /// What is asked for behind it, raw: empty, or beginning with `/`.
        rest: &'p str,
    },
    /// `/new`.
    New,
    /// `/_edit/static/<name>`.
    Static {
        /// The name.
        name: &'p str,
    },
    /// `/_edit/enter`.
    Enter,
    /// `/_edit/wake`.
    Wake,
    /// `/_edit/session`.
    State,
    /// Anything else below `/_edit`, which is the door's.
    Door,
    /// A path of the site.
    Site,
}

impl<'p> PathKind<'p> {
    /// Reads a raw path on an edit host.
    pub fn of(path: &'p str) -> Self {
        match path {
            "/new" => return Self::New,
            "/_edit/enter" => return Self::Enter,
            "/_edit/wake" => return Self::Wake,
            "/_edit/session" => return Self::State,
            "/_edit" => return Self::Door,
            _ => {}
        }
        if let Some(below) = path.strip_prefix("/session/") {
            let (session, rest) = match below.find('/') {
                Some(slash) => below.split_at(slash),
                None => (below, ""),
            };
            return Self::Entry { session, rest };
        }
        if let Some(name) = path.strip_prefix("/_edit/static/") {
            return Self::Static { name };
        }
        if path.starts_with("/_edit/") {
            return Self::Door;
        }
        Self::Site
    }

    /// The same on the host of a session, where there is neither an entry nor a link: there those are paths of the site.
    pub fn of_preview(path: &'p str) -> Self {
        match Self::of(path) {
            Self::Entry { .. } | Self::New => Self::Site,
            kind => kind,
        }
    }
}

/// Where an entry leads on its host: `/<rest>?<query>`. None for what a browser would take for another host's address, or
/// that is no address at all.
///
/// Browsers read `//host`, `/\host` and `/<tab>/host` as addresses of another host.
pub fn landing(rest: &str, query: Option<&str>) -> Option<String> {
    let rest = if rest.is_empty() { "/" } else { rest };
    let mut bytes = rest.bytes();
    let begins_well = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    if !begins_well || !plain(rest) || !query.is_none_or(plain) {
        return None;
    }
    Some(match query {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_ours_is_spelt_exactly_so() {
        let entry = |session, rest| PathKind::Entry { session, rest };
        for (path, expected) in [
            ("/session/amelia_a/", entry("amelia_a", "/")),
            ("/session/amelia_a", entry("amelia_a", "")),
            ("/session/amelia_a/about/?", entry("amelia_a", "/about/?")),
            (
                "/session/amelia_a//evil.com",
                entry("amelia_a", "//evil.com"),
            ),
            ("/session/", entry("", "")),
            ("/session", PathKind::Site),
            ("/sessions/amelia_a/", PathKind::Site),
            ("/Session/amelia_a/", PathKind::Site),
            ("/%73ession/amelia_a/", PathKind::Site),
            ("//session/amelia_a/", PathKind::Site),
            ("/new", PathKind::New),
            ("/new/", PathKind::Site),
            (
                "/_edit/static/waiting.1.css",
                PathKind::Static {
                    name: "waiting.1.css",
                },
            ),
            ("/_edit/wake", PathKind::Wake),
            ("/_edit/wake/", PathKind::Door),
            ("/_edit/session", PathKind::State),
            ("/_edit/enter", PathKind::Enter),
            ("/_edit/status", PathKind::Door),
            ("/_edit", PathKind::Door),
            ("/_edit%2fwake", PathKind::Site),
            ("/", PathKind::Site),
        ] {
            assert_eq!(PathKind::of(path), expected, "{path}");
        }
        assert_eq!(PathKind::of_preview("/session/amelia_a/"), PathKind::Site);
        assert_eq!(PathKind::of_preview("/new"), PathKind::Site);
        assert_eq!(PathKind::of_preview("/_edit/wake"), PathKind::Wake);
    }

    #[test]
    fn an_entry_leads_nowhere_but_to_its_own_host() {
        for (rest, query, expected) in [
            ("", None, Some("/")),
            ("/", None, Some("/")),
            ("/about", Some("a=1&raw"), Some("/about?a=1&raw")),
            ("/about", Some(""), Some("/about?")),
            ("/%2e%2e/x", None, Some("/%2e%2e/x")),
            ("//evil.com", None, None),
            ("/\\evil.com", None, None),
            ("/a\\b", None, None),
            ("/\t/evil.com", None, None),
            ("/a b", None, None),
            ("/a\r\nSet-Cookie: x", None, None),
            ("/ä", None, None),
            ("/a", Some("\r\n"), None),
        ] {
            assert_eq!(
                landing(rest, query).as_deref(),
                expected,
                "{rest} {query:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_landing_stays_on_its_host(rest in "[/\\\\a-z.%\t\n :@]{0,12}", query in proptest::option::of("[/\\\\a-z?&=\n]{0,8}")) {
            if let Some(landing) = landing(&rest, query.as_deref()) {
                let base = http::Uri::from_static("https://edit.amelia.example/");
                let uri: http::Uri = landing.parse().expect("a path is an address");
                prop_assert_eq!(uri.host(), None, "{}", base);
                prop_assert!(landing.starts_with('/') && !landing.starts_with("//"));
            }
        }
    }
}
