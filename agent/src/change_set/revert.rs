//! Two changes of one file brought together: how one instruction is taken back while later ones stay.
//!
//! Taking back is merging: from what the instruction made of the file (the base), one side leads to what it is now, and
//! the other to what it was before. Lines are compared first. Where they overlap and the file has front matter, that is
//! compared by key, because its keys stand line by line.

use contract::SitePath;

use super::text::is_binary;
use super::{Version, front_matter, merge};

/// Both changes are about the same place: a person has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overlap;

/// What becomes of the file that is `now` when the change that made `after` of `before` is taken back. `path` is where the
/// file is, for the kind that it is of; nothing stands for no file.
pub(crate) fn reverted(
    path: &str,
    before: Option<&Version>,
    after: Option<&Version>,
    now: Option<&Version>,
) -> Result<Option<Version>, Overlap> {
    merged(path, after, now, before)
}

/// What `present` and `asked` each changed since `base`, together.
pub(crate) fn merged(
    path: &str,
    base: Option<&Version>,
    present: Option<&Version>,
    asked: Option<&Version>,
) -> Result<Option<Version>, Overlap> {
    if present == base {
        return Ok(asked.cloned());
    }
    if base == asked || present == asked {
        return Ok(present.cloned());
    }
    let (Some(base), Some(present), Some(asked)) = (base, present, asked) else {
        return Err(Overlap);
    };
    Ok(Some(Version {
        content: merged_content(path, &base.content, &present.content, &asked.content)?,
        executable: if present.executable == base.executable {
            asked.executable
        } else {
            present.executable
        },
    }))
}

fn merged_content(
    path: &str,
    base: &[u8],
    present: &[u8],
    asked: &[u8],
) -> Result<Vec<u8>, Overlap> {
    if present == base {
        return Ok(asked.to_vec());
    }
    if base == asked || present == asked {
        return Ok(present.to_vec());
    }
    if [base, present, asked].into_iter().any(is_binary) {
        return Err(Overlap);
    }
    let path: Option<SitePath> = path.parse().ok();
    let is_readable = |content: &[u8]| {
        path.as_ref()
            .is_some_and(|path| front_matter::merge::is_readable(path, content))
    };
    match merge::three_way(base, present, asked) {
        // Lines that come together can still say a key twice.
        Ok(lines) if is_readable(&lines) || !is_readable(present) => Ok(lines),
        _ => path
            .and_then(|path| front_matter::merge::three_way(&path, base, present, asked))
            .ok_or(Overlap),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version {
            content: text.into(),
            executable: false,
        }
    }

    /// `-` stands for no file.
    fn undo(path: &str, before: &str, after: &str, now: &str) -> Option<String> {
        let file = |text: &str| (text != "-").then(|| version(text));
        let (before, after, now) = (file(before), file(after), file(now));
        let result = reverted(path, before.as_ref(), after.as_ref(), now.as_ref()).ok()?;
        Some(result.map_or("-".to_owned(), |version| {
            String::from_utf8(version.content).expect("text")
        }))
    }

    #[test]
    fn one_change_goes_and_later_ones_stay() {
        let cases = [
            // Nothing came after it.
            ("a.astro", "a\n", "b\n", "b\n", Some("a\n")),
            ("a.astro", "-", "b\n", "b\n", Some("-")),
            ("a.astro", "a\n", "-", "-", Some("a\n")),
            // Something else came after it.
            (
                "a.astro",
                "1\n2\n3\n",
                "x\n2\n3\n",
                "x\n2\ny\n",
                Some("1\n2\ny\n"),
            ),
            ("a.astro", "1\n2\n3\n", "x\n2\n3\n", "0\nx\n2\n3\n", None),
            // The same place.
            ("a.astro", "1\n", "2\n", "3\n", None),
            ("a.astro", "-", "2\n", "3\n", None),
            ("a.astro", "1\n", "2\n", "-", None),
            ("a.astro", "1\n", "-", "2\n", None),
            // Somebody took it back already.
            ("a.astro", "1\n", "2\n", "1\n", Some("1\n")),
            ("a.astro", "1\n", "-", "1\n", Some("1\n")),
            ("a.png", "1\0\n2\n3\n", "x\0\n2\n3\n", "x\0\n2\ny\n", None),
        ];
        for (path, before, after, now, expected) in cases {
            assert_eq!(
                undo(path, before, after, now).as_deref(),
                expected,
                "{path}: {before:?} {after:?} {now:?}"
            );
        }
    }

    #[test]
    fn keys_of_a_front_matter_are_taken_back_one_by_one() {
        let page = |yaml: &str| format!("---\n{yaml}\n---\nBody\n");
        let cases = [
            ("a: 1\nb: 1", "a: 2\nb: 1", "a: 2\nb: 2", Some("a: 1\nb: 2")),
            ("b: 1", "b: 1\na: 2", "b: 2\na: 2", Some("b: 2")),
            ("b: 1\na: 1", "b: 1", "b: 2", Some("b: 2\na: 1")),
            ("a: 1\nb: 1", "a: 2\nb: 1", "a: 3\nb: 2", None),
            // By lines the key would be there twice.
            (
                "a: 1\nx: 1\ny: 1\nz: 1",
                "x: 1\ny: 1\nz: 1",
                "x: 1\ny: 1\nz: 1\na: 5",
                None,
            ),
        ];
        for (before, after, now, expected) in cases {
            assert_eq!(
                undo("src/a.md", &page(before), &page(after), &page(now)),
                expected.map(page),
                "{before:?} {after:?} {now:?}"
            );
        }
        let in_code = undo(
            "src/a.astro",
            &page("a: 1\nb: 1"),
            &page("a: 2\nb: 1"),
            &page("a: 2\nb: 2"),
        );
        assert_eq!(in_code, None);
    }

    #[test]
    fn the_mode_is_taken_back_by_itself() {
        let file = |executable| Version {
            executable,
            ..version("#!/bin/sh\n")
        };
        let edited = Version {
            content: b"#!/bin/sh\n\nls\n".to_vec(),
            ..file(true)
        };
        let result = reverted("a.sh", Some(&file(false)), Some(&file(true)), Some(&edited));
        let expected = Version {
            executable: false,
            ..edited.clone()
        };
        assert_eq!(result, Ok(Some(expected)));
    }

    fn lines() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("a\n"),
            Just("b\n"),
            Just("c\r\n"),
            Just("\n"),
            Just("d")
        ];
        proptest::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
    }

    fn keys() -> impl Strategy<Value = std::collections::BTreeMap<char, u8>> {
        proptest::collection::btree_map(prop::char::range('a', 'f'), 0..4_u8, 0..6)
    }

    fn page(keys: &std::collections::BTreeMap<char, u8>) -> String {
        let yaml: String = keys
            .iter()
            .map(|(key, n)| format!("{key}: {n}\n"))
            .collect();
        format!("---\n{yaml}---\nBody\n")
    }

    proptest! {
        #[test]
        fn what_nothing_came_after_is_taken_back_to_the_byte(before in lines(), after in lines()) {
            prop_assert_eq!(undo("a.astro", &before, &after, &after), Some(before));
        }

        #[test]
        fn a_line_far_from_it_stays(before in lines(), after in lines(), later in "[e-z]{1,8}") {
            // Both are changed between fences of lines that stay.
            let file = |first: &str, last: &str| format!("{first}\nFENCE\nFENCE\n{last}\n");
            let now = file(&after, &later);
            let expected = file(&before, &later);
            prop_assert_eq!(undo("a.astro", &file(&before, "-"), &file(&after, "-"), &now), Some(expected));
        }

        #[test]
        fn another_key_stays(before in keys(), after in keys(), later in 0..4_u8) {
            let mut now = after.clone();
            now.insert('z', later);
            let result = undo("a.md", &page(&before), &page(&after), &page(&now)).expect("another key");
            // The order of keys that come back is not what matters.
            let mut found: Vec<&str> = result.lines().collect();
            found.sort_unstable();
            let mut expected = before;
            expected.insert('z', later);
            let expected = page(&expected);
            let mut expected: Vec<&str> = expected.lines().collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
