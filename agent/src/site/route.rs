//! Which page a file under `src/pages` makes. Pure: Astro's rules of file names, and nothing of its configuration.
//!
//! ```text
//!   src/pages/about.astro            /about/           src/pages/rss.xml.js       an endpoint
//!   src/pages/journal/[slug].astro   /journal/*/       src/pages/_draft.astro     nothing: `_` hides
//! ```

/// Where Astro looks for pages.
const PAGES: &str = "src/pages/";
/// Files that become pages. The Markdown ones are those that Astro itself knows.
const PAGE_EXTENSIONS: [&str; 9] = [
    "astro", "html", "md", "mdx", "markdown", "mdown", "mdwn", "mkd", "mkdn",
];
/// Files that answer by themselves, with whatever they like.
const ENDPOINT_EXTENSIONS: [&str; 2] = ["js", "ts"];

/// What a file under `src/pages` answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Whether it makes pages, or answers for itself.
    pub(crate) kind: RouteKind,
    /// Its path, segment by segment.
    pub(crate) segments: Vec<Segment>,
}

/// Whether a route makes pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// It makes a page, or many.
    Page,
    /// It is a program that answers: a feed, a form's other end.
    Endpoint,
}

/// One segment of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Literal text and parameters, in turn: `v[major].[minor]`.
    Parts(Vec<Part>),
    /// `[...rest]`: any number of segments, also none.
    Rest,
}

/// A part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Exactly this.
    Text(String),
    /// Anything of at least one character.
    Parameter,
}

/// The route of a file, by its path from the site's root; none if it makes no route.
pub(crate) fn of(path: &str) -> Option<Route> {
    let path = path.strip_prefix(PAGES)?;
    let (stem, extension) = path.rsplit_once('.')?;
    let kind = if PAGE_EXTENSIONS.contains(&extension) {
        RouteKind::Page
    } else if ENDPOINT_EXTENSIONS.contains(&extension) && !is_declaration(stem) {
        RouteKind::Endpoint
    } else {
        return None;
    };
    let mut names: Vec<&str> = stem.split('/').collect();
    if names
        .iter()
        .any(|name| name.is_empty() || name.starts_with('_'))
    {
        return None;
    }
    if names.last() == Some(&"index") {
        names.pop();
    }
    let segments = names.into_iter().map(segment).collect::<Option<_>>()?;
    Some(Route { kind, segments })
}

/// Whether a file without its `.ts` is one that only declares types.
fn is_declaration(stem: &str) -> bool {
    stem.rsplit_once('.').is_some_and(|(_, kind)| kind == "d")
}

/// A segment; none if its brackets do not match: Astro refuses such a file.
fn segment(name: &str) -> Option<Segment> {
    if name.starts_with("[...") && name.ends_with(']') {
        return Some(Segment::Rest);
    }
    let mut parts = Vec::new();
    let mut rest = name;
    while let Some((text, after)) = rest.split_once('[') {
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        rest = after.split_once(']')?.1;
        parts.push(Part::Parameter);
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Some(Segment::Parts(parts))
}

impl Route {
    /// The path of the page, such as `/about/`; none for an endpoint, and for a route with parameters.
    pub(crate) fn page(&self) -> Option<String> {
        if self.kind == RouteKind::Endpoint {
            return None;
        }
        let mut path = "/".to_owned();
        for segment in &self.segments {
            match segment {
                Segment::Parts(parts) => match parts.as_slice() {
                    [Part::Text(text)] => path.push_str(text),
                    _ => return None,
                },
                Segment::Rest => return None,
            }
            path.push('/');
        }
        Some(path)
    }

    /// Whether it answers to a path, with or without a slash at its end. The path is decoded, without query.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        matches_segments(&self.segments, &names)
    }
}

fn matches_segments(segments: &[Segment], names: &[&str]) -> bool {
    match (segments.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((Segment::Rest, after)), _) => {
            (0..=names.len()).any(|taken| matches_segments(after, &names[taken..]))
        }
        (Some((Segment::Parts(parts), after)), Some((name, rest))) => {
            matches_parts(parts, name) && matches_segments(after, rest)
        }
        _ => false,
    }
}

fn matches_parts(parts: &[Part], name: &str) -> bool {
    match parts.split_first() {
        None => name.is_empty(),
        Some((Part::Text(text), after)) => name
            .strip_prefix(text.as_str())
            .is_some_and(|rest| matches_parts(after, rest)),
        Some((Part::Parameter, after)) => name
            .char_indices()
            .map(|(at, character)| at + character.len_utf8())
            .any(|end| matches_parts(after, &name[end..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_makes_the_page_that_astro_makes_of_it() {
        for (path, page) in [
            ("src/pages/index.astro", Some("/")),
            ("src/pages/about.astro", Some("/about/")),
            ("src/pages/about/index.md", Some("/about/")),
            ("src/pages/a/b.mdx", Some("/a/b/")),
            ("src/pages/old.html", Some("/old/")),
            ("src/pages/404.astro", Some("/404/")),
            ("src/pages/v1.2.astro", Some("/v1.2/")),
            ("src/pages/journal/[slug].astro", None),
            ("src/pages/[...rest].astro", None),
            ("src/pages/rss.xml.js", None),
        ] {
            let route = of(path).unwrap_or_else(|| panic!("{path} is a route"));
            assert_eq!(route.page().as_deref(), page, "{path}");
        }
        for path in [
            "src/pages/_draft.astro",
            "src/pages/_parts/card.astro",
            "src/pages/photo.jpg",
            "src/pages/env.d.ts",
            "src/pages/.astro",
            "src/pages/[broken.astro",
            "src/components/about.astro",
            "pages/about.astro",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn a_route_answers_to_its_paths_and_no_others() {
        for (file, path, expected) in [
            ("index.astro", "/", true),
            ("index.astro", "/x", false),
            ("about.astro", "/about", true),
            ("about.astro", "/about/", true),
            ("about.astro", "/about/x", false),
            ("journal/[slug].astro", "/journal/soaking-paper/", true),
            ("journal/[slug].astro", "/journal/", false),
            ("journal/[slug].astro", "/journal/a/b", false),
            ("[lang]-[id].astro", "/de-7", true),
            ("[lang]-[id].astro", "/de-", false),
            ("v[x].astro", "/v2/", true),
            ("v[x].astro", "/w2/", false),
            ("[...rest].astro", "/", true),
            ("[...rest].astro", "/a/b/c", true),
            ("docs/[...rest]/edit.astro", "/docs/edit", true),
            ("docs/[...rest]/edit.astro", "/docs/a/b/edit/", true),
            ("docs/[...rest]/edit.astro", "/docs/a/b", false),
            ("rss.xml.js", "/rss.xml", true),
            ("[straße].astro", "/größe", true),
        ] {
            let route = of(&format!("src/pages/{file}")).expect("a route");
            assert_eq!(route.matches(path), expected, "{file} {path}");
        }
    }

    #[test]
    fn a_program_is_an_endpoint() {
        assert_eq!(
            of("src/pages/rss.xml.js").map(|route| route.kind),
            Some(RouteKind::Endpoint)
        );
    }
}
