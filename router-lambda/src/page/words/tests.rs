use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// Situations with their sentences.
type Chapter = Vec<(String, String)>;

/// Every code that a failure of an environment can have, the agent's and the router's.
const CODES: [&str; 24] = [
    "repository_unusable",
    "remote_unavailable",
    "remote_refused",
    "node_missing",
    "port_taken",
    "storage",
    "other_environment",
    "install_failed",
    "config_invalid",
    "client_suspended",
    "backend_unavailable",
    "too_slow",
    "not_saved",
    "isolation_broken",
    "clock_wrong",
    "interrupted",
    "internal",
    "launch_throttled",
    "no_capacity",
    "launch_refused",
    "launch_unknown",
    "task_stopped",
    "wake_timeout",
    "environment_lost",
];

/// Every situation, in the order of the document.
fn chapters() -> [(&'static str, Chapter); 6] {
    [
        ("While it wakes", while_it_wakes()),
        ("What it is expected to take", expectations()),
        ("When it does not start", when_it_does_not_start()),
        ("Links and other pages", pages()),
        (ON_THE_PAGE, on_the_page()),
        (PROGRAMS, for_programs()),
    ]
}

const ON_THE_PAGE: &str = "On the page";
const PROGRAMS: &str = "For programs";

fn whole(said: &Said) -> String {
    format!("{}. {}", said.headline, said.words)
}

fn while_it_wakes() -> Chapter {
    let phase = |phase| Standing::Waking { phase };
    let again_in = Duration::from_secs(20);
    [
        (Standing::Asleep, "It sleeps"),
        (phase(None), "It is asked for"),
        (phase(Some(Phase::Config)), "It reads its configuration"),
        (phase(Some(Phase::Claim)), "It takes the session"),
        (phase(Some(Phase::Clone)), "The site is fetched"),
        (phase(Some(Phase::Install)), "Dependencies are put in place"),
        (phase(Some(Phase::Serve)), "The site starts"),
        (Standing::Ready, "It is ready"),
        (Standing::Draining, "It saves everything, to sleep"),
        (Standing::Full { limit: 1 }, "The one slot is taken"),
        (Standing::Full { limit: 3 }, "All slots are taken"),
        (Standing::Suspended, "The client is suspended"),
        (
            Standing::Held { again_in },
            "What answers at its address is not it",
        ),
        (Standing::RecordsDown, "The records cannot be read"),
    ]
    .map(|(standing, situation)| (situation.to_owned(), whole(&waiting(&standing))))
    .into()
}

fn expectations() -> Chapter {
    let seconds = Duration::from_secs;
    let mut chapter = vec![(
        "It was never woken before".to_owned(),
        expectation(None, None),
    )];
    for estimate in [3, 8, 23, 31, 52, 70, 95, 200] {
        chapter.push((
            format!("It took {estimate} seconds before"),
            expectation(Some(seconds(2)), Some(seconds(estimate))),
        ));
    }
    chapter.push((
        "It took half as long before".to_owned(),
        expectation(Some(seconds(61)), Some(seconds(30))),
    ));
    chapter
}

fn when_it_does_not_start() -> Chapter {
    let mut chapter: Chapter = CODES
        .map(|code| (format!("`{code}`"), whole(&why(code))))
        .into();
    for (by_itself, retryable, situation) in [
        (true, true, "… and it is tried again by itself"),
        (false, true, "… and a person may try it again"),
        (false, false, "… and an operator has to do something"),
    ] {
        let sentence = what_next(by_itself, retryable).to_owned();
        chapter.push((situation.to_owned(), sentence));
    }
    chapter
}

fn failure(code: &str, retryable: bool) -> Failure {
    Failure {
        code: code.to_owned(),
        message: "could not clone ssh://git@host/x (500)".to_owned(),
        retryable,
    }
}

fn pages() -> Chapter {
    [
        (LINK, "A link to a preview"),
        (LINK_USED, "The link was used"),
        (LINK_EXPIRED, "The link is too old"),
        (LINK_REFUSED, "The link is forged or cut off"),
        (
            SECOND_SESSION,
            "Another session is open in the same browser",
        ),
        (NOT_FOUND, "Unknown or forbidden"),
        (TOO_LARGE, "Too large for a Lambda, and no gateway"),
    ]
    .map(|(said, situation)| (situation.to_owned(), whole(&said)))
    .into()
}

fn on_the_page() -> Chapter {
    let mut chapter: Chapter = STEPS
        .iter()
        .enumerate()
        .map(|(index, step)| (format!("Step {}", index + 1), (*step).to_owned()))
        .collect();
    let named = [
        ("The list, to a screen reader", STEPS_LABEL.to_owned()),
        ("The bar, to a screen reader", BAR_LABEL.to_owned()),
        ("The button that wakes", WAKE.to_owned()),
        ("The button after a failure", TRY_AGAIN.to_owned()),
        ("The link to the site", OPEN.to_owned()),
        ("The router does not answer the page", OFFLINE.to_owned()),
        ("Under a failure", reference("no_capacity")),
        ("The button of a link", open_site("amelia.example")),
        ("The button that switches", SWITCH.to_owned()),
        ("The link that stays", STAY.to_owned()),
        (
            "Over what cannot be said more exactly",
            UNAVAILABLE.to_owned(),
        ),
    ];
    chapter.extend(named.map(|(situation, words)| (situation.to_owned(), words)));
    chapter
}

fn for_programs() -> Chapter {
    [
        ("A host that nobody here has", MISDIRECTED.to_owned()),
        ("A socket, and no gateway", NO_SOCKETS.to_owned()),
        ("A method that is not taken", wrong_method("GET, HEAD")),
    ]
    .map(|(situation, words)| (situation.to_owned(), words))
    .into()
}

fn document() -> String {
    let mut text = "# What a visitor reads while there is no preview\n\n\
        The router says this: before the agent of a session answers, and where there is none. What the agent says is in\n\
        [owners.md](owners.md). Made from `router-lambda/src/page/words.rs` by its test: change the words there, and run\n\
        `UPDATE_WORDS=1 cargo test -p router-lambda --lib words`.\n"
        .to_owned();
    for (heading, chapter) in chapters() {
        writeln!(
            text,
            "\n## {heading}\n\n| situation | sentence |\n|---|---|"
        )
        .expect("text");
        for (situation, sentence) in chapter {
            writeln!(text, "| {situation} | {sentence} |").expect("text");
        }
    }
    text
}

#[test]
fn the_table_of_sentences_is_the_one_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/waiting.md");
    if std::env::var_os("UPDATE_WORDS").is_some() {
        std::fs::write(&file, document()).expect("written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == document(),
        "docs/waiting.md is out of date: run `UPDATE_WORDS=1 cargo test -p router-lambda --lib words` and commit it"
    );
}

#[test]
fn no_sentence_speaks_of_how_the_site_is_made() {
    const FORBIDDEN: [&str; 23] = [
        "git",
        "clone",
        "branch",
        "repository",
        "remote",
        "container",
        "task",
        "capacity",
        "session",
        "slot",
        "lease",
        "record",
        "records",
        "table",
        "code",
        "error",
        "http",
        "server",
        "router",
        "gateway",
        "agent",
        "install",
        "dependencies",
    ];
    let for_people = chapters().into_iter().filter(|(name, _)| *name != PROGRAMS);
    for (situation, sentence) in for_people.flat_map(|(_, chapter)| chapter) {
        let sentence = sentence.to_lowercase();
        let words: Vec<&str> = sentence
            .split(|character: char| !character.is_alphanumeric() && !"’_".contains(character))
            .collect();
        for forbidden in FORBIDDEN {
            assert!(
                !words.contains(&forbidden),
                "{situation}: {sentence} ({forbidden})"
            );
        }
    }
}

#[test]
fn every_sentence_is_one() {
    let sentences = chapters()
        .into_iter()
        .filter(|(heading, _)| *heading != ON_THE_PAGE);
    for (situation, sentence) in sentences.flat_map(|(_, chapter)| chapter) {
        let begins = sentence.chars().next().is_some_and(char::is_uppercase);
        assert!(
            begins && sentence.ends_with('.') && !sentence.contains("  "),
            "{situation}: {sentence}"
        );
    }
}

#[test]
fn nobody_is_told_to_wait_for_what_will_not_happen() {
    for code in CODES {
        let failure = failure(code, false);
        let for_good = waiting(&Standing::Failed {
            failure: &failure,
            again_in: None,
        });
        assert!(!for_good.words.contains("try"), "{code}: {for_good:?}");
        assert!(
            !for_good.words.contains(&failure.message),
            "{code}: {for_good:?}"
        );
    }
}
