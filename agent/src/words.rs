//! Every sentence that an owner can read, in one place: the bar's, the waiting page's, and what became of an
//! instruction. `docs/owners.md` shows them all.
//!
//! An owner has a website and has never heard of how it is made. So a sentence says what happened to which page, and what
//! they can do; never by which means. What a developer wants to know stands beside it, in `error.message`.

use std::collections::BTreeSet;

use contract::{Conflict, ErrorCode, InstructionId, Party, Receipt, Status, Timestamp, Verdict};
use serde::Serialize;

use crate::site::route;

/// Said where the site broke off while it was asked.
pub(crate) const SITE_WENT_AWAY: &str =
    "The site went away for a moment. Please load the page again.";
/// Said where the site gave no answer.
pub(crate) const SITE_DID_NOT_ANSWER: &str =
    "The site did not answer. Please load the page again in a moment.";
/// Over what the site's own tools say of a problem. An owner never gets to see it.
pub(crate) const WAITING_DETAILS: &str = "For developers";
/// Why nothing can be published while somebody works on the files.
const PUBLISH_BLOCKED: &str =
    "Somebody is working on the site by hand. It can be published once that work is saved.";

/// What a visitor waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The environment gets ready.
    Preparing,
    /// The site is fetched.
    Fetching,
    /// What the site is built from is put in place for the first time.
    Installing,
    /// The site answers soon.
    Opening,
    /// What the site is built from changed, and is put in place.
    Reinstalling,
    /// The site does not start.
    Broken,
    /// The environment stops.
    Closing,
}

/// The headline and the sentence of the waiting page.
pub(crate) fn waiting(what: Waiting) -> (&'static str, &'static str) {
    const STARTING: &str = "The preview is starting";
    const BLOCKS: &str = "Putting the site’s building blocks in place.";
    match what {
        Waiting::Preparing => (STARTING, "Getting ready."),
        Waiting::Fetching => (STARTING, "Fetching the site."),
        Waiting::Installing => (
            STARTING,
            "Putting the site’s building blocks in place. The first time takes a little longer.",
        ),
        Waiting::Opening => (STARTING, "Opening the first page."),
        Waiting::Reinstalling => ("The preview is coming back", BLOCKS),
        Waiting::Broken => (
            "The site does not start",
            "It can still be edited, and comes up as soon as it is mended.",
        ),
        Waiting::Closing => ("The preview is closing", "Everything is being saved."),
    }
}

/// What is in the way of publishing, if work by hand is.
pub(crate) fn publish_blocked(uncommitted: &[String]) -> Option<&'static str> {
    (!uncommitted.is_empty()).then_some(PUBLISH_BLOCKED)
}

/// What was asked for. Every sentence that depends on it says something of each, so that a new one cannot be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Edit,
    Prompt,
    Undo,
    Publish,
    Discard,
    Sync,
    Commit,
    Cancel,
    /// Pushed by somebody, or not known: a change.
    Other,
}

impl Kind {
    /// By its word of [`contract::Action::KINDS`].
    fn of(action: Option<&str>) -> Self {
        match action {
            Some("edit") => Self::Edit,
            Some("prompt") => Self::Prompt,
            Some("undo") => Self::Undo,
            Some("publish") => Self::Publish,
            Some("discard") => Self::Discard,
            Some("sync") => Self::Sync,
            Some("commit") => Self::Commit,
            Some("cancel") => Self::Cancel,
            _ => Self::Other,
        }
    }
}

/// What became of an instruction, or becomes of it now. `action` is its word of [`contract::Action::KINDS`], if known.
pub(crate) fn outcome(receipt: &Receipt, action: Option<&str>) -> String {
    let kind = Kind::of(action);
    match receipt.status {
        Status::Accepted => match kind {
            Kind::Publish => "Publishing waits for its turn.",
            Kind::Undo => "Taking the change back waits for its turn.",
            Kind::Sync => "Bringing in what was published elsewhere waits for its turn.",
            Kind::Discard => "Discarding the changes waits for its turn.",
            Kind::Commit => "Saving the work done by hand waits for its turn.",
            Kind::Cancel => "Cancelling waits for its turn.",
            Kind::Edit | Kind::Prompt | Kind::Other => "The change waits for its turn.",
        }
        .to_owned(),
        Status::Running => match kind {
            Kind::Publish => "The changes are being published.",
            Kind::Undo => "The change is being taken back.",
            Kind::Sync => "What was published elsewhere is being brought in.",
            Kind::Discard => "The changes are being discarded.",
            Kind::Commit => "The work done by hand is being saved.",
            Kind::Cancel => "What waits is being cancelled.",
            Kind::Edit | Kind::Prompt | Kind::Other => "The change is being made.",
        }
        .to_owned(),
        Status::Applied => "It can be seen already, and is being saved.".to_owned(),
        Status::Pushed => with_verdict(receipt, action),
        Status::Published => done(Some("publish"), &receipt.files_changed),
        Status::Cancelled if kind == Kind::Cancel => "What was waiting is cancelled.".to_owned(),
        Status::Cancelled => "It was cancelled before it began. Nothing was changed.".to_owned(),
        Status::Interrupted => {
            "The preview was closed before this was done. Please ask for it again.".to_owned()
        }
        Status::Rejected | Status::Failed => match &receipt.error {
            Some(error) => refused(error.code, &error.conflicts, receipt, kind),
            None if receipt.status == Status::Rejected => {
                "This cannot be done. Nothing was changed.".to_owned()
            }
            None => "This did not work. Please look at the page as it is now, and try it again."
                .to_owned(),
        },
    }
}

/// What an instruction did that is done.
pub(crate) fn done(action: Option<&str>, files: &[String]) -> String {
    match Kind::of(action) {
        Kind::Publish => "The changes are published: everybody can see them.".to_owned(),
        Kind::Sync => "What was published elsewhere is in your draft now.".to_owned(),
        Kind::Discard => {
            "The changes were discarded: your draft is as the published site.".to_owned()
        }
        Kind::Cancel => "What was waiting is cancelled.".to_owned(),
        Kind::Undo => match places(files) {
            Some((what, _)) => format!("A change was taken back: {what}."),
            None => "A change was taken back.".to_owned(),
        },
        Kind::Commit => match places(files) {
            Some((what, _)) => format!("Work done by hand was saved: {what}."),
            None => "Work done by hand was saved.".to_owned(),
        },
        Kind::Edit | Kind::Prompt | Kind::Other => match places(files) {
            Some((what, 1)) => format!("{} was changed.", capital(&what)),
            Some((what, _)) => format!("{} were changed.", capital(&what)),
            None => "The change was made.".to_owned(),
        },
    }
}

/// What an undo did that took out of the draft what was published elsewhere.
pub(crate) fn taken_out(files: &[String]) -> String {
    const OUT: &str = "What was published elsewhere was taken out of your draft again";
    match places(files) {
        Some((what, _)) => format!("{OUT}: {what}."),
        None => format!("{OUT}."),
    }
}

/// The pages that an instruction changed: those whose own files it changed; and where it changed what pages are made
/// of, those that were looked at and show. What publishes, discards or brings in is no change of anybody's to a page.
pub(crate) fn live_pages(receipt: &Receipt, action: Option<&str>) -> Vec<String> {
    let mut pages = own_pages(&receipt.files_changed, action);
    if is_seen_elsewhere(&receipt.files_changed, action) {
        let shown = receipt
            .pages
            .iter()
            .filter(|page| page.problem.is_none() && (200..300).contains(&page.status));
        for page in shown {
            if !pages.contains(&page.path) {
                pages.push(page.path.clone());
            }
        }
    }
    pages
}

/// The pages that an instruction with these files changed for certain.
pub(crate) fn own_pages(files: &[String], action: Option<&str>) -> Vec<String> {
    if changes_pages(action) {
        pages_of(files)
    } else {
        Vec::new()
    }
}

/// Whether an instruction with these files is seen on other pages than those that the files make by themselves.
pub(crate) fn is_seen_elsewhere(files: &[String], action: Option<&str>) -> bool {
    let shared = |file: &String| route::of(file).and_then(|route| route.page()).is_none();
    changes_pages(action) && files.iter().any(shared)
}

fn changes_pages(action: Option<&str>) -> bool {
    match Kind::of(action) {
        Kind::Publish | Kind::Discard | Kind::Sync | Kind::Cancel => false,
        Kind::Edit | Kind::Prompt | Kind::Undo | Kind::Commit | Kind::Other => true,
    }
}

/// The pages that files make by themselves, such as `/about/`.
pub(crate) fn pages_of(files: &[String]) -> Vec<String> {
    files
        .iter()
        .filter_map(|file| route::of(file)?.page())
        .collect()
}

fn with_verdict(receipt: &Receipt, action: Option<&str>) -> String {
    let done = done(action, &receipt.files_changed);
    match receipt.verdict {
        None | Some(Verdict::Sound) => done,
        Some(Verdict::Repaired) => format!("{done} With it, the site shows properly again."),
        Some(Verdict::StillBroken) => format!(
            "{done} {} still does not show, as before.",
            capital(&broken_page(receipt))
        ),
        Some(Verdict::Breaks) => {
            format!("{done} But {} does not show with it.", broken_page(receipt))
        }
    }
}

/// The page that does not show: one with a problem, if that is known. A page that is not there need not be broken: after
/// it got another name, it rightly is not.
fn broken_page(receipt: &Receipt) -> String {
    let pages = || receipt.pages.iter();
    let looked_at = pages()
        .find(|page| page.problem.is_some())
        .or_else(|| pages().find(|page| page.status >= 500 || page.status == 0))
        .map(|page| page_name(&page.path));
    let changed = || {
        let pages = pages_of(&receipt.files_changed);
        pages.first().map(|page| page_name(page))
    };
    looked_at
        .or_else(changed)
        .unwrap_or_else(|| "a page".to_owned())
}

/// Why there is no preview, by the code in the session's record.
pub(crate) fn no_environment(code: &str) -> &'static str {
    match code {
        "remote_unavailable" => {
            "The place where your site is kept does not answer. Please try again in a few minutes."
        }
        "remote_refused" => {
            "The place where your site is kept does not let us in. Please ask whoever set up your preview."
        }
        "repository_unusable" => {
            "Your site could not be found where it is kept. Please ask whoever set up your preview."
        }
        "install_failed" => {
            "The parts that your site is built from could not be fetched. Please try again, and ask a developer if it stays like this."
        }
        "config_invalid" => "Your preview is not set up rightly. Please ask whoever set it up.",
        "client_suspended" => {
            "Previews of this site are switched off. Please ask whoever set them up."
        }
        "too_slow" => "Your preview took too long to start. Please try again.",
        "interrupted" => "Your preview was stopped before it was ready. Please try again.",
        "other_environment" => "Your preview is being started already. Please wait a moment.",
        _ => "Something went wrong on our side while your preview was started. Please try again.",
    }
}

fn refused(code: ErrorCode, conflicts: &[Conflict], receipt: &Receipt, kind: Kind) -> String {
    match code {
        ErrorCode::InvalidMessage | ErrorCode::UnsupportedVersion => {
            "The request was not understood. Nothing was changed."
        }
        ErrorCode::MessageTooLarge => "The request is too large. Please split it into smaller ones.",
        ErrorCode::UnsupportedAction => "This cannot be done here yet. Nothing was changed.",
        ErrorCode::IdReused => "This was asked before in another way. Please ask again.",
        ErrorCode::WrongClient => "This was meant for another website. Nothing was changed.",
        ErrorCode::WrongSession => "This was meant for another draft. Nothing was changed.",
        ErrorCode::PathNotAllowed | ErrorCode::PolicyDenied | ErrorCode::UnsupportedFile => {
            "This part of the site cannot be changed from here. Please ask a developer."
        }
        ErrorCode::FileNotFound => {
            "What was to be changed is not there any more. Please look at the page as it is now."
        }
        ErrorCode::FileExists => "There is something with this name already. Please choose another name.",
        ErrorCode::FindNotFound | ErrorCode::Stale | ErrorCode::PatchFailed => {
            return match named(conflicts) {
                Some(who) => format!("{who} Please look at it and ask again."),
                None => "The text has changed meanwhile. Please look at the page as it is now and ask again.".to_owned(),
            };
        }
        ErrorCode::FindCount => "The text stands in several places. Please say more exactly which one is meant.",
        ErrorCode::NotText => "This is no text, and cannot be changed as one.",
        ErrorCode::FrontmatterInvalid => "The details at the head of this text are damaged. Please ask a developer to mend them.",
        ErrorCode::EmptyChange => match kind {
            Kind::Publish => "There is nothing to publish: everything is published already.",
            Kind::Sync => "There is nothing to bring in: your draft has everything.",
            Kind::Discard => "There is nothing to discard: your draft is as the published site.",
            Kind::Commit => "There is nothing to save: nobody has worked on the site by hand.",
            Kind::Undo => "Nothing had to be taken back: the site is as it was before that change.",
            Kind::Edit | Kind::Prompt | Kind::Cancel | Kind::Other => "Nothing had to be changed: the site says so already.",
        },
        ErrorCode::LimitExceeded => "This is too much at once. Please split it into smaller requests.",
        ErrorCode::ContentUnavailable => "A picture or file could not be fetched. Please send it again.",
        ErrorCode::UncommittedChanges => match kind {
            Kind::Publish => PUBLISH_BLOCKED,
            Kind::Edit | Kind::Prompt | Kind::Undo | Kind::Discard | Kind::Sync | Kind::Commit | Kind::Cancel | Kind::Other => "Somebody is working on this part of the site by hand. Please ask again when that work is saved.",
        },
        ErrorCode::Conflict => {
            return match named(conflicts) {
                Some(who) => format!("{who} The two changes do not go together; please look at it and ask again."),
                None => "Somebody else changed the same place. Please look at the page as it is now and ask again.".to_owned(),
            };
        }
        ErrorCode::PageBroken => return page_broken(&broken_page(receipt), kind),
        ErrorCode::BuildFailed => "The site could not be put together for publishing. The published site is as it was.",
        ErrorCode::UnknownInstruction => "This change is not part of your draft.",
        ErrorCode::AlreadyUndone => "This change has been taken back already.",
        ErrorCode::UndoOverlaps => {
            return match named(conflicts) {
                Some(who) => format!("A later change is in the way. {who} {}", way_out(conflicts)),
                None => "A later change of the same place is in the way. Please take that one back first.".to_owned(),
            };
        }
        ErrorCode::TooLate => "It was too late to call this off: it is done already. You can take it back.",
        ErrorCode::NothingToUndo => "There is nothing to take back.",
        ErrorCode::BranchMissing => "The published site could not be found. Please ask a developer.",
        ErrorCode::PushRejected => match kind {
            Kind::Publish => "Publishing is not allowed from here. Please ask a developer.",
            Kind::Commit => "The work done by hand could not be saved: it is not allowed from here. Please ask a developer.",
            Kind::Edit | Kind::Prompt | Kind::Undo | Kind::Discard | Kind::Sync | Kind::Cancel | Kind::Other => "The change could not be saved: it is not allowed from here. Please ask a developer.",
        },
        ErrorCode::RemoteUnavailable => "The place where your site is kept does not answer. Please try again later.",
        ErrorCode::DiskFull => "There is no room left to save the change. Please ask a developer.",
        ErrorCode::SessionExpired => "This draft was closed before the change was begun. Please ask again.",
        ErrorCode::Internal => "Something went wrong on our side. Please look at the page as it is now, and try it again.",
    }
    .to_owned()
}

/// What became of what would leave a page that does not show.
fn page_broken(page: &str, kind: Kind) -> String {
    match kind {
        Kind::Edit | Kind::Prompt | Kind::Cancel | Kind::Other => format!(
            "With this change, {page} would not show any more. The change was taken back; the site is as it was."
        ),
        Kind::Undo => format!(
            "Without that change, {page} would not show any more. The change stays; the site is as it was."
        ),
        Kind::Publish => format!(
            "{} does not show, so nothing was published. The published site and your draft are as they were.",
            capital(page)
        ),
        Kind::Discard => format!(
            "Without your changes, {page} would not show any more. Nothing was discarded; your draft is as it was."
        ),
        Kind::Sync => format!(
            "With what was published elsewhere, {page} would not show any more. It was not brought in; your draft is as it was."
        ),
        Kind::Commit => format!(
            "With the work done by hand, {page} does not show. The work stays where it is, but it was not saved."
        ),
    }
}

/// What can be done about the later changes that are in the way of taking one back.
fn way_out(conflicts: &[Conflict]) -> &'static str {
    let ids: Option<BTreeSet<&InstructionId>> = conflicts
        .iter()
        .map(|conflict| conflict.ours.as_ref()?.instruction_id.as_ref())
        .collect();
    match ids.map(|ids| ids.len()) {
        Some(1) => "You can take back both.",
        Some(_) => "You can take back all of them.",
        // What was not asked for here cannot be taken back here.
        None => "Please ask for what should be there instead.",
    }
}

/// Who changed what, and when: one sentence for the first conflict, and how many more there are.
fn named(conflicts: &[Conflict]) -> Option<String> {
    let (conflict, who) = conflicts
        .iter()
        .find_map(|conflict| Some((conflict, party(conflict)?)))?;
    let more = match conflicts.len() - 1 {
        0 => String::new(),
        1 => ", and one more place is concerned".to_owned(),
        more => format!(", and {more} more places are concerned"),
    };
    Some(format!(
        "{} changed {} {}{more}.",
        who.name,
        place(&conflict.path),
        when(who.at)
    ))
}

/// The other side, for whoever reads it: what was published, or the later change of the draft.
fn party(conflict: &Conflict) -> Option<&Party> {
    conflict.theirs.as_ref().or(conflict.ours.as_ref())
}

/// A moment: `on 22 November 2026 at 09:30 (UTC)`. The server does not know where the reader is.
fn when(at: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let text = at.to_string();
    let number = |range: std::ops::Range<usize>| -> usize {
        text.get(range)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(1)
    };
    let month = MONTHS.get(number(5..7) - 1).unwrap_or(&MONTHS[0]);
    let (year, time) = (number(0..4), text.get(11..16).unwrap_or_default());
    format!("on {} {month} {year} at {time} (UTC)", number(8..10))
}

/// The places that files are, in a few words, and how many; none where there are no files.
fn places(files: &[String]) -> Option<(String, usize)> {
    let words = match files {
        [] => return None,
        [one] => place(one),
        [one, two] => format!("{} and {}", place(one), place(two)),
        _ => "several parts of the site".to_owned(),
    };
    Some((words, files.len()))
}

/// What a file is to an owner.
fn place(file: &str) -> String {
    if let Some(page) = route::of(file).and_then(|route| route.page()) {
        return page_name(&page);
    }
    let name = file.rsplit('/').next().unwrap_or(file);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let extension = extension.to_ascii_lowercase();
    let kind = match extension.as_str() {
        "jpg" | "jpeg" | "png" | "gif" | "webp" | "avif" | "svg" | "ico" => "the picture",
        "css" | "scss" | "sass" | "less" => "the style",
        "md" | "mdx" | "markdown" | "json" | "yaml" | "yml" | "toml" | "txt" => "the text",
        _ => "the part",
    };
    format!("{kind} “{stem}”")
}

fn page_name(path: &str) -> String {
    match path {
        "/" => BAR.home_page.to_owned(),
        path => BAR.page.replace("{path}", path),
    }
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

/// The bar's words. `{n}`, `{page}` and the like are filled in by its script; of a pair, the first is for exactly one.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BarWords {
    /// The language they are in, for whoever reads them out, and for times.
    language: &'static str,
    title: &'static str,
    opens: &'static str,
    close: &'static str,
    connecting: &'static str,
    offline: &'static str,
    starting: &'static str,
    broken: &'static str,
    waiting: &'static str,
    working: &'static str,
    all_published: &'static str,
    unpublished: [&'static str; 2],
    live: &'static str,
    see: &'static str,
    home_page: &'static str,
    page: &'static str,
    publish: [&'static str; 2],
    publish_none: &'static str,
    publish_ask: [&'static str; 2],
    publish_explain: &'static str,
    publish_yes: &'static str,
    publish_no: &'static str,
    behind: [&'static str; 2],
    sync: &'static str,
    discard: &'static str,
    discard_ask: [&'static str; 2],
    discard_explain: &'static str,
    discard_yes: &'static str,
    discard_no: &'static str,
    history: &'static str,
    history_empty: &'static str,
    undo: &'static str,
    undo_of: &'static str,
    undo_both: &'static str,
    undo_all: &'static str,
    undone: &'static str,
    published: &'static str,
    just_now: &'static str,
    ask: &'static str,
    ask_example: &'static str,
    send: &'static str,
    sending: &'static str,
    not_taken: &'static str,
    not_json: &'static str,
    busy: &'static str,
}

/// The bar's words.
pub(crate) const BAR: BarWords = BarWords {
    language: "en",
    title: "Your draft",
    opens: "Show your draft",
    close: "Close",
    connecting: "Connecting…",
    offline: "The preview does not answer. Trying again…",
    starting: "The preview is getting ready…",
    broken: "The site does not show at the moment",
    waiting: "A change waits for its turn…",
    working: "A change is being made…",
    all_published: "Everything is published",
    unpublished: [
        "1 change is not published yet",
        "{n} changes are not published yet",
    ],
    live: "Your change is live on this page.",
    see: "See it on {page}",
    home_page: "the home page",
    page: "the page {path}",
    publish: ["Publish 1 change", "Publish {n} changes"],
    publish_none: "Nothing to publish",
    publish_ask: ["Publish this change?", "Publish these {n} changes?"],
    publish_explain: "Everybody who visits your site will see it.",
    publish_yes: "Publish now",
    publish_no: "Not yet",
    behind: [
        "1 change was published elsewhere, and is not in your draft.",
        "{n} changes were published elsewhere, and are not in your draft.",
    ],
    sync: "Bring in",
    discard: "Discard all",
    discard_ask: ["Discard this change?", "Discard these {n} changes?"],
    discard_explain: "Your draft becomes as the published site. This can be undone.",
    discard_yes: "Discard",
    discard_no: "Keep",
    history: "Last changes",
    history_empty: "Nothing has been changed yet.",
    undo: "Undo",
    undo_of: "Undo: {what}",
    undo_both: "Undo both",
    undo_all: "Undo all {n}",
    undone: "Undone",
    published: "Published",
    just_now: "just now",
    ask: "What should be changed?",
    ask_example: "Make the headline shorter",
    send: "Send",
    sending: "Sending…",
    not_taken: "This could not be taken on. Please try it again.",
    not_json: "This begins like a structured request, but is none.",
    busy: "Too much is waiting already. Please try it again in a moment.",
};

#[cfg(test)]
mod tests;
