//! Which pages and files a change affects. Pure: the paths that changed, and what people have looked at.

use std::collections::{BTreeMap, BTreeSet};

use contract::SitePath;
use contract::receipt::PageProblem;

use super::look::Place;
use super::visits::Visits;
use crate::site::Addresses;
use crate::site::route::{self, Part, Route, RouteKind, Segment};

/// Pages that people looked at last and that are looked at for everything that any page may use.
pub(super) const LAST_VISITED: usize = 5;
/// Pages that a change makes by itself and that are remembered as if somebody had looked at them. A few, or a large change
/// would make all others forgotten.
const OWN_PAGES: usize = 2;
/// Pages of one file that makes many.
const PAGES_OF_A_ROUTE: usize = 3;
/// Files that the browser loads by themselves, so that a mistake in them need not show in any page.
const MODULES: [&str; 10] = [
    "css", "scss", "sass", "less", "styl", "pcss", "tsx", "jsx", "vue", "svelte",
];
/// Files that the browser loads if something of the browser's uses them.
const SCRIPTS: [&str; 4] = ["ts", "js", "mts", "mjs"];
/// Files that can be entries of a content collection.
const ENTRIES: [&str; 10] = [
    "md", "mdx", "markdown", "mdoc", "json", "jsonc", "yaml", "yml", "toml", "csv",
];

/// What a change affects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Affected {
    /// The files of the site whose pages are looked at, and whether they are there now.
    pub(super) touched: BTreeMap<SitePath, bool>,
    /// Those of them that are written now: the dev server is going to take note of them.
    pub(super) written_now: BTreeSet<SitePath>,
    /// Whether the site was started anew over it: then nothing is noted, it is all read.
    pub(crate) restarts: bool,
    /// Whether any page may use the files, whatever the dev server has loaded.
    pub(super) everywhere: bool,
    /// Those of the files that Astro keeps in its content store.
    entries: BTreeSet<SitePath>,
}

impl Affected {
    /// What these files affect, all of which are written now. `store` is the text of Astro's content store, if there is one: what is kept there, and in
    /// the same folders, is stored a while after it changed.
    pub(crate) fn of(
        touched: BTreeMap<SitePath, bool>,
        restarts: bool,
        store: impl FnOnce() -> Option<String>,
    ) -> Self {
        let mut candidates = touched
            .keys()
            .filter(|file| {
                ENTRIES.contains(&file.extension().as_str())
                    && route::of(file.as_str()).is_none()
                    && !is_public(file)
            })
            .peekable();
        let entries = match candidates.peek().and_then(|_| store()) {
            Some(store) => candidates
                .filter(|file| is_entry(file, &store))
                .cloned()
                .collect(),
            None => BTreeSet::new(),
        };
        Self {
            written_now: touched.keys().cloned().collect(),
            touched,
            restarts,
            everywhere: false,
            entries,
        }
    }

    /// No file: the site was started anew.
    pub(crate) fn restart() -> Self {
        Self {
            restarts: true,
            ..Self::default()
        }
    }

    /// The files of these that a browser loads by itself, as the dev server says.
    pub(super) fn modules<'a>(
        &self,
        browsers: impl IntoIterator<Item = &'a String>,
    ) -> impl Iterator<Item = Place> {
        browsers
            .into_iter()
            .filter(|file| {
                let path = file.parse::<SitePath>();
                path.is_ok_and(|path| self.touched.get(&path) == Some(&true) && is_browsers(&path))
            })
            .map(|file| Place::Module(file.clone()))
    }

    /// Whether a file, or the file that a script stands in, is not there any more.
    pub(super) fn is_gone(&self, file: &str) -> bool {
        let file = file.split('?').next().and_then(|file| file.parse().ok());
        file.is_some_and(|file: SitePath| self.touched.get(&file) == Some(&false))
    }

    /// Whether a script of a page (a path with a query) stands in one of the files.
    pub(super) fn has_script(&self, script: &str) -> bool {
        script.split('?').next().is_some_and(|file| self.has(file))
    }

    /// The same, where only these files are written now.
    pub(crate) fn writing(mut self, written: impl IntoIterator<Item = SitePath>) -> Self {
        self.written_now = written.into_iter().collect();
        self
    }

    /// What publishing affects: the files in which the published site becomes another one, of which only those of `self` are
    /// written for it now. Nobody is told whether the others are used, so they are taken to be.
    pub(crate) fn publishing(
        self,
        touched: impl IntoIterator<Item = SitePath>,
        store: impl FnOnce() -> Option<String>,
    ) -> Self {
        let files = touched.into_iter().map(|file| (file, true)).collect();
        let mut affected = Self::of(files, self.restarts, store);
        affected.entries.extend(self.entries);
        Self {
            written_now: self.written_now,
            everywhere: true,
            ..affected
        }
    }

    /// The pages that the files are themselves, at most [`OWN_PAGES`].
    pub(super) fn own_pages(&self, addresses: &Addresses) -> Vec<String> {
        let present = self.touched.iter().filter(|(_, present)| **present);
        present
            .filter_map(|(file, _)| address(&route::of(file.as_str())?, addresses))
            .take(OWN_PAGES)
            .collect()
    }

    /// Whether a file is among those that changed.
    pub(super) fn has(&self, file: &str) -> bool {
        file.parse::<SitePath>()
            .is_ok_and(|file| self.touched.contains_key(&file))
    }

    /// Whether a file is among those that changed, and Astro keeps it in its content store.
    pub(super) fn has_entry(&self, file: &str) -> bool {
        file.parse::<SitePath>()
            .is_ok_and(|file| self.entries.contains(&file))
    }

    /// Whether Astro is going to store something of it: what is wrong with its schema is not stored.
    pub(super) fn is_stored(&self, wrong: &BTreeMap<String, PageProblem>) -> bool {
        self.entries
            .iter()
            .filter(|entry| self.written_now.contains(*entry))
            .any(|entry| !wrong.contains_key(entry.as_str()))
    }

    /// What to look at, the most telling first, at most `max`: pages of the files themselves, the files that a browser
    /// loads by themselves, and for what any page may use, the pages that people looked at last and the front page: but only
    /// if the dev server says that anything it has shown is made of them (`used`).
    pub(super) fn places(
        &self,
        visits: &Visits,
        addresses: &Addresses,
        max: usize,
        used: bool,
    ) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let mut anywhere = self.restarts;
        for (file, present) in &self.touched {
            if is_public(file) {
                continue;
            }
            match route::of(file.as_str()) {
                Some(route) => match address(&route, addresses) {
                    Some(page) => places.push(Place::page(&page)),
                    None => places.extend(
                        visits
                            .known()
                            .filter(|page| route.matches(&addresses.path_of(page)))
                            .take(PAGES_OF_A_ROUTE)
                            .map(Place::page),
                    ),
                },
                None => {
                    anywhere |= used || self.entries.contains(file);
                    if *present && is_module(file) {
                        places.push(Place::Module(file.as_str().to_owned()));
                    }
                    if self.entries.contains(file) {
                        let of_entry = visits.known().filter(|page| is_page_of(page, file));
                        places.extend(of_entry.take(PAGES_OF_A_ROUTE).map(Place::page));
                    }
                }
            }
        }
        // A page that nobody knows how to reach is found from the front page.
        let hidden = places.is_empty()
            && self
                .touched
                .keys()
                .any(|file| route::of(file.as_str()).is_some());
        if anywhere || hidden {
            places.extend(visits.last(LAST_VISITED).map(Place::page));
            places.push(Place::page(addresses.of("/")));
        }
        let mut seen = BTreeSet::new();
        places.retain(|place| seen.insert(place.clone()));
        places.truncate(max);
        places
    }
}

/// Whether a browser loads the file by itself, whoever uses it.
fn is_module(file: &SitePath) -> bool {
    MODULES.contains(&file.extension().as_str())
}

/// Whether a browser can load the file by itself.
pub(super) fn is_browsers(file: &SitePath) -> bool {
    is_module(file) || SCRIPTS.contains(&file.extension().as_str())
}

/// Files that are served as they are: no page is made of them.
fn is_public(file: &SitePath) -> bool {
    file.components().next() == Some("public")
}

/// The path at which a route without parameters answers.
fn address(route: &Route, addresses: &Addresses) -> Option<String> {
    if route.kind == RouteKind::Page {
        return Some(addresses.of(&route.page()?));
    }
    let mut path = String::new();
    for segment in &route.segments {
        match segment {
            Segment::Parts(parts) => match parts.as_slice() {
                [Part::Text(text)] => {
                    path.push('/');
                    path.push_str(text);
                }
                _ => return None,
            },
            Segment::Rest => return None,
        }
    }
    Some(addresses.below_base(&path))
}

/// Whether the store has the file, or others of the same folder or of one above it, below the site's own root.
fn is_entry(file: &SitePath, store: &str) -> bool {
    let text = file.as_str();
    let folders = text.rmatch_indices('/').map(|(at, _)| &text[..=at]);
    store.contains(&format!("\"{text}\""))
        || folders
            .filter(|folder| folder.matches('/').count() > 1)
            .any(|folder| store.contains(&format!("\"{folder}")))
}

/// Whether a page is likely to be made of an entry: it is named like it.
fn is_page_of(page: &str, entry: &SitePath) -> bool {
    let name = entry.file_name();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let last = page.trim_end_matches('/').rsplit('/').next();
    last.is_some_and(|last| last.eq_ignore_ascii_case(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affected(files: &[&str], store: &str) -> Affected {
        let files = files
            .iter()
            .map(|file| {
                let (file, present) = match file.strip_prefix('-') {
                    Some(file) => (file, false),
                    None => (*file, true),
                };
                (file.parse().expect("a path"), present)
            })
            .collect();
        Affected::of(files, false, || Some(store.to_owned()))
    }

    fn places(files: &[&str], store: &str) -> Vec<String> {
        let visits = Visits::default();
        visits.learn(&[
            "/journal/how-i-grade/".to_owned(),
            "/stamps/queen/".to_owned(),
        ]);
        visits.visited("/contact/");
        visits.visited("/about/");
        affected(files, store)
            .places(&visits, &Addresses::default(), 8, true)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_page_affects_itself_and_what_any_page_may_use_affects_what_people_looked_at() {
        let last = ["/about/", "/contact/", "/"];
        for (files, expected) in [
            (&["src/pages/about.astro"][..], &["/about/"][..]),
            (&["src/pages/index.astro"], &["/"]),
            (&["-src/pages/old.astro"], &["/old/"]),
            (&["src/pages/rss.xml.ts"], &["/rss.xml"]),
            (
                &["src/pages/journal/[slug].astro"],
                &["/journal/how-i-grade/"],
            ),
            (&["src/layouts/Base.astro"], &last),
            (&["public/logo.svg"], &[]),
            (&["src/content/journal/other.md"], &last),
        ] {
            assert_eq!(places(files, ""), expected, "{files:?}");
        }
        assert_eq!(
            places(&["src/styles/global.css"], ""),
            ["file src/styles/global.css", "/about/", "/contact/", "/"]
        );
        assert_eq!(
            places(&["-src/styles/global.css"], ""),
            ["/about/", "/contact/", "/"]
        );
    }

    #[test]
    fn a_page_that_nobody_knows_how_to_reach_is_looked_for_from_the_front_page() {
        assert_eq!(
            places(&["src/pages/shop/[id].astro"], ""),
            ["/about/", "/contact/", "/"]
        );
    }

    #[test]
    fn an_entry_is_what_the_store_has_or_has_the_like_of() {
        let store = r#"["src/content/journal/how-i-grade.md"]"#;
        for (file, expected) in [
            ("src/content/journal/how-i-grade.md", true),
            ("src/content/journal/new.md", true),
            ("src/content/authors/new.md", true),
            ("README.md", false),
            ("src/data.json", false),
            ("src/pages/notes.md", false),
        ] {
            let affected = affected(&[file], store);
            assert_eq!(affected.is_stored(&BTreeMap::new()), expected, "{file}");
        }
        assert_eq!(
            places(&["src/content/journal/how-i-grade.md"], store)[0],
            "/journal/how-i-grade/"
        );
    }
}
