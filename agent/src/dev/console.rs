//! What the developer sees: phases with their times while it starts, then one line an instruction.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use contract::{Receipt, Status};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events::{Event, Events, Numbered, PhaseName, PhaseState};
use crate::site::SiteProblem;

/// Files changed by hand that are named when it has stopped.
const FILES_NAMED: usize = 10;

/// The developer's screen. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Console {
    /// A bar on a terminal; hidden elsewhere.
    bar: ProgressBar,
    json: bool,
    finishing: CancellationToken,
    suggestion: Arc<OnceLock<String>>,
}

/// Shows how far a transfer is.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// So many of so many.
    pub(super) fn set(&self, done: usize, all: usize) {
        self.bar.set_length(u64::try_from(all).unwrap_or(u64::MAX));
        self.bar
            .set_position(u64::try_from(done).unwrap_or(u64::MAX));
    }
}

impl Console {
    /// Begins to show what happens: for people on stderr, for programs (`json`) on stdout.
    pub(super) fn start(json: bool, events: &Events, tasks: &mut JoinSet<()>) -> Self {
        let terminal = std::io::stderr().is_terminal() && !json;
        let bar = if terminal {
            ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("  {spinner} {msg:10} {wide_bar} {elapsed:>5}")
            .expect("a constant template")
            .progress_chars("━╸ ");
        bar.set_style(style);
        let console = Self {
            bar,
            json,
            finishing: CancellationToken::new(),
            suggestion: Arc::default(),
        };
        tasks.spawn(console.clone().show(events.clone()));
        console
    }

    /// A line for people.
    pub(super) fn say(&self, words: &str) {
        if !self.json {
            self.line(words);
        }
    }

    /// Shows a transfer.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            bar: self.bar.clone(),
        }
    }

    /// The phase that was under way failed.
    pub(super) fn phase_failed(events: &Events) {
        let (all, _) = events.subscribe(Some(0));
        let open = all
            .iter()
            .rev()
            .find_map(|numbered| match &*numbered.event {
                Event::Phase { phase, state, .. } => Some((*phase, *state)),
                _ => None,
            });
        if let Some((phase, PhaseState::Started)) = open {
            events.publish(Event::Phase {
                phase,
                state: PhaseState::Failed,
                ms: None,
                detail: None,
            });
        }
    }

    /// What the developer might send first; shown with the preview's address.
    pub(super) fn suggest(&self, suggestion: &str) {
        self.suggestion.set(suggestion.to_owned()).ok();
    }

    /// Shows what is left to show, and ends.
    pub(super) async fn finish(&self, tasks: &mut JoinSet<()>) {
        self.finishing.cancel();
        while tasks.join_next().await.is_some() {}
        self.bar.finish_and_clear();
    }

    async fn show(self, events: Events) {
        let (missed, mut live) = events.subscribe(Some(0));
        for numbered in missed {
            self.event(&numbered);
        }
        loop {
            tokio::select! {
                // What has happened is shown before the end.
                biased;
                numbered = live.recv() => match numbered {
                    Ok(numbered) => self.event(&numbered),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => self.say(&format!("({missed} events were too quick to show)")),
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
                () = self.finishing.cancelled() => return,
            }
        }
    }

    fn event(&self, numbered: &Numbered) {
        if self.json {
            if matches!(
                &*numbered.event,
                Event::Phase { .. }
                    | Event::Ready { .. }
                    | Event::Receipt { .. }
                    | Event::Stopped { .. }
            ) {
                let line = serde_json::to_string(&*numbered.event).expect("an event is JSON");
                // Whoever read it is gone; the environment is not.
                writeln!(std::io::stdout(), "{line}").ok();
            }
            return;
        }
        match &*numbered.event {
            Event::Phase {
                phase,
                state: PhaseState::Started,
                ..
            } => {
                self.bar.reset();
                self.bar.set_length(0);
                self.bar.set_message(phase_words(*phase));
                self.bar.enable_steady_tick(Duration::from_millis(120));
                if self.bar.is_hidden() {
                    self.line(&format!("  · {}", phase_words(*phase)));
                }
            }
            Event::Phase {
                phase,
                state: PhaseState::Done,
                ms,
                detail,
            } => {
                let seconds = Duration::from_millis(ms.unwrap_or_default()).as_secs_f64();
                let detail = detail
                    .as_deref()
                    .map(|detail| format!("   {detail}"))
                    .unwrap_or_default();
                self.bar.disable_steady_tick();
                self.line(&format!(
                    "  ✓ {:10} {seconds:6.1} s{detail}",
                    phase_words(*phase)
                ));
                if *phase == PhaseName::Serve {
                    self.bar.finish_and_clear();
                }
            }
            Event::Phase {
                phase,
                state: PhaseState::Failed,
                ..
            } => {
                self.bar.finish_and_clear();
                self.line(&format!("  ✗ {}", phase_words(*phase)));
            }
            Event::Receipt { receipt } => self.line(&receipt_line(receipt)),
            Event::Site {
                problem: Some(problem),
                ..
            } => self.line(&problem_line(problem)),
            Event::Stopped {
                commit,
                unpushed,
                queued,
                uncommitted,
            } => {
                self.line(&stopped_line(commit.as_deref(), *unpushed, *queued));
                if let Some(line) = by_hand_line(uncommitted) {
                    self.line(&line);
                }
            }
            Event::Ready {
                preview_url,
                draft_branch,
                remote,
                ..
            } => {
                let suggestion = self
                    .suggestion
                    .get()
                    .map(String::as_str)
                    .unwrap_or_default();
                self.line(&format!(
                    "\n  Preview  {preview_url}\n  Draft    {draft_branch} in {remote}\n  Try      {suggestion}\n  Stop     Ctrl-C\n"
                ));
            }
            Event::Site { .. } | Event::Progress { .. } | Event::Draft { .. } => {}
        }
    }

    fn line(&self, line: &str) {
        self.bar.suspend(|| {
            // Nobody is left to tell if stderr is gone.
            writeln!(std::io::stderr(), "{line}").ok();
        });
    }
}

fn phase_words(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Config => "configure",
        PhaseName::Claim => "claim",
        PhaseName::Clone => "clone",
        PhaseName::Install => "install",
        PhaseName::Serve => "serve",
    }
}

/// What is wrong with the site, and where.
fn problem_line(problem: &SiteProblem) -> String {
    let place = match (&problem.file, problem.line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        _ => String::new(),
    };
    let first = problem.message.lines().next().unwrap_or_default();
    format!("  ! the site: {first}{place}")
}

/// Where everything is when it has stopped.
fn stopped_line(commit: Option<&str>, unpushed: usize, queued: u64) -> String {
    let commit = commit.map_or_else(String::new, |commit| {
        format!(" at {}", &commit[..commit.len().min(10)])
    });
    let left = match (unpushed, queued) {
        (0, 0) => "Everything is pushed.".to_owned(),
        (0, queued) => {
            format!("Everything is pushed; {queued} instructions wait for the next start.")
        }
        (unpushed, queued) => format!(
            "{unpushed} commits could not be pushed and are kept in the workspace; {queued} instructions wait. They go on at the next start."
        ),
    };
    format!("Stopped{commit}. {left}")
}

/// What lies in the workspace and nowhere else, if anything does.
fn by_hand_line(uncommitted: &[String]) -> Option<String> {
    let (number, files) = match uncommitted.len() {
        0 => return None,
        1 => (1, "file"),
        number => (number, "files"),
    };
    let mut named: Vec<String> = uncommitted
        .iter()
        .take(FILES_NAMED)
        // Anybody may have named them; a terminal obeys what is no text.
        .map(|path| path.chars().filter(|c| !c.is_control()).collect())
        .collect();
    if let Some(more) = number.checked_sub(FILES_NAMED).filter(|more| *more > 0) {
        named.push(format!("and {more} more"));
    }
    let are = if number == 1 { "is" } else { "are" };
    Some(format!(
        "{number} {files} changed by hand {are} in the workspace, uncommitted: {}",
        named.join(", ")
    ))
}

/// One line an instruction.
pub(crate) fn receipt_line(receipt: &Receipt) -> String {
    let sign = if receipt.status.landed() {
        "✓"
    } else {
        "✗"
    };
    let id: String = receipt.instruction_id.as_str().chars().take(40).collect();
    match (&receipt.status, &receipt.commit, &receipt.error) {
        (Status::Pushed | Status::Published, Some(commit), _) => {
            let ms = receipt.timings.total_ms.unwrap_or_default();
            format!(
                "  {sign} {id}  {}  {} ({ms} ms)",
                &commit.as_str()[..10],
                receipt.summary
            )
        }
        (status, _, Some(error)) => format!(
            "  {sign} {id}  {}: {}  {}",
            status.as_str(),
            error.code.as_str(),
            error.message
        ),
        (status, _, None) => format!("  {sign} {id}  {}  {}", status.as_str(), receipt.summary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_by_hand_is_named_when_it_stops() {
        let named = |number: usize| {
            let files: Vec<String> = (1..=number).map(|n| format!("{n}.md\u{1b}")).collect();
            by_hand_line(&files)
        };
        assert_eq!(named(0), None);
        assert_eq!(
            named(1).as_deref(),
            Some("1 file changed by hand is in the workspace, uncommitted: 1.md")
        );
        assert_eq!(
            named(2).as_deref(),
            Some("2 files changed by hand are in the workspace, uncommitted: 1.md, 2.md")
        );
        assert!(named(12).is_some_and(|line| line.ends_with("10.md, and 2 more")));
    }
}
