//! A three-way merge by lines: what two people changed since one version, unless they changed the same lines.
//!
//! Byte for byte: a line is everything up to and with its LF, so CR LF, a missing final newline and bytes that are no
//! text are all kept. Differences come from diffy; overlap is judged here, because a person needs to read which lines
//! overlap. Changes that touch without a line between them overlap, as in git. The same change on both sides is no
//! conflict.

use std::ops::Range;

use diffy::{DiffOptions, Line};

/// Lines of each of the two differences that the merge looks at, between what is equal at the start and at the end.
/// Finding a difference takes time quadratic in them; this many take half a second.
const LINES_MAX: usize = 4_000;

/// Ranges of lines that a message names.
const RANGES_MAX: usize = 5;

/// Why two versions cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overlap {
    /// Both changed the same lines, or lines next to each other.
    #[error("{}", describe(.0, *.1))]
    Lines(
        /// Numbers of the lines in the present version, both ends included; at most [`RANGES_MAX`].
        Vec<(usize, usize)>,
        /// Whether there are more.
        bool,
    ),
    /// The versions differ in too many lines.
    #[error("too much of it differs to merge")]
    TooLarge,
}

fn describe(ranges: &[(usize, usize)], more: bool) -> String {
    let parts: Vec<String> = ranges
        .iter()
        .map(|&(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}–{last}")
            }
        })
        .collect();
    let one = matches!(ranges, [(first, last)] if first == last);
    let noun = if one { "line" } else { "lines" };
    let rest = if more { ", …" } else { "" };
    format!("both changed {noun} {}{rest}", parts.join(", "))
}

/// What merging costs at most, counted in bytes that could be read in the time: quadratic in the lines that differ.
pub(super) fn cost(base: &[u8], present: &[u8], asked: &[u8]) -> usize {
    let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').count().min(LINES_MAX);
    let rows = lines(base);
    base.len() + present.len() + asked.len() + 4 * rows * (lines(present) + lines(asked))
}

/// What `present` and `asked` each changed since `base`, together.
pub(super) fn three_way(base: &[u8], present: &[u8], asked: &[u8]) -> Result<Vec<u8>, Overlap> {
    let base_lines: Vec<&[u8]> = base.split_inclusive(|byte| *byte == b'\n').collect();
    let ours = differences(base, present)?;
    let theirs = differences(base, asked)?;
    let mut merged = Vec::with_capacity(present.len().max(asked.len()));
    let mut overlaps = Vec::new();
    let mut copied = 0;
    let (mut our_rest, mut their_rest) = (ours.as_slice(), theirs.as_slice());
    // Present line numbers minus base line numbers, up to here.
    let mut shift: isize = 0;
    while !(our_rest.is_empty() && their_rest.is_empty()) {
        let (region, our_count, their_count) = next_region(our_rest, their_rest);
        let (our_part, our_after) = our_rest.split_at(our_count);
        let (their_part, their_after) = their_rest.split_at(their_count);
        merged.extend(
            base_lines[copied..region.start]
                .iter()
                .flat_map(|line| line.iter()),
        );
        copied = region.end;
        let our_lines = rewritten(&base_lines, &region, our_part);
        let their_lines = rewritten(&base_lines, &region, their_part);
        if their_part.is_empty() || our_lines == their_lines {
            merged.extend(our_lines.concat());
        } else if our_part.is_empty() {
            merged.extend(their_lines.concat());
        } else {
            let first = region.start.saturating_add_signed(shift) + 1;
            let last = (first + our_lines.len()).saturating_sub(1).max(first);
            overlaps.push((first, last));
        }
        shift += signed(our_lines.len()) - signed(region.len());
        (our_rest, their_rest) = (our_after, their_after);
    }
    if !overlaps.is_empty() {
        let more = overlaps.len() > RANGES_MAX;
        overlaps.truncate(RANGES_MAX);
        return Err(Overlap::Lines(overlaps, more));
    }
    merged.extend(base_lines[copied..].iter().flat_map(|line| line.iter()));
    Ok(merged)
}

fn signed(lines: usize) -> isize {
    isize::try_from(lines).unwrap_or(isize::MAX)
}

/// Lines of the base that one side replaced, and by which.
#[derive(Debug)]
struct Difference<'a> {
    base: Range<usize>,
    lines: Vec<&'a [u8]>,
}

/// What differs between two versions, in order, without what is equal.
fn differences<'a>(base: &'a [u8], other: &'a [u8]) -> Result<Vec<Difference<'a>>, Overlap> {
    let base_lines: Vec<&[u8]> = base.split_inclusive(|byte| *byte == b'\n').collect();
    let other_lines: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
    let start = base_lines
        .iter()
        .zip(&other_lines)
        .take_while(|(a, b)| a == b)
        .count();
    let (base_tail, other_tail) = (&base_lines[start..], &other_lines[start..]);
    let end = base_tail
        .iter()
        .rev()
        .zip(other_tail.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let middles = (
        &base_tail[..base_tail.len() - end],
        &other_tail[..other_tail.len() - end],
    );
    if middles.0.len().max(middles.1.len()) > LINES_MAX {
        return Err(Overlap::TooLarge);
    }
    let (old, new) = (middles.0.concat(), middles.1.concat());
    let mut found: Vec<Difference<'a>> = Vec::new();
    let patch = DiffOptions::new()
        .set_context_len(usize::from(u16::MAX))
        .create_patch_bytes(&old, &new);
    // With so much context there is at most one hunk, which has every line.
    let (mut base_at, mut other_at) = (start, start);
    for line in patch.hunks().iter().flat_map(diffy::Hunk::lines) {
        match line {
            Line::Context(_) => {
                base_at += 1;
                other_at += 1;
                continue;
            }
            Line::Delete(_) => base_at += 1,
            Line::Insert(_) => other_at += 1,
        }
        let deleted = usize::from(matches!(line, Line::Delete(_)));
        let inserted = matches!(line, Line::Insert(_)).then(|| other_lines[other_at - 1]);
        match found.last_mut() {
            Some(last) if last.base.end + deleted == base_at => {
                last.base.end = base_at;
                last.lines.extend(inserted);
            }
            _ => found.push(Difference {
                base: base_at - deleted..base_at,
                lines: inserted.into_iter().collect(),
            }),
        }
    }
    Ok(found)
}

/// The next lines of the base that either side changed, and how many differences of each side are in them. Grows while
/// a difference of either side overlaps or touches it.
fn next_region(ours: &[Difference<'_>], theirs: &[Difference<'_>]) -> (Range<usize>, usize, usize) {
    let starts = [ours.first(), theirs.first()]
        .into_iter()
        .flatten()
        .map(|difference| difference.base.start);
    let start = starts.min().unwrap_or(0);
    let mut region = start..start;
    let (mut our_count, mut their_count) = (0, 0);
    loop {
        let touches = |difference: &&Difference<'_>| difference.base.start <= region.end;
        if let Some(next) = ours.get(our_count).filter(touches) {
            region.end = region.end.max(next.base.end);
            our_count += 1;
        } else if let Some(next) = theirs.get(their_count).filter(touches) {
            region.end = region.end.max(next.base.end);
            their_count += 1;
        } else {
            return (region, our_count, their_count);
        }
    }
}

/// The lines of `region` as one side has them.
fn rewritten<'a>(
    base: &[&'a [u8]],
    region: &Range<usize>,
    part: &[Difference<'a>],
) -> Vec<&'a [u8]> {
    let mut lines = Vec::new();
    let mut copied = region.start;
    for difference in part {
        lines.extend(&base[copied..difference.base.start]);
        lines.extend(&difference.lines);
        copied = difference.base.end;
    }
    lines.extend(&base[copied..region.end]);
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(base: &str, present: &str, asked: &str) -> Result<String, String> {
        three_way(base.as_bytes(), present.as_bytes(), asked.as_bytes())
            .map(|bytes| String::from_utf8(bytes).expect("merged from text"))
            .map_err(|overlap| overlap.to_string())
    }

    #[test]
    fn changes_of_different_lines_come_together() {
        let both = merged("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n");
        assert_eq!(both.as_deref(), Ok("A\nb\nC\n"));
        let lines = merged("a\r\nb\r\nc", "a\r\nb\r\nc\r\nd", "0\r\na\r\nb\r\nc");
        assert_eq!(lines.as_deref(), Ok("0\r\na\r\nb\r\nc\r\nd"));
    }

    #[test]
    fn the_same_change_on_both_sides_is_taken_once() {
        assert_eq!(
            merged("a\nb\n", "a\nX\n", "a\nX\n").as_deref(),
            Ok("a\nX\n")
        );
        assert_eq!(merged("a\n", "a\nX", "a\nX").as_deref(), Ok("a\nX"));
    }

    #[test]
    fn changes_of_the_same_or_neighbouring_lines_overlap() {
        assert_eq!(
            merged("a\nb\nc\n", "a\nB\nc\n", "a\nX\nc\n"),
            Err("both changed line 2".to_owned())
        );
        assert_eq!(
            merged("a\nb\n", "A\nb\n", "a\nB\n"),
            Err("both changed lines 1–2".to_owned())
        );
        let twice = merged("a\nb\nc\nd\n", "1\na\nB\nc\nD\n", "a\nX\nc\nY\n");
        assert_eq!(twice, Err("both changed lines 3, 5".to_owned()));
    }

    #[test]
    fn two_endings_of_one_last_line_overlap() {
        assert_eq!(
            merged("a", "a\n", "a\nb"),
            Err("both changed line 1".to_owned())
        );
    }

    #[test]
    fn versions_that_differ_in_very_many_lines_are_not_merged() {
        let numbered = |end: &str| (0..5_000).map(|n| n.to_string() + end).collect::<String>();
        let (old, new) = (numbered("\n"), numbered("x\n"));
        assert_eq!(
            merged(&old, &new, &old),
            Err("too much of it differs to merge".to_owned())
        );
        let grown = format!("{old}more\n");
        assert_eq!(merged(&old, &old, &grown).as_deref(), Ok(grown.as_str()));
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

    proptest! {
        #[test]
        fn what_only_one_side_changed_is_that_side(base in lines(), other in lines()) {
            prop_assert_eq!(merged(&base, &other, &base), Ok(other.clone()));
            prop_assert_eq!(merged(&base, &base, &other), Ok(other.clone()));
            prop_assert_eq!(merged(&base, &other, &other), Ok(other));
        }

        #[test]
        fn it_agrees_with_diffy_wherever_both_merge(base in lines(), ours in lines(), theirs in lines()) {
            if let (Ok(mine), Ok(diffys)) = (merged(&base, &ours, &theirs), diffy::merge(&base, &ours, &theirs)) {
                prop_assert_eq!(mine, diffys);
            }
        }

        #[test]
        fn a_merge_does_not_depend_on_who_came_first(base in lines(), ours in lines(), theirs in lines()) {
            prop_assert_eq!(merged(&base, &ours, &theirs).ok(), merged(&base, &theirs, &ours).ok());
        }
    }
}
