//! A path inside a site, as an instruction may name it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::id::IdError;

/// A relative, normalised path of a file inside the site root, such as `src/pages/index.astro`.
///
/// Valid by construction: UTF-8 in Unicode NFC, `/` between components, no empty, `.` or `..` component, no control or
/// invisible character, no backslash, nothing that any file system could take for `.git`, and nothing below
/// `node_modules`. Whether policy lets an instruction touch the file is a later question; whether a symlink stands in
/// the way is asked of the kernel at the moment of writing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = PATTERN, "minLength" = 1, "maxLength" = PATH_MAX_BYTES))]
pub struct SitePath(String);

/// Bytes of a whole path. Linux takes 4,096; this leaves room for the workspace in front of it.
pub const PATH_MAX_BYTES: usize = 1024;
/// What a regular expression can say of a path, for the schema: all but Unicode normalisation, invisible characters and
/// the length of components.
const PATTERN: &str = concat!(
    // Nothing of git's own, and nothing of node_modules.
    r"^(?!(.*/)?(\.[gG][iI][tT]|[gG][iI][tT]~))(?!(.*/)?[nN][oO][dD][eE]_[mM][oO][dD][uU][lL][eE][sS](/|$))",
    // No component starts with a space; each ends in something other than a space or a dot.
    r"(?!(.*/)? )[^/\\:\x00-\x1f\x7f-\x9f]*[^/\\:\x00-\x1f\x7f-\x9f. ]",
    r"(/[^/\\:\x00-\x1f\x7f-\x9f]*[^/\\:\x00-\x1f\x7f-\x9f. ])*$",
);
/// Bytes of one component: what every file system takes.
pub const COMPONENT_MAX_BYTES: usize = 255;

impl SitePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The components, from the site root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The text after the last dot of the file name, in lower case; empty if there is none.
    pub fn extension(&self) -> String {
        self.file_name()
            .rsplit_once('.')
            .map_or_else(String::new, |(_, ending)| ending.to_ascii_lowercase())
    }
}

fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("a path must not be empty".to_owned());
    }
    if text.len() > PATH_MAX_BYTES {
        return Err(format!("a path has at most {PATH_MAX_BYTES} bytes"));
    }
    if text.starts_with('/') {
        return Err("a path is relative to the site root and does not start with /".to_owned());
    }
    if text.contains('\\') {
        return Err("a path has / between its components, never a backslash".to_owned());
    }
    if text.chars().any(|c| c.is_control() || is_invisible(c)) {
        return Err("a path has no control or invisible characters".to_owned());
    }
    if !is_nfc(text) {
        return Err("a path is in Unicode normalisation form NFC".to_owned());
    }
    text.split('/').try_for_each(check_component)
}

fn check_component(component: &str) -> Result<(), String> {
    match component {
        "" => return Err("a path has no empty component (no // and no / at the end)".to_owned()),
        "." | ".." => return Err("a path has no . or .. component".to_owned()),
        _ => {}
    }
    if component.len() > COMPONENT_MAX_BYTES {
        return Err(format!(
            "a component of a path has at most {COMPONENT_MAX_BYTES} bytes"
        ));
    }
    if component.ends_with(['.', ' ']) || component.starts_with(' ') {
        return Err(
            "a component of a path does not end in a dot or a space, nor start with a space"
                .to_owned(),
        );
    }
    if component.contains(':') {
        return Err("a path has no colon (it names a stream on some file systems)".to_owned());
    }
    // Compatibility folding catches full-width twins; `git~1` is the short name of `.git` on FAT and NTFS.
    let folded: String = component.nfkc().flat_map(char::to_lowercase).collect();
    if folded.starts_with(".git") || folded.starts_with("git~") {
        return Err(
            "files of git itself (.git, .gitattributes, .gitmodules, …) cannot be edited"
                .to_owned(),
        );
    }
    if folded == "node_modules" {
        return Err(
            "files below node_modules come from the lock file and cannot be edited".to_owned(),
        );
    }
    Ok(())
}

/// Characters that show nothing, and so could make two different paths look the same.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

impl FromStr for SitePath {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        check(text).map_err(IdError)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SitePath {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        check(&text).map_err(IdError)?;
        Ok(Self(text))
    }
}

impl From<SitePath> for String {
    fn from(path: SitePath) -> String {
        path.0
    }
}

impl fmt::Display for SitePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SitePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SitePath({:?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_are_taken() {
        for text in [
            "src/pages/index.astro",
            "public/images/Café.jpg",
            "a",
            "src/pages/[...slug].astro",
            "src/.hidden",
            "x/..y",
        ] {
            assert!(text.parse::<SitePath>().is_ok(), "{text}");
        }
    }

    #[test]
    fn paths_that_could_mean_something_else_are_refused() {
        for text in [
            "",
            "/etc/x",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            ".git/config",
            ".GIT/config",
            "a/.git/x",
            "git~1/x",
            ".gitmodules",
            "a\\b",
            "a\0b",
            "a\nb",
            ".g\u{200c}it/config",
            "\u{ff0e}git/config",
            "x:y",
            "a.",
            "a ",
            "node_modules/x",
            "src/Node_Modules/x",
            "cafe\u{301}.md",
            "CON:",
        ] {
            assert!(text.parse::<SitePath>().is_err(), "{text:?}");
        }
    }
}
