//! Hears what is logged, and makes lines of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::format::Line;
use super::{Format, Output};
use crate::chain;

/// Under this name stands what the site prints.
const SITE: &str = "site";
/// Lines of the site that are logged in one [`WINDOW`]. It prints a line for every page it makes; a site in trouble prints
/// thousands, and each costs its operator money. All of it is in the agent's status all the same.
const SITE_LINES_PER_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// The layer.
#[derive(Debug)]
pub(crate) struct Lines {
    format: Format,
    output: Output,
    /// What every line says: whose environment this process is. Tasks are in no span of each other's.
    everywhere: Arc<Mutex<Vec<(&'static str, Value)>>>,
    site: Mutex<Limiter>,
}

impl Lines {
    pub(crate) fn new(format: Format, output: Output, everywhere: Everywhere) -> Self {
        Self {
            format,
            output,
            everywhere: everywhere.0,
            site: Mutex::default(),
        }
    }
}

/// What every line says. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Everywhere(Arc<Mutex<Vec<(&'static str, Value)>>>);

impl Everywhere {
    /// From now on every line says this as well.
    pub fn say(&self, name: &'static str, value: impl Into<Value>) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|(known, _)| *known != name);
        said.push((name, value.into()));
    }
}

/// The line of what was not logged.
pub(crate) fn left_out(format: Format, lines: u64) -> String {
    render(
        format,
        &Line {
            at: Timestamp::now(),
            level: "WARN",
            target: module_path!(),
            fields: vec![("message", Value::from(counted(lines)))],
        },
    )
}

fn counted(lines: u64) -> String {
    if lines == 1 {
        "1 line was left out".to_owned()
    } else {
        format!("{lines} lines were left out")
    }
}

fn render(format: Format, line: &Line<'_>) -> String {
    match format {
        Format::Json => line.json(),
        Format::Text => line.text(),
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let chatter = metadata.target() == SITE && *metadata.level() > Level::WARN;
        let judgement = {
            let mut site = self.site.lock().unwrap_or_else(PoisonError::into_inner);
            site.judge(chatter, Instant::now())
        };
        let line = |level, target, fields| Line {
            at: Timestamp::now(),
            level,
            target,
            fields,
        };
        if judgement.left_out > 0 {
            let words = Value::from(counted(judgement.left_out));
            let told = line("WARN", SITE, vec![("message", words)]);
            self.output.line(render(self.format, &told));
        }
        if !judgement.logged {
            return;
        }
        let everywhere = self
            .everywhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut fields = Fields(everywhere.clone());
        drop(everywhere);
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(Scope::from_root)
        {
            if let Some(known) = span.extensions().get::<Fields>() {
                fields.0.extend(known.0.iter().cloned());
            }
        }
        event.record(&mut fields);
        let line = line(metadata.level().as_str(), metadata.target(), fields.0);
        self.output.line(render(self.format, &line));
    }
}

/// What was said under which name.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn say(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.say(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.say(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.say(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.say(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.say(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.say(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.say(field, chain(value));
    }
}

/// How much the site may say. Pure.
#[derive(Debug, Default)]
struct Limiter {
    window: Option<(Instant, u32)>,
    left_out: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Judgement {
    logged: bool,
    /// Lines of earlier windows that were not logged, told once.
    left_out: u64,
}

impl Limiter {
    /// Judges a line that is the site's chatter, or is not: then it only tells what was left out.
    fn judge(&mut self, chatter: bool, now: Instant) -> Judgement {
        let open = self
            .window
            .is_some_and(|(began, _)| now.saturating_duration_since(began) < WINDOW);
        let left_out = if open {
            0
        } else {
            self.window = None;
            std::mem::take(&mut self.left_out)
        };
        if !chatter {
            return Judgement {
                logged: true,
                left_out,
            };
        }
        let (_, count) = self.window.get_or_insert((now, 0));
        let logged = *count < SITE_LINES_PER_WINDOW;
        if logged {
            *count += 1;
        } else {
            self.left_out += 1;
        }
        Judgement { logged, left_out }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::kept::Kept;

    /// What is written while something logs.
    fn logged(format: Format, log: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let (output, writing) = Output::start(kept.clone(), |lines| lines.to_string());
        let subscriber =
            Registry::default().with(Lines::new(format, output, Everywhere::default()));
        tracing::subscriber::with_default(subscriber, log);
        assert!(writing.finish(Duration::from_secs(10)));
        kept.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_event_carries_what_its_spans_know() {
        let lines = logged(Format::Json, || {
            let session = tracing::info_span!(
                "session",
                clientId = "amelia",
                session_id = "amelia_h7777777777777777777777777",
                phase = tracing::field::Empty
            );
            let _session = session.enter();
            session.record("phase", "serve");
            let instruction =
                tracing::info_span!("instruction", instruction_id = %"m-1", token = "hunter2");
            let error = std::io::Error::other("no \"room\"");
            instruction.in_scope(|| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    attempts = 2,
                    "it did not work"
                );
            });
            tracing::info!("and on");
        });
        let read: Vec<Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let mut first = read[0].clone();
        let at = first["timestamp"].take();
        assert!(
            at.as_str()
                .is_some_and(|at| at.parse::<Timestamp>().is_ok())
        );
        insta::assert_snapshot!(first.to_string(), @r#"{"attempts":2,"clientId":"amelia","error":"no \"room\"","instructionId":"m-1","level":"WARN","message":"it did not work","phase":"serve","sessionId":"h7777777","target":"telemetry::layer::tests","timestamp":null,"token":"…"}"#);
        assert_eq!(read[1]["phase"], "serve");
        assert!(read[1].get("instructionId").is_none(), "{}", read[1]);
    }

    #[test]
    fn a_site_that_floods_the_log_is_cut_and_counted() {
        let lines = logged(Format::Text, || {
            for number in 0..500 {
                tracing::debug!(target: "site", "line {number}");
            }
            tracing::warn!(target: "site", "the site ended");
            tracing::info!("ours");
        });
        let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
        assert!((20..500).contains(&count("site: line ")), "{}", lines.len());
        assert_eq!((count("site: the site ended"), count("ours")), (1, 1));
    }

    #[test]
    fn what_was_left_out_is_told_once_by_whatever_is_logged_next() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        let logged = (0..500).filter(|_| limiter.judge(true, now).logged).count();
        assert_eq!(logged, 20);
        let judged = |limiter: &mut Limiter, chatter, after| {
            let Judgement { logged, left_out } = limiter.judge(chatter, now + after);
            (logged, left_out)
        };
        assert_eq!(judged(&mut limiter, false, WINDOW / 2), (true, 0));
        assert_eq!(judged(&mut limiter, false, WINDOW), (true, 480));
        assert_eq!(judged(&mut limiter, true, WINDOW), (true, 0));
    }
}
