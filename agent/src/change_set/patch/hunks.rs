//! Applying the hunks of one file, exactly or not at all.

use std::collections::HashMap;

use contract::{ErrorCode, SitePath};

use super::super::fault::{Fault, quote_bytes};
use super::{AT, Hunk, Side};

/// Lines that are looked at for hunks that do not stand where they say, over all hunks of a file.
const SEARCH_MAX_LINES: usize = 20_000_000;

/// `content` with all hunks applied.
pub(super) fn apply(path: &SitePath, content: &[u8], hunks: &[Hunk<'_>]) -> Result<Vec<u8>, Fault> {
    let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let places = match stated_places(&lines, hunks) {
        Ok(places) => places,
        Err(mismatch) => unique_places(&lines, hunks)
            .map_err(|trouble| trouble.into_fault(path, &lines, hunks, mismatch))?,
    };
    let mut changed = Vec::with_capacity(content.len());
    let mut copied = 0;
    for (hunk, place) in hunks.iter().zip(places) {
        changed.extend(lines[copied..place].iter().flat_map(|line| line.iter()));
        for line in hunk.lines.iter().filter(|line| line.side != Side::Old) {
            changed.extend(line.text.as_bytes());
            changed.extend(line.terminated.then_some(b'\n'));
        }
        copied = place + hunk.old_lines().count();
    }
    changed.extend(lines[copied..].iter().flat_map(|line| line.iter()));
    if let Some(index) = newline_lost(&lines, hunks, copied) {
        let what = format!("{} would join two lines.", name(hunks, index));
        return Err(Fault::of(path, AT, ErrorCode::PatchFailed, what));
    }
    Ok(changed)
}

impl<'d> Hunk<'d> {
    /// The lines that must be there, as bytes without the newline and whether they have one.
    fn old_lines(&self) -> impl Iterator<Item = (&'d [u8], bool)> {
        self.lines
            .iter()
            .filter(|line| line.side != Side::New)
            .map(|line| (line.text.as_bytes(), line.terminated))
    }
}

/// Whether a line of the file is this line of a hunk.
fn same(in_file: &[u8], (text, terminated): (&[u8], bool)) -> bool {
    let (body, has_newline) = split_newline(in_file);
    body == text && has_newline == terminated
}

fn split_newline(line: &[u8]) -> (&[u8], bool) {
    line.strip_suffix(b"\n")
        .map_or((line, false), |body| (body, true))
}

/// The index of the last hunk, if its last line lacks a newline although lines of the file follow.
fn newline_lost(lines: &[&[u8]], hunks: &[Hunk<'_>], copied: usize) -> Option<usize> {
    let last = hunks
        .last()?
        .lines
        .iter()
        .rfind(|line| line.side != Side::Old)?;
    (!last.terminated && copied < lines.len()).then_some(hunks.len() - 1)
}

/// Where a hunk did not match: its index, and the index of the line in the file with the text it should have.
#[derive(Debug)]
struct Mismatch<'d> {
    hunk: usize,
    line: usize,
    expected: Option<(&'d [u8], bool)>,
}

/// Where every hunk says it is, if all match there.
fn stated_places<'d>(lines: &[&[u8]], hunks: &[Hunk<'d>]) -> Result<Vec<usize>, Mismatch<'d>> {
    let mut free_from = 0;
    let mut places = Vec::with_capacity(hunks.len());
    for (index, hunk) in hunks.iter().enumerate() {
        let old = hunk.old_lines().count();
        let place = if old == 0 {
            0
        } else {
            hunk.start.saturating_sub(1)
        };
        let nothing_to_match = old == 0 && !lines.is_empty();
        let mismatch = |line, expected| Mismatch {
            hunk: index,
            line,
            expected,
        };
        if place < free_from || nothing_to_match {
            return Err(mismatch(place, None));
        }
        for (offset, expected) in hunk.old_lines().enumerate() {
            let line = place + offset;
            if !lines
                .get(line)
                .is_some_and(|in_file| same(in_file, expected))
            {
                return Err(mismatch(line, Some(expected)));
            }
        }
        places.push(place);
        free_from = place + old;
    }
    Ok(places)
}

/// Why hunks that do not stand where they say cannot be placed elsewhere.
#[derive(Debug)]
enum Trouble {
    /// This hunk's old lines occur this many times.
    Occurs(usize, usize),
    /// This hunk would come before the one before it.
    OutOfOrder(usize),
    /// This hunk has nothing to be found by.
    NoOldLines(usize),
    /// There is too much to look at.
    TooMuch,
}

/// The one place at which each hunk's old lines occur.
fn unique_places(lines: &[&[u8]], hunks: &[Hunk<'_>]) -> Result<Vec<usize>, Trouble> {
    if let Some(index) = hunks
        .iter()
        .position(|hunk| hunk.old_lines().next().is_none())
    {
        return Err(Trouble::NoOldLines(index));
    }
    if lines.len().saturating_mul(hunks.len()) > SEARCH_MAX_LINES {
        return Err(Trouble::TooMuch);
    }
    // Lines as numbers, so that comparing two costs the same however long they are.
    let mut numbers: HashMap<(&[u8], bool), usize> = HashMap::new();
    let text: Vec<usize> = lines
        .iter()
        .map(|line| {
            let next = numbers.len();
            *numbers.entry(split_newline(line)).or_insert(next)
        })
        .collect();
    let mut free_from = 0;
    let mut places = Vec::with_capacity(hunks.len());
    for (index, hunk) in hunks.iter().enumerate() {
        // A line that is nowhere in the file has a number that is nowhere in the text.
        let pattern: Vec<usize> = hunk
            .old_lines()
            .map(|line| numbers.get(&line).copied().unwrap_or(usize::MAX))
            .collect();
        let (count, first) = occurrences(&text, &pattern);
        match first {
            Some(place) if count == 1 && place >= free_from => {
                places.push(place);
                free_from = place + pattern.len();
            }
            Some(_) if count == 1 => return Err(Trouble::OutOfOrder(index)),
            _ => return Err(Trouble::Occurs(index, count)),
        }
    }
    Ok(places)
}

/// How often `pattern` occurs in `text`, overlaps included, and where first; in time linear in both (Knuth, Morris and
/// Pratt).
fn occurrences(text: &[usize], pattern: &[usize]) -> (usize, Option<usize>) {
    let mut borders = vec![0; pattern.len()];
    for index in 1..pattern.len() {
        let mut border = borders[index - 1];
        while border > 0 && pattern[border] != pattern[index] {
            border = borders[border - 1];
        }
        borders[index] = border + usize::from(pattern[border] == pattern[index]);
    }
    let (mut count, mut first, mut matched) = (0, None, 0);
    for (index, number) in text.iter().enumerate() {
        while matched > 0 && (matched == pattern.len() || pattern[matched] != *number) {
            matched = borders[matched - 1];
        }
        matched += usize::from(pattern[matched] == *number);
        if matched == pattern.len() {
            count += 1;
            first = first.or(Some(index + 1 - matched));
        }
    }
    (count, first)
}

fn name(hunks: &[Hunk<'_>], index: usize) -> String {
    format!(
        "hunk {} (line {} of the patch)",
        index + 1,
        hunks[index].line
    )
}

impl Trouble {
    fn into_fault(
        self,
        path: &SitePath,
        lines: &[&[u8]],
        hunks: &[Hunk<'_>],
        mismatch: Mismatch<'_>,
    ) -> Fault {
        let fault = |what: String| Fault::of(path, AT, ErrorCode::PatchFailed, what);
        match self {
            Self::Occurs(index, count) if count > 1 => fault(format!(
                "{} does not stand where it says, and the old lines of hunk {} occur {count} times.",
                name(hunks, mismatch.hunk),
                index + 1
            )),
            Self::Occurs(index, _) => {
                let at = if index == mismatch.hunk {
                    mismatch
                } else {
                    first_mismatch(lines, hunks, index)
                };
                fault(format!(
                    "{} does not apply: {}",
                    name(hunks, index),
                    at.describe(lines)
                ))
            }
            Self::OutOfOrder(index) => fault(format!(
                "{} occurs only before the hunk that precedes it.",
                name(hunks, index)
            )),
            Self::NoOldLines(index) => fault(format!(
                "{} has no line by which its place could be checked; make the patch with context.",
                name(hunks, index)
            )),
            Self::TooMuch => fault(
                "its hunks do not stand where they say, and there is too much to search."
                    .to_owned(),
            ),
        }
    }
}

/// The first line of a hunk that is not where it says.
fn first_mismatch<'d>(lines: &[&[u8]], hunks: &[Hunk<'d>], index: usize) -> Mismatch<'d> {
    let place = hunks[index].start.saturating_sub(1);
    let differs = |(offset, expected): &(usize, (&[u8], bool))| {
        !lines
            .get(place + offset)
            .is_some_and(|in_file| same(in_file, *expected))
    };
    let found = hunks[index].old_lines().enumerate().find(differs);
    Mismatch {
        hunk: index,
        line: place + found.map_or(0, |(offset, _)| offset),
        expected: found.map(|(_, expected)| expected),
    }
}

impl Mismatch<'_> {
    fn describe(&self, lines: &[&[u8]]) -> String {
        let number = self.line + 1;
        let Some((text, terminated)) = self.expected else {
            return "it overlaps the one before.".to_owned();
        };
        let expected = quote_bytes(text);
        let Some(line) = lines.get(self.line) else {
            return format!("line {number} should be {expected}, but the file ends before it.");
        };
        let (body, has_newline) = split_newline(line);
        if body == text {
            let has = if has_newline {
                "has a newline"
            } else {
                "has no newline"
            };
            let should = if terminated {
                "should have one"
            } else {
                "should have none"
            };
            return format!("line {number}, {expected}, {has} and {should}.");
        }
        if body.trim_ascii_end() == text.trim_ascii_end() {
            let ends = |text: &[u8]| if text.ends_with(b"\r") { "CR LF" } else { "LF" };
            if ends(body) != ends(text) {
                return format!(
                    "line {number}, {expected}, ends in {} and should end in {}.",
                    ends(body),
                    ends(text)
                );
            }
        }
        format!(
            "line {number} is {} and should be {expected}.",
            quote_bytes(body)
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Body, read};
    use super::*;

    fn patched(content: &str, hunks: &str) -> Result<String, String> {
        let diff = format!("--- a/f\n+++ b/f\n{hunks}");
        let files = read::read(&diff).map_err(|broken| broken.to_string())?;
        let Body::Hunks(hunks) = &files[0].body else {
            return Err("no hunks".to_owned());
        };
        let bytes = apply(&"f".parse().expect("valid"), content.as_bytes(), hunks)
            .map_err(|fault| fault.message)?;
        Ok(String::from_utf8(bytes).expect("text stays text"))
    }

    #[test]
    fn hunks_that_stand_where_they_say_are_applied() {
        let changed = patched(
            "a\nb\nc\nb\n",
            "@@ -2 +2 @@\n-b\n+B\n@@ -3,2 +3,3 @@\n c\n b\n+d\n",
        );
        assert_eq!(changed.as_deref(), Ok("a\nB\nc\nb\nd\n"));
    }

    #[test]
    fn hunks_that_stand_elsewhere_are_applied_if_there_is_one_place_only() {
        let moved = "@@ -1,2 +1,2 @@\n b\n-c\n+C\n";
        assert_eq!(
            patched("a\na\nb\nc\n", moved).as_deref(),
            Ok("a\na\nb\nC\n")
        );
        insta::assert_snapshot!(patched("a\nb\nc\nb\nc\n", moved).expect_err("ambiguous"), @"f: hunk 1 (line 3 of the patch) does not stand where it says, and the old lines of hunk 1 occur 2 times.");
        // Where one hunk has moved, nobody knows whether another one that fits where it says is at its place.
        let second = format!("{moved}@@ -5 +5 @@\n-a\n+A\n");
        insta::assert_snapshot!(patched("a\na\nb\nc\na\n", &second).expect_err("ambiguous"), @"f: hunk 1 (line 3 of the patch) does not stand where it says, and the old lines of hunk 2 occur 3 times.");
        let swapped = "@@ -1 +1 @@\n-c\n+C\n@@ -2 +2 @@\n-b\n+B\n";
        insta::assert_snapshot!(patched("a\nb\nc\n", swapped).expect_err("out of order"), @"f: hunk 2 (line 6 of the patch) occurs only before the hunk that precedes it.");
    }

    #[test]
    fn what_differs_is_shown() {
        let refusal =
            |content: &str| patched(content, "@@ -1,2 +1,2 @@\n a\n-b\n+B\n").expect_err("refused");
        insta::assert_snapshot!(refusal("a\nx\n"), @r#"f: hunk 1 (line 3 of the patch) does not apply: line 2 is "x" and should be "b"."#);
        insta::assert_snapshot!(refusal("a\n"), @r#"f: hunk 1 (line 3 of the patch) does not apply: line 2 should be "b", but the file ends before it."#);
        insta::assert_snapshot!(refusal("a\nb"), @r#"f: hunk 1 (line 3 of the patch) does not apply: line 2, "b", has no newline and should have one."#);
        insta::assert_snapshot!(refusal("a\r\nb\r\n"), @r#"f: hunk 1 (line 3 of the patch) does not apply: line 1, "a", ends in CR LF and should end in LF."#);
        insta::assert_snapshot!(refusal("a\nb \n"), @r#"f: hunk 1 (line 3 of the patch) does not apply: line 2 is "b " and should be "b"."#);
    }

    #[test]
    fn a_hunk_without_old_lines_is_for_an_empty_file() {
        let insert = "@@ -0,0 +1 @@\n+a\n";
        assert_eq!(patched("", insert).as_deref(), Ok("a\n"));
        insta::assert_snapshot!(patched("x\n", insert).expect_err("refused"), @"f: hunk 1 (line 3 of the patch) has no line by which its place could be checked; make the patch with context.");
    }

    #[test]
    fn a_line_that_loses_its_newline_must_be_the_last() {
        let lost = "@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n";
        assert_eq!(patched("a\n", lost).as_deref(), Ok("b"));
        insta::assert_snapshot!(patched("a\nc\n", lost).expect_err("refused"), @"f: hunk 1 (line 3 of the patch) would join two lines.");
    }

    #[test]
    fn very_many_hunks_that_are_out_of_place_are_not_searched_for() {
        let content = "x\n".repeat(30_000);
        let hunks: String = (0..1000)
            .map(|n| format!("@@ -{0} +{0} @@\n-y\n+z\n", n + 1))
            .collect::<Vec<_>>()
            .concat();
        insta::assert_snapshot!(patched(&content, &hunks).expect_err("refused"), @"f: its hunks do not stand where they say, and there is too much to search.");
    }

    fn lines() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("a\n"),
            Just("b\n"),
            Just("c\r\n"),
            Just("\n"),
            Just("--- x\n"),
            Just("@@ y\n"),
            Just("d")
        ];
        proptest::collection::vec(line, 0..40).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn what_diffy_finds_different_is_applied_exactly(old in lines(), new in lines(), context in 1_usize..5) {
            prop_assume!(old != new);
            let patch = diffy::DiffOptions::new().set_context_len(context).create_patch(&old, &new).to_string();
            let hunks = patch.split_once("\n+++ modified\n").map(|(_, hunks)| hunks).unwrap_or_default();
            // A hunk that only inserts at the ends of a file has fewer lines of context; without any it is refused.
            match patched(&old, hunks) {
                Ok(changed) => prop_assert_eq!(changed, new),
                Err(why) => prop_assert!(why.contains("no line by which"), "{}", why),
            }
        }

        #[test]
        fn occurrences_are_counted_as_by_looking_everywhere(text in proptest::collection::vec(0_usize..3, 0..40),
                                                            pattern in proptest::collection::vec(0_usize..3, 1..5)) {
            let places: Vec<usize> = (0..text.len()).filter(|place| text[*place..].starts_with(&pattern)).collect();
            prop_assert_eq!(occurrences(&text, &pattern), (places.len(), places.first().copied()));
        }
    }
}
