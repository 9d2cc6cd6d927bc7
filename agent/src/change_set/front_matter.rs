//! `frontmatter`: setting and removing keys of a Markdown file's YAML front matter, every other byte untouched.
//!
//! ```text
//! file ──▶ fences ──▶ reader ──▶ nodes with places ──▶ edits of bytes ──▶ reader again ──▶ is it what was asked?
//! ```
//!
//! - **Spans, not a printer.** The front matter is never parsed and written back. A [`reader`] says where
//!   each key and value is, and [`edits`] replace exactly those bytes, so comments, order, quotes,
//!   indentation, anchors and line endings of everything else stay. The reader is our own and knows the part of YAML
//!   that front matter is written in; what it does not know it refuses. `yaml-edit` was considered: it is lossless too,
//!   but far larger than the task and too young to trust without all of the checks below.
//! - **Fail closed.** After every key the result is read again, and must say what it said before plus what was asked,
//!   nothing else. If not, the change is `frontmatter_invalid` and nothing happens.
//! - **Every reader.** What is written means the same in YAML 1.2 and 1.1: `yes`, `12:30`, `1e3` and dates get quotes.
//!   One exception: where an unquoted date is replaced by a date, it stays unquoted, because sites declare such a field
//!   as a date and would break on a text.
//! - **Keys.** `seo.title` reaches into a mapping. A key that itself contains the dot wins. What is missing on the way
//!   is made. Removing the last key of a mapping leaves `{}`.
//!
//! TOML (`+++`), JSON and the code of `.astro` files are not YAML and are refused.

use contract::{ErrorCode, SitePath};
use serde_json::Map;

use super::fault::{Fault, quote};
use super::text::as_text;

mod edits;
mod fences;
mod key;
pub(super) mod merge;
mod node;
mod plain;
#[cfg(test)]
mod properties;
mod reader;
mod writer;

use edits::Found;
use fences::{FRONT_MATTER_MAX_BYTES, File};
use key::Asked;
use node::{Entry, Value};

/// What a `frontmatter` change asks for: first all of `set`, then all of `unset`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit<'c> {
    pub(super) set: &'c Map<String, serde_json::Value>,
    pub(super) unset: &'c [String],
}

impl Edit<'_> {
    /// `content` with these keys set and removed.
    pub(super) fn apply(&self, path: &SitePath, content: &[u8]) -> Result<Vec<u8>, Vec<Fault>> {
        let text = as_text(path, ".path", content).map_err(|fault| vec![fault])?;
        let file = File::locate(path, text).map_err(|fault| vec![fault])?;
        let mut yaml = file.yaml().to_owned();
        let mut meaning = file.meaning(path, &yaml).map_err(|fault| vec![fault])?;
        let mut faults = Vec::new();
        for (key, value) in self.set {
            let asked = Asked::Set(value);
            match file.with_key(&yaml, &mut meaning, key, &asked) {
                Ok(changed) => yaml = changed,
                Err(why) => faults.push(invalid(
                    path,
                    member(".set", key),
                    format!("{}: {why}.", quote(key)),
                )),
            }
        }
        for (index, key) in self.unset.iter().enumerate() {
            match file.with_key(&yaml, &mut meaning, key, &Asked::Unset) {
                Ok(changed) => yaml = changed,
                Err(why) => faults.push(invalid(
                    path,
                    format!(".unset[{index}]"),
                    format!("{}: {why}.", quote(key)),
                )),
            }
        }
        if faults.is_empty() {
            Ok(file.with_yaml(&yaml).into_bytes())
        } else {
            Err(faults)
        }
    }

    /// The first key that `present` and `base` do not agree on, quoted, unless `present` already says what is asked.
    pub(super) fn collision(
        &self,
        path: &SitePath,
        base: &[u8],
        present: &[u8],
    ) -> Result<Option<String>, Vec<Fault>> {
        let entries = |content| -> Result<Vec<Entry>, Fault> {
            let text = as_text(path, ".path", content)?;
            let file = File::locate(path, text)?;
            reader::read(file.yaml()).map_err(|why| file.unreadable(path, &why))
        };
        let now = entries(present).map_err(|fault| vec![fault])?;
        // What cannot be read cannot be known to be the same.
        let before = entries(base).ok();
        let differs = |key: &str, asked: Option<Value>| {
            let now = value_of(&now, key);
            before
                .as_ref()
                .is_none_or(|before| value_of(before, key) != now)
                && now != asked
        };
        let set = self
            .set
            .iter()
            .find(|(key, value)| differs(key, Some(Value::from(*value))))
            .map(|(key, _)| key);
        Ok(set
            .or_else(|| self.unset.iter().find(|key| differs(key, None)))
            .map(|key| quote(key)))
    }

    /// What applying it costs, in bytes that are read.
    pub(super) fn cost(&self, content: &[u8]) -> usize {
        let keys = self.set.len() + self.unset.len();
        // Each key has the front matter read twice, compared and written.
        content.len() + content.len().min(FRONT_MATTER_MAX_BYTES) * keys * 16
    }
}

fn value_of(entries: &[Entry], key: &str) -> Option<Value> {
    match edits::find(entries, key) {
        Found::Entry(entry, _) | Found::NoMapping(entry) => Some(entry.value.value()),
        Found::Missing(..) | Found::EmptyPart => None,
    }
}

/// The JSON path of a member of an object: `.set.title`, `.set["seo.title"]`.
fn member(object: &str, key: &str) -> String {
    let is_word = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && key.starts_with(|c: char| !c.is_ascii_digit());
    if is_word {
        format!("{object}.{key}")
    } else {
        format!("{object}[{}]", serde_json::Value::from(key))
    }
}

fn invalid(path: &SitePath, at: impl Into<String>, what: impl std::fmt::Display) -> Fault {
    Fault::of(path, at, ErrorCode::FrontmatterInvalid, what)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(super) fn edited_at(
        path: &str,
        text: &str,
        set: &Value,
        unset: &[&str],
    ) -> Result<String, String> {
        let path = path.parse().expect("a valid path");
        let set = set.as_object().cloned().unwrap_or_default();
        let unset: Vec<String> = unset.iter().map(|key| (*key).to_owned()).collect();
        let edit = Edit {
            set: &set,
            unset: &unset,
        };
        match edit.apply(&path, text.as_bytes()) {
            Ok(bytes) => Ok(String::from_utf8(bytes).expect("text stays text")),
            Err(faults) => Err(faults
                .iter()
                .map(|fault| format!("{} {}", fault.at, fault.message))
                .collect::<Vec<_>>()
                .join("\n")),
        }
    }

    pub(super) fn edited(text: &str, set: &Value, unset: &[&str]) -> Result<String, String> {
        edited_at("src/a.md", text, set, unset)
    }

    const PAGE: &str = "\
---
# About the stamp
title: 'Penny Black'   # as in the catalogue
pubDate: 2026-10-01
tags: # sorted
- rare
- black

seo:
    description: >-
      The first
      adhesive stamp
    \"og.title\": Penny # social
image: { src: ./a.jpg, alt: \"A stamp\" }
# The end
---

# Penny Black
";

    #[test]
    fn values_are_replaced_where_they_are_in_the_style_they_have() {
        let set = json!({
            "title": "It's the Penny Red", "pubDate": "2026-11-30", "tags": ["common", "red: 1d"],
            "seo.description": "Later", "seo.og.title": "Red", "image.alt": "Another, \"red\" one",
        });
        insta::assert_snapshot!(edited(PAGE, &set, &[]).expect("edited"), @r#"
        ---
        # About the stamp
        title: 'It''s the Penny Red'   # as in the catalogue
        pubDate: 2026-11-30
        tags: # sorted
        - common
        - "red: 1d"

        seo:
            description: Later
            "og.title": Red # social
        image: { src: ./a.jpg, alt: "Another, \"red\" one" }
        # The end
        ---

        # Penny Black
        "#);
    }

    #[test]
    fn new_keys_come_last_and_follow_the_manners_of_the_file() {
        let set = json!({
            "draft": true, "authors": ["Anna"], "seo.noindex": false, "image.width": 12, "social.card.type": "large",
            "text": "one\ntwo", "date": "2026-10-01",
        });
        insta::assert_snapshot!(edited(PAGE, &set, &[]).expect("edited"), @r#"
        ---
        # About the stamp
        title: 'Penny Black'   # as in the catalogue
        pubDate: 2026-10-01
        tags: # sorted
        - rare
        - black

        seo:
            description: >-
              The first
              adhesive stamp
            "og.title": Penny # social
            noindex: false
        image: { src: ./a.jpg, alt: "A stamp", width: 12 }
        # The end
        authors:
        - Anna
        date: "2026-10-01"
        draft: true
        social:
            card:
                type: large
        text: |-
            one
            two
        ---

        # Penny Black
        "#);
    }

    #[test]
    fn removing_keys_takes_their_lines_and_leaves_comments_of_others() {
        let unset = [
            "title",
            "tags",
            "seo.description",
            "image.src",
            "nothing",
            "seo.nothing.there",
        ];
        insta::assert_snapshot!(edited(PAGE, &json!({}), &unset).expect("edited"), @r#"
        ---
        # About the stamp
        pubDate: 2026-10-01

        seo:
            "og.title": Penny # social
        image: { alt: "A stamp" }
        # The end
        ---

        # Penny Black
        "#);
        let last = edited(
            "---\nseo: # c\n  title: x\n  # more\nb: 1\n---\n",
            &json!({}),
            &["seo.title"],
        );
        assert_eq!(
            last.as_deref(),
            Ok("---\nseo: {} # c\n  # more\nb: 1\n---\n")
        );
        assert_eq!(
            edited("---\na: 1\n---\n", &json!({}), &["a"]).as_deref(),
            Ok("---\n---\n")
        );
    }

    #[test]
    fn values_change_between_one_line_and_several() {
        let cases = [
            ("a: 1 # c", json!(["x"]), "a: # c\n  - x"),
            ("a: # c\n  - x\n  - y", json!("z"), "a: z # c"),
            ("a: |\n  one\n  two\n", json!("z"), "a: z\n"),
            ("a: |- # c\n  one", json!("x\ny"), "a: |- # c\n  x\n  y"),
            ("a: 'one'", json!("x\ny"), r#"a: "x\ny""#),
            ("a: one\n  two # c", json!("x\ny\n"), "a: | # c\n  x\n  y"),
            ("a:\n  below # c", json!({"k": 1}), "a:\n  { k: 1 } # c"),
            ("a: # c", json!({"k": [1]}), "a: # c\n  k:\n    - 1"),
            (
                "a: [1, 2] # c",
                json!(["x", "y: z"]),
                "a: [x, \"y: z\"] # c",
            ),
            ("a: []", json!(["x"]), "a:\n  - x"),
            ("a: 1\n  # deep", json!("x\ny"), "a: \"x\\ny\"\n  # deep"),
            ("a: !!str 1", json!(2), "a: 2"),
            ("a: yes", json!(true), "a: true"),
            ("a: yes", json!("yes"), "a: \"yes\""),
            ("a: true", json!(true), "a: true"),
        ];
        for (old, value, new) in cases {
            let text = format!("---\n{old}\nz: 1\n---\n");
            let expected = format!("---\n{new}\nz: 1\n---\n");
            assert_eq!(
                edited(&text, &json!({ "a": value }), &[]),
                Ok(expected),
                "{old}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_line() {
        let refusal = |yaml: &str| {
            edited(&format!("---\nz: 1\n{yaml}\n---\n"), &json!({"a": 2}), &[])
                .expect_err("refused")
        };
        insta::assert_snapshot!(refusal("a: b: c"), @".path src/a.md: the front matter cannot be read at line 3: a value with a colon and a space needs quotes.");
        insta::assert_snapshot!(refusal("a:\n\t- x"), @".path src/a.md: the front matter cannot be read at line 4: a tab cannot indent.");
        insta::assert_snapshot!(refusal("z: 2"), @".path src/a.md: the front matter cannot be read at line 3: this key was there before.");
        insta::assert_snapshot!(refusal("? a\n: b"), @".path src/a.md: the front matter cannot be read at line 3: this kind of key is not supported.");
        insta::assert_snapshot!(refusal("b: 'x"), @".path src/a.md: the front matter cannot be read at line 3: the closing quote is missing.");
        insta::assert_snapshot!(refusal("b: [1, 2"), @".path src/a.md: the front matter cannot be read at line 4: the closing bracket is missing.");
        insta::assert_snapshot!(refusal("b: *x"), @".path src/a.md: the front matter cannot be read at line 3: nothing before is anchored as &x.");
        insta::assert_snapshot!(refusal("--- b"), @".path src/a.md: the front matter cannot be read at line 3: a document ends here, which readers of front matter do not agree on.");
    }

    #[test]
    fn a_value_that_is_used_in_another_place_is_not_pulled_away() {
        let text = "---\nbase: &b { x: 1 }\nother: *b\nfree: &f 1\n---\n";
        let refusal = |set: Value| edited(text, &set, &[]).expect_err("refused");
        insta::assert_snapshot!(refusal(json!({"base": 1})), @r#".set.base src/a.md: "base": the result could not be read: nothing before is anchored as &b."#);
        insta::assert_snapshot!(refusal(json!({"base.x": 2})), @r#".set["base.x"] src/a.md: "base.x": it is part of &b, which is used in another place too."#);
        insta::assert_snapshot!(refusal(json!({"other.x": 2})), @r#".set["other.x"] src/a.md: "other.x": "other" is not a mapping, so nothing can be set in it."#);
        let expected = text.replace("*b", "1").replace("&f 1", "2");
        assert_eq!(
            edited(text, &json!({"other": 1, "free": 2}), &[]),
            Ok(expected)
        );
    }

    #[test]
    fn all_keys_that_cannot_be_set_are_named() {
        let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
        let set = json!({"a.b": 1, "c..d": 2, "e": deep, "f": 3});
        insta::assert_snapshot!(edited("---\na: x\n---\n", &set, &[]).expect_err("refused"), @r#"
        .set["a.b"] src/a.md: "a.b": "a" is not a mapping, so nothing can be set in it.
        .set["c..d"] src/a.md: "c..d": a part of the key is empty.
        .set.e src/a.md: "e": the value is nested too deeply.
        "#);
    }

    #[test]
    fn a_collision_is_the_same_key_changed_by_somebody_else() {
        let path = "a.md".parse().expect("valid");
        let set = json!({"title": "mine", "seo.x": 1});
        let unset = ["old".to_owned()];
        let edit = Edit {
            set: set.as_object().expect("an object"),
            unset: &unset,
        };
        let collision = |base: &str, present: &str| {
            let front = |yaml: &str| format!("---\n{yaml}\n---\n").into_bytes();
            edit.collision(&path, &front(base), &front(present))
                .expect("readable")
        };
        assert_eq!(
            collision("title: a\nbody: x", "title: a # c\nbody: y"),
            None
        );
        assert_eq!(
            collision("title: a", "title: b"),
            Some("\"title\"".to_owned())
        );
        assert_eq!(collision("title: a", "title: mine"), None);
        assert_eq!(
            collision("title: a\nseo: {x: 2}", "title: a"),
            Some("\"seo.x\"".to_owned())
        );
        assert_eq!(
            collision("title: a\nold: 1", "title: a\nold: 2"),
            Some("\"old\"".to_owned())
        );
        assert_eq!(collision("title: a\nold: 1", "title: a"), None);
        assert_eq!(
            collision("title: [", "title: a"),
            Some("\"seo.x\"".to_owned())
        );
    }
}
