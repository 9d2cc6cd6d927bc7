//! Keeps to ourselves where on this machine things are kept. Receipts go to producers and owners, who know the site's own
//! paths; errors and the output of the site's tools name whole ones.

use std::path::Path;

use contract::{PageResult, Receipt};

/// The folders that nobody outside is told of. Pure, once it is made.
#[derive(Debug, Default)]
pub(crate) struct Indoors {
    /// What is replaced, and by what: the longest first, because folders lie in each other.
    words: Vec<(String, Instead)>,
}

/// What stands in a text instead of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    /// Nothing: what is below is a path of the site.
    Nothing,
    /// An ellipsis.
    Ellipsis,
}

impl Indoors {
    /// Of an environment whose site is shown in `sites` (the work tree's, and that of the copy that is built), and that
    /// keeps everything else below `folders`.
    pub(crate) fn of<'s, 'f>(
        sites: impl IntoIterator<Item = &'s Path>,
        folders: impl IntoIterator<Item = &'f Path>,
    ) -> Self {
        let mut words = Vec::new();
        let mut add = |folder: &Path, instead| {
            words.extend(spellings(folder).map(|spelling| (spelling, instead)));
            // Node names what a symlink leads to.
            if let Ok(led_to) = std::fs::canonicalize(folder) {
                words.extend(spellings(&led_to).map(|spelling| (spelling, instead)));
            }
        };
        for site in sites {
            add(site, Instead::Nothing);
        }
        for folder in folders {
            add(folder, Instead::Ellipsis);
        }
        words.sort_by(|one, other| {
            (other.0.len(), &other.0)
                .cmp(&(one.0.len(), &one.0))
                .then((one.1 as u8).cmp(&(other.1 as u8)))
        });
        words.dedup_by(|later, earlier| later.0 == earlier.0);
        Self { words }
    }

    /// Takes the folders out of everything in a receipt that others have worded.
    pub(super) fn tidy(&self, receipt: &mut Receipt) {
        self.tidy_text(&mut receipt.summary);
        if let Some(error) = &mut receipt.error {
            self.tidy_text(&mut error.message);
            self.tidy_text(&mut error.hint);
            for problem in &mut error.details {
                self.tidy_text(&mut problem.message);
            }
        }
        for PageResult { problem, .. } in &mut receipt.pages {
            if let Some(problem) = problem {
                self.tidy_text(&mut problem.message);
                let more = [&mut problem.file, &mut problem.frame];
                for text in more.into_iter().flatten() {
                    self.tidy_text(text);
                }
            }
        }
    }

    fn tidy_text(&self, text: &mut String) {
        // Most texts name no folder.
        if self.words.iter().any(|(word, _)| text.contains(word)) {
            *text = self.tidied(text);
        }
    }

    /// The text without the folders.
    fn tidied(&self, text: &str) -> String {
        let mut tidied = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let inside = tidied.chars().next_back().is_some_and(is_of_a_name);
            let found = self.words.iter().find_map(|(word, instead)| {
                let after = rest.strip_prefix(word.as_str())?;
                (!inside && ends_a_name(after)).then_some((after, *instead))
            });
            match found {
                Some((after, instead)) => {
                    rest = match (instead, after.strip_prefix('/')) {
                        (Instead::Nothing, Some(below)) => below,
                        _ => {
                            tidied.push('…');
                            after
                        }
                    };
                }
                None => {
                    tidied.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        tidied
    }
}

/// How a folder is written: as a path, as an address, and as Vite asks for it. None for the root folder.
fn spellings(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let path = folder.to_string_lossy();
    let path = path.trim_end_matches('/');
    let address = path.replace('%', "%25").replace(' ', "%20");
    let all = [
        format!("file://{path}"),
        format!("file://{address}"),
        format!("/@fs{path}"),
        path.to_owned(),
    ];
    let known = path.is_empty();
    all.into_iter().filter(move |_| !known)
}

/// Whether a name of a file ends before `after`.
fn ends_a_name(after: &str) -> bool {
    let mut characters = after.chars();
    match characters.next() {
        // A full stop, or what begins `.bak`.
        Some('.') => !characters.next().is_some_and(is_of_a_name),
        Some(next) => !is_of_a_name(next),
        None => true,
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '…')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indoors() -> Indoors {
        let at = Path::new;
        Indoors::of(
            [
                at("/srv/state/environments/4f/workspace/tree"),
                at("/srv/state/environments/4f/workspace/staging/build/tree"),
            ],
            [
                at("/srv/state/environments/4f/workspace"),
                at("/srv/state/store"),
                at("/srv/state/"),
                at("/with room"),
                at("/"),
            ],
        )
    }

    #[test]
    fn no_folder_of_this_machine_is_told() {
        let indoors = indoors();
        for (told, tidied) in [
            (
                "could not write /srv/state/environments/4f/workspace/tree/src/a.md: denied",
                "could not write src/a.md: denied",
            ),
            (
                "at file:///srv/state/environments/4f/workspace/tree/astro.config.mjs:3:1",
                "at astro.config.mjs:3:1",
            ),
            (
                "[vite] /@fs/srv/state/environments/4f/workspace/tree/src/x.ts",
                "[vite] src/x.ts",
            ),
            (
                "in /srv/state/environments/4f/workspace/staging/build/tree/src/a.md / end",
                "in src/a.md / end",
            ),
            (
                "could not make /srv/state/environments/4f/workspace/staging/build.",
                "could not make …/staging/build.",
            ),
            ("(/srv/state/environments/4f/workspace/tree)", "(…)"),
            (
                "Error\n    at /srv/state/store/ab12/node_modules/astro/x.js:1",
                "Error\n    at …/ab12/node_modules/astro/x.js:1",
            ),
            (
                "could not open /srv/state/edit.sqlite",
                "could not open …/edit.sqlite",
            ),
            ("/srv/state.", "…."),
            ("'/srv/state','/srv/state'", "'…','…'"),
            ("file:///with%20room/a and /with room/b", "…/a and …/b"),
            // What only looks like it, and the site's own.
            ("/srv/states/x", "/srv/states/x"),
            ("/srv/state.bak/x", "/srv/state.bak/x"),
            ("/mnt/srv/state/x", "/mnt/srv/state/x"),
            (
                "https://example.com/srv/state/x",
                "https://example.com/srv/state/x",
            ),
            (
                "src/pages/index.astro:3 ist „schön“",
                "src/pages/index.astro:3 ist „schön“",
            ),
            ("", ""),
        ] {
            assert_eq!(indoors.tidied(told), tidied, "{told}");
            let mut text = told.to_owned();
            indoors.tidy_text(&mut text);
            assert_eq!(text, tidied, "{told}");
        }
        let nothing = Indoors::default();
        assert_eq!(nothing.tidied("/srv/state/x"), "/srv/state/x");
    }

    #[test]
    fn everything_in_a_receipt_that_others_have_worded_is_tidied() {
        let place = "/srv/state/environments/4f/workspace/tree/src/a.md";
        let mut receipt: Receipt = serde_json::from_value(serde_json::json!({
            "sessionId": "amelia_1",
            "instructionId": "i-1",
            "clientId": "amelia",
            "status": "failed",
            "attempts": 1,
            "branch": "edit/local",
            "filesChanged": ["src/a.md"],
            "summary": place,
            "pages": [{
                "path": "/a/",
                "status": 500,
                "problem": { "message": place, "file": place, "frame": place },
            }],
            "error": {
                "code": "internal",
                "message": place,
                "hint": place,
                "details": [{ "path": "$.action", "message": place }],
            },
            "timings": {},
            "previewUrl": "http://127.0.0.1:4700/",
            "acceptedAt": "2026-09-21T14:13:20.000Z",
            "updatedAt": "2026-09-21T14:13:20.000Z",
        }))
        .expect("a receipt");
        indoors().tidy(&mut receipt);
        let text = serde_json::to_string(&receipt).expect("JSON");
        assert!(!text.contains("/srv"), "{text}");
        assert_eq!(text.matches("src/a.md").count(), 8, "{text}");
    }

    #[test]
    fn what_a_symlink_leads_to_is_not_told_either() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().join("real");
        std::fs::create_dir(&real).expect("made");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let indoors = Indoors::of([], [link.as_path()]);
        let real = std::fs::canonicalize(&real).expect("there");
        assert_eq!(indoors.tidied(&format!("{}/x", real.display())), "…/x");
        assert_eq!(indoors.tidied(&format!("{}/x", link.display())), "…/x");
    }
}
