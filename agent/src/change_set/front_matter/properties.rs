//! Properties of front matter editing, held against another reader of YAML (`yaml-rust2`).

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::{Edit, node, plain, reader};

/// What another reader takes a YAML text for.
fn oracle(yaml: &str) -> Result<Value, String> {
    let documents = YamlLoader::load_from_str(yaml).map_err(|why| why.to_string())?;
    match documents.as_slice() {
        [] | [Yaml::Null] => Ok(json!({})),
        [document] => json_of(document),
        _ => Err("several documents".to_owned()),
    }
}

fn json_of(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(bool) => json!(bool),
        Yaml::Integer(number) => json!(number),
        Yaml::Real(text) => json!(
            text.parse::<f64>()
                .map_err(|why| format!("{text}: {why}"))?
        ),
        Yaml::String(text) => json!(text),
        Yaml::Array(items) => Value::Array(items.iter().map(json_of).collect::<Result<_, _>>()?),
        Yaml::Hash(members) => {
            let member = |(key, value): (&Yaml, &Yaml)| -> Result<(String, Value), String> {
                let key = match key {
                    Yaml::String(key) | Yaml::Real(key) => key.clone(),
                    Yaml::Integer(key) => key.to_string(),
                    Yaml::Boolean(key) => key.to_string(),
                    other => return Err(format!("key {other:?}")),
                };
                Ok((key, json_of(value)?))
            };
            Value::Object(members.iter().map(member).collect::<Result<_, _>>()?)
        }
        other => return Err(format!("{other:?}")),
    })
}

/// One key with its value in some style of writing, and the comment lines after it.
#[derive(Debug, Clone)]
struct Chunk {
    key: String,
    lines: Vec<String>,
    comments: Vec<String>,
}

fn value_lines() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        Just(vec![" Penny Black"]),
        Just(vec![" Penny Black # the first"]),
        Just(vec![" 'it''s' # quoted"]),
        Just(vec![" \"a \\\"b\\\" c\""]),
        Just(vec![""]),
        Just(vec![" # nothing"]),
        Just(vec![" 12"]),
        Just(vec![" 2026-10-01"]),
        Just(vec![" [a, 'b, c', {d: 1}]  # flow"]),
        Just(vec![" {a: 1, b: [x]}"]),
        Just(vec![" [", "    a, # one", "    b", "  ]"]),
        Just(vec![" |", "  line 1", "", "    line 2"]),
        Just(vec![
            " >- # folded",
            "  line 1",
            "  line 2",
            "",
            "  # no comment"
        ]),
        Just(vec!["", "  - a", "  # between", "  - b: 1", "    c: 2"]),
        Just(vec!["", "- a", "- - b", "  - c"]),
        Just(vec![
            " # mapping",
            "  title: x",
            "  deep:",
            "    deeper: [1]",
            "  # end"
        ]),
        Just(vec![" two lines", "  of plain text"]),
        Just(vec![" \"two lines", "", "   of quoted text\" # c"]),
        Just(vec!["", "  plain below"]),
    ]
}

fn chunks() -> impl Strategy<Value = Vec<Chunk>> {
    let comments =
        proptest::collection::vec(prop_oneof![Just("# comment"), Just(""), Just("#")], 0..3);
    proptest::collection::vec((value_lines(), comments), 1..6).prop_map(|values| {
        let chunk = |(index, (lines, comments)): (usize, (Vec<&str>, Vec<&str>))| {
            let key = format!("key{index}");
            let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            lines[0] = format!("{key}:{}", lines[0]);
            Chunk {
                key,
                lines,
                comments: comments.into_iter().map(str::to_owned).collect(),
            }
        };
        values.into_iter().enumerate().map(chunk).collect()
    })
}

fn text_of(chunks: &[Chunk], ending: &str) -> String {
    let lines = chunks
        .iter()
        .flat_map(|chunk| chunk.lines.iter().chain(&chunk.comments))
        .map(String::as_str);
    lines.flat_map(|line| [line, ending]).collect()
}

/// Texts that readers of YAML have been known to take for something else, and any other.
fn texts() -> impl Strategy<Value = String> {
    let traps = [
        "",
        " ",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "~",
        "null",
        "true",
        "12:30",
        "1e3",
        "0777",
        "0x1f",
        "1_000",
        "-",
        "- a",
        "? a",
        ": a",
        "a: b",
        "a:",
        "a #b",
        "#",
        "a\nb",
        "a\nb\n",
        "a\n\nb",
        "\na",
        " a\nb",
        "a\n b\nc",
        "a\n# b",
        "a\r\nb",
        "a\tb",
        "\t",
        "😀",
        "😀 a",
        "é",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{a0}",
        "\0",
        "\u{1b}",
        "---",
        "...",
        "a\n---\nb",
        "'",
        "\"",
        "\\",
        "'a",
        "a'b\"c",
        "!a",
        "&a",
        "*a",
        "%a",
        "@a",
        "`a",
        "{a}",
        "[a]",
        "a, b",
        "|",
        ">",
        "<<",
        "=",
        "2026-10-01",
        "2026-10-01 12:00",
        ".5",
        "+1",
        "-.inf",
        ".nan",
        "1.",
        "0o7",
        "0b1",
        "a: |\n b",
        "a\n\n",
        "a \nb",
    ];
    prop_oneof![
        3 => proptest::sample::select(traps.to_vec()).prop_map(str::to_owned),
        1 => "[ -~\n]{0,40}",
        1 => "\\PC{0,20}",
        1 => proptest::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => texts().prop_map(Value::String),
        1 => any::<i64>().prop_map(|number| json!(number)),
        1 => any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(|bool| json!(bool)),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(
                texts().prop_filter("short", |key| key.len() < 100),
                inner,
                0..4
            )
            .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn edited(text: &str, set: &[(&str, Value)], unset: &[&str]) -> Result<String, String> {
    let path = "src/a.md".parse().expect("a valid path");
    let set: Map<String, Value> = set
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let unset: Vec<String> = unset.iter().map(|key| (*key).to_owned()).collect();
    let edit = Edit {
        set: &set,
        unset: &unset,
    };
    let message = |faults: Vec<super::Fault>| {
        faults
            .into_iter()
            .map(|fault| fault.message)
            .collect::<String>()
    };
    edit.apply(&path, text.as_bytes())
        .map(|bytes| String::from_utf8(bytes).expect("text stays text"))
        .map_err(message)
}

fn between_fences(text: &str) -> &str {
    let start = text.find('\n').expect("a fence") + 1;
    let end = start + text[start..].rfind("---").expect("a fence");
    &text[start..end]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn setting_a_key_leaves_every_other_byte(chunks in chunks(), pick in any::<prop::sample::Index>(),
                                             value in values(), crlf in any::<bool>()) {
        let ending = if crlf { "\r\n" } else { "\n" };
        let index = pick.index(chunks.len());
        let yaml = text_of(&chunks, ending);
        let text = format!("---{ending}{yaml}---{ending}# Body{ending}---{ending}");
        let changed = edited(&text, &[(&chunks[index].key, value.clone())], &[]);
        let changed = changed.map_err(TestCaseError::fail)?;
        let before = format!("---{ending}{}{}:", text_of(&chunks[..index], ending), chunks[index].key);
        let comments = chunks[index].comments.iter().flat_map(|line| [line.as_str(), ending]).collect::<String>();
        let after = format!("{comments}{}---{ending}# Body{ending}---{ending}", text_of(&chunks[index + 1..], ending));
        prop_assert!(changed.starts_with(&before), "{changed}");
        prop_assert!(changed.ends_with(&after), "{changed}");
        if crlf {
            prop_assert_eq!(changed.matches('\n').count(), changed.matches("\r\n").count());
        }

        let mut expected = oracle(&yaml).map_err(TestCaseError::fail)?;
        expected[&chunks[index].key] = value;
        let end = changed.len() - format!("# Body{ending}---{ending}").len();
        prop_assert_eq!(oracle(between_fences(&changed[..end])).map_err(TestCaseError::fail)?, expected, "{}", changed);
    }

    #[test]
    fn removing_a_key_removes_its_lines_only(chunks in chunks(), pick in any::<prop::sample::Index>()) {
        let index = pick.index(chunks.len());
        let text = format!("---\n{}---\nBody\n", text_of(&chunks, "\n"));
        let changed = edited(&text, &[], &[&chunks[index].key]).map_err(TestCaseError::fail)?;
        let mut left = chunks.clone();
        left[index].lines.clear();
        prop_assert_eq!(changed, format!("---\n{}---\nBody\n", text_of(&left, "\n")));
    }

    #[test]
    fn a_new_key_comes_last_and_means_what_was_asked(chunks in chunks(), key in "[a-z]{1,3}(\\.[a-z]{1,2}){0,2}", value in values()) {
        let yaml = text_of(&chunks, "\n");
        let text = format!("---\n{yaml}---\n");
        let changed = edited(&text, &[(&key, value.clone())], &[]).map_err(TestCaseError::fail)?;
        prop_assert!(changed.starts_with(&format!("---\n{yaml}")), "{changed}");
        let mut expected = oracle(&yaml).map_err(TestCaseError::fail)?;
        let mut place = &mut expected;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = value;
        prop_assert_eq!(oracle(between_fences(&changed)).map_err(TestCaseError::fail)?, expected, "{}", changed);
    }

    #[test]
    fn setting_what_is_there_changes_nothing(value in values()) {
        let once = edited("---\na: b\n---\n", &[("k", value.clone())], &[]).map_err(TestCaseError::fail)?;
        prop_assert_eq!(edited(&once, &[("k", value)], &[]), Ok(once));
    }

    #[test]
    fn a_key_inside_a_mapping_is_set_there(block in any::<bool>(), value in values(), key in "t|new|x") {
        let yaml = if block { "seo:\n    t: 'x' # c\n    x:\n        - 1\nz: 1\n" } else { "seo: { t: 'x', x: [1] } # c\nz: 1\n" };
        let text = format!("---\n{yaml}---\n");
        let changed = edited(&text, &[(&format!("seo.{key}"), value.clone())], &[]).map_err(TestCaseError::fail)?;
        let mut expected = json!({"seo": {"t": "x", "x": [1]}, "z": 1});
        expected["seo"][&key] = value;
        prop_assert_eq!(oracle(between_fences(&changed)).map_err(TestCaseError::fail)?, expected, "{}", changed);
        let untouched = ["z: 1\n", "# c\n", "t: 'x'"];
        let untouched = &untouched[..if key == "t" { 2 } else { 3 }];
        prop_assert!(untouched.iter().all(|part| changed.contains(part)), "{changed}");
    }
}

/// Text made of what YAML is made of.
fn soup() -> impl Strategy<Value = String> {
    let parts = [
        "a",
        "b",
        "k",
        "key",
        "text",
        "é",
        "1",
        "2.5",
        "true",
        ":",
        ": ",
        ":\n",
        ":\n  ",
        " ",
        "  ",
        "    ",
        "\n",
        "\n\n",
        "\n  ",
        "\n    ",
        "- ",
        "-",
        "\n- ",
        "\n  - ",
        "\r\n",
        "\t",
        "#",
        " # c",
        "'",
        "\"",
        "''",
        "\\",
        "\\n",
        "\\\n",
        "[",
        "]",
        "{",
        "}",
        ",",
        ", ",
        "|",
        ">",
        "|-",
        ">-",
        "|+",
        "|2",
        "\n   x",
        "&x ",
        "*x",
        "!t ",
        "!!str ",
        "? ",
        "---",
        "...",
        "%",
        "@",
        "~",
        "a: 1\n",
        "b: x\n",
        "c:\n  d: 1\n",
        "e:\n- 1\n",
        "'q r'",
        "\"q r\"",
        "[1, 2]",
        "{a: 1}",
        "|\n  x\n",
        "x y",
    ];
    proptest::collection::vec(proptest::sample::select(parts.to_vec()), 0..24)
        .prop_map(|parts| parts.concat())
}

/// Whether another reader's idea of a value must be ours: it has nothing that readers differ about.
fn is_plain(value: &node::Value) -> bool {
    match value {
        node::Value::Unresolved(_) | node::Value::Alias(_) | node::Value::Tagged(..) => false,
        node::Value::Sequence(items) => items.iter().all(is_plain),
        node::Value::Mapping(members) => {
            let is_text = |key: &str| {
                !matches!(
                    plain::resolve(key),
                    node::Value::Null | node::Value::Unresolved(_)
                )
            };
            members
                .iter()
                .all(|(key, value)| is_text(key) && is_plain(value))
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_our_reader_takes_another_reader_understands_alike(yaml in soup().prop_map(|yaml| yaml + "\n")) {
        // yaml-rust2 takes a tab for less than the standard does.
        if let (Ok(entries), false) = (reader::read(&yaml), yaml.contains('\t')) {
            let ours = super::meaning_of(&entries);
            let ours = node::Value::Mapping(ours);
            if is_plain(&ours) {
                let theirs = oracle(&yaml).map_err(TestCaseError::fail)?;
                prop_assert_eq!(ours, node::Value::from(&theirs), "{}", yaml);
            }
        }
    }

    #[test]
    fn any_text_is_edited_or_refused(yaml in soup(), key in "a|k|a\\.b|c\\.d|e", value in values()) {
        let text = format!("---\n{yaml}\n---\nBody\n");
        if let Ok(changed) = edited(&text, &[(&key, value)], &["b"]) {
            prop_assert!(changed.ends_with("---\nBody\n"));
        }
        edited(&yaml, &[("a", Value::Null)], &["b"]).ok();
    }
}
