//! `/_edit/*`: how the environment is, what happens in it, and what it should do.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Path, RawQuery, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use contract::{InstructionId, Receipt, Timestamp};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::intake::Declined;
use super::{Door, Stage};
use crate::activity::Moment;
use crate::events::{Event, Numbered};
use crate::idle::{self, Facts};
use crate::kinds::Kinds;
use crate::pipeline::{INSTRUCTION_TIME_MAX, PipelineView};
use crate::words;

/// The pipeline comes round at least every 20 s, unless an instruction runs: that is bounded by [`INSTRUCTION_TIME_MAX`].
const PROGRESS_MAX: Duration = Duration::from_secs(60);
/// Bytes of one call that posts instructions. A single instruction is limited further by the contract.
const CALL_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a larger call that are read and forgotten: who is still writing when the connection is closed never reads
/// why. Beyond that it is cut off.
const CALL_FORGOTTEN_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Lines of the site's output in the status.
const OUTPUT_LINES: usize = 20;

/// 200 while every loop makes progress.
pub(super) async fn health(State(door): State<Arc<Door>>) -> Response {
    let stuck = {
        let view = door.pipeline.borrow();
        let elapsed = view.progressed.map(|at| at.elapsed());
        elapsed.is_some_and(|elapsed| is_stuck(elapsed, view.running.is_some()))
    };
    // It looks every few seconds, and asks the queue and the record between, which both have a time of their own.
    let lost = door
        .life
        .elapsed()
        .is_some_and(|elapsed| elapsed > PROGRESS_MAX);
    let word = |stuck: bool| if stuck { "stuck" } else { "ok" };
    let healthy = !stuck && !lost;
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer(
        status,
        json!({ "healthy": healthy, "pipeline": word(stuck), "life": word(lost) }),
    )
}

/// Whether the pipeline has not come round for longer than it may take.
fn is_stuck(elapsed: Duration, running: bool) -> bool {
    let limit = if running {
        INSTRUCTION_TIME_MAX
    } else {
        PROGRESS_MAX
    };
    elapsed > limit
}

/// 200 while the environment serves.
pub(super) async fn ready(State(door): State<Arc<Door>>) -> Response {
    let ready = matches!(&*door.stage.borrow(), Stage::Serving { .. });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer(status, json!({ "ready": ready }))
}

/// Everything at a glance.
pub(super) async fn status(State(door): State<Arc<Door>>) -> Response {
    let identity = &door.intake.identity;
    let stage = door.stage.borrow().clone();
    let pipeline = door.pipeline.borrow().clone();
    let mut revision = None;
    let (state_word, phase, site) = match &stage {
        Stage::Starting { phase } => ("waking", Some(*phase), Value::Null),
        Stage::Serving { site } => {
            let view = site.view();
            revision = Some(site.revision());
            let site = json!({ "state": view.state, "health": view.health(), "problem": view.problem, "output": site.output(OUTPUT_LINES) });
            ("ready", None, site)
        }
        Stage::Draining => ("draining", None, Value::Null),
    };
    let queued = door.intake.queue.depth().await.ok();
    let queued = queued.map(|depth| depth.waiting);
    let last = door.activity.last();
    let last_activity = last.activity().map(|moment| moment.at);
    let facts = Facts::of(Moment::now(), last, &pipeline, queued.unwrap_or(0));
    let awake = idle::reasons(&facts, door.idle.as_ref());
    let awake_because = awake.first().map(|reason| reason.because.to_string());
    answer(
        StatusCode::OK,
        json!({
            "clientId": identity.client_id,
            "sessionId": identity.session_id,
            "threadId": identity.thread_id,
            "mode": if door.developer { "dev" } else { "cloud" },
            "state": state_word,
            "phase": phase,
            "site": site,
            // A page that no socket reaches compares them with the time at which it was asked for, by the same clock.
            "revision": revision,
            "at": Timestamp::now(),
            "draft": { "branch": identity.branch, "tip": pipeline.tip, "unpushed": pipeline.unpushed },
            "uncommitted": pipeline.uncommitted,
            "isolation": door.isolation.get(),
            "running": pipeline.running,
            "queued": queued,
            "previewUrl": identity.preview_url,
            "lastActivityAt": last_activity,
            "awake": awake,
            "awakeBecause": awake_because,
        }),
    )
}

/// Where the numbers of this agent's events begin on the wire: at the time in milliseconds. A listener of an agent that
/// ran here before comes back by itself with the last number it saw, and has to get everything that is new; and no
/// agent has a thousand events a second for long.
static EVENTS_BEGIN: LazyLock<u64> = LazyLock::new(|| {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
});

/// What happens, as it happens. `Last-Event-ID` gets what was missed; so does `?after=`, for a page that was loaded again
/// and cannot say it in a header.
pub(super) async fn events(
    State(door): State<Arc<Door>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> impl IntoResponse {
    let after = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .or_else(|| query.as_deref()?.strip_prefix("after="))
        .map(|id| {
            id.parse()
                .map_or(0, |id: u64| id.saturating_sub(*EVENTS_BEGIN))
        });
    let closing = door.closing.clone().cancelled_owned();
    let stream = event_stream(&door, after).take_until(closing);
    (
        [(header::CACHE_CONTROL, "no-store")],
        Sse::new(stream).keep_alive(KeepAlive::default()),
    )
}

fn event_stream(
    door: &Door,
    after: Option<u64>,
) -> impl Stream<Item = Result<sse::Event, Infallible>> + use<> {
    let (missed, live) = door.events.subscribe(after);
    let (events, speaker) = (door.events.clone(), Speaker::of(door));
    let state = (
        missed
            .into_iter()
            .collect::<std::collections::VecDeque<_>>(),
        live,
        after.unwrap_or(0),
    );
    stream::unfold(state, move |(mut missed, mut live, mut last)| {
        let (events, speaker) = (events.clone(), speaker.clone());
        async move {
            loop {
                if let Some(next) = missed.pop_front() {
                    last = next.id;
                    return Some((Ok(sse_event(&next, &speaker)), (missed, live, last)));
                }
                match live.recv().await {
                    Ok(next) if next.id > last => missed.push_back(next),
                    Ok(_) => {}
                    // It was too slow for the channel; what it missed is still kept.
                    Err(RecvError::Lagged(_)) => {
                        let (again, receiver) = events.subscribe(Some(last));
                        missed.extend(again);
                        live = receiver;
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    })
}

/// Says what receipts mean, in an owner's words.
#[derive(Clone)]
struct Speaker {
    kinds: Kinds,
    pipeline: watch::Receiver<PipelineView>,
}

/// An event or a receipt, with what it means to an owner.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spoken<'a, T: Serialize> {
    #[serde(flatten)]
    record: &'a T,
    sentence: String,
    /// The pages that it changed.
    live_pages: Vec<String>,
}

impl Speaker {
    fn of(door: &Door) -> Self {
        Self {
            kinds: door.intake.kinds.clone(),
            pipeline: door.pipeline.clone(),
        }
    }

    fn spoken<'a, T: Serialize>(&self, record: &'a T, receipt: &Receipt) -> Spoken<'a, T> {
        let id = &receipt.instruction_id;
        let landed = || {
            let history = Arc::clone(&self.pipeline.borrow().history);
            let mut entries = history.entries.iter();
            entries
                .find(|entry| entry.instruction_id == *id)
                .map(|entry| entry.action)
        };
        let action = self.kinds.of(id).or_else(landed);
        Spoken {
            record,
            sentence: words::outcome(receipt, action),
            live_pages: words::live_pages(receipt, action),
        }
    }
}

fn sse_event(numbered: &Numbered, speaker: &Speaker) -> sse::Event {
    let event = &*numbered.event;
    let data = match event {
        Event::Progress { receipt } | Event::Receipt { receipt } => {
            serde_json::to_string(&speaker.spoken(event, receipt))
        }
        _ => serde_json::to_string(event),
    };
    let data = data.expect("an event is JSON");
    sse::Event::default()
        .id((*EVENTS_BEGIN + numbered.id).to_string())
        .event(numbered.event.name())
        .data(data)
}

/// Takes an instruction or an array of them.
pub(super) async fn instructions(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if matches!(&*door.stage.borrow(), Stage::Draining) {
        return errors(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            &[(
                "$",
                "the environment is stopping; send it again when it runs",
            )],
        );
    }
    let body = match whole_call(&headers, body).await {
        Ok(body) => body,
        Err(status) => {
            let (code, words) = match status {
                StatusCode::PAYLOAD_TOO_LARGE => ("message_too_large", "a call has at most 8 MiB"),
                _ => ("invalid_message", "the call broke off"),
            };
            return errors(status, code, &[("$", words)]);
        }
    };
    match door.intake.accept(&body).await {
        Ok(ids) => answer(StatusCode::ACCEPTED, json!({ "instructionIds": ids })),
        Err(Declined::Invalid { code, problems }) => answer(
            StatusCode::UNPROCESSABLE_ENTITY,
            json!({ "code": code, "errors": problems }),
        ),
        Err(Declined::Full { waiting }) => errors(
            StatusCode::TOO_MANY_REQUESTS,
            "limit_exceeded",
            &[(
                "$",
                &format!("{waiting} instructions wait already; send it again when some are done"),
            )],
        ),
        Err(Declined::Unavailable(error)) => {
            tracing::error!(error = %crate::chain(&error), "instructions could not be accepted");
            errors(
                StatusCode::SERVICE_UNAVAILABLE,
                "internal",
                &[("$", "the queue does not answer; send it again")],
            )
        }
    }
}

async fn whole_call(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, StatusCode> {
    // Who asks first has not begun to write.
    if body.size_hint().lower() > u64::try_from(CALL_MAX_BYTES).unwrap_or(u64::MAX)
        && headers.contains_key(header::EXPECT)
    {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut chunks = body.into_data_stream();
    let (mut call, mut length) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| StatusCode::BAD_REQUEST)?;
        length += chunk.len();
        if length <= CALL_MAX_BYTES {
            call.extend_from_slice(&chunk);
        } else if length > CALL_FORGOTTEN_MAX_BYTES {
            break;
        } else {
            call = Vec::new();
        }
    }
    if length <= CALL_MAX_BYTES {
        Ok(call)
    } else {
        Err(StatusCode::PAYLOAD_TOO_LARGE)
    }
}

/// The receipt of an instruction, and what it means to an owner.
pub(super) async fn receipt(State(door): State<Arc<Door>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<InstructionId>() else {
        return errors(
            StatusCode::NOT_FOUND,
            "not_found",
            &[("$", "that is no instruction id")],
        );
    };
    match door.intake.receipt(&id).await {
        Ok(Some(receipt)) => {
            let spoken = Speaker::of(&door).spoken(&receipt, &receipt);
            answer(StatusCode::OK, json!(spoken))
        }
        Ok(None) => errors(
            StatusCode::NOT_FOUND,
            "not_found",
            &[("$", "no instruction with this id has been accepted here")],
        ),
        Err(error) => {
            tracing::error!(error = %crate::chain(&error), "a receipt could not be read");
            errors(
                StatusCode::SERVICE_UNAVAILABLE,
                "internal",
                &[("$", "the receipts do not answer; ask again")],
            )
        }
    }
}

/// Nothing else is here.
pub(super) async fn unknown() -> Response {
    errors(
        StatusCode::NOT_FOUND,
        "not_found",
        &[("$", "there is nothing at this address")],
    )
}

fn errors(status: StatusCode, code: &str, problems: &[(&str, &str)]) -> Response {
    let errors: Vec<Value> = problems
        .iter()
        .map(|(path, message)| json!({ "path": path, "message": message }))
        .collect();
    answer(status, json!({ "code": code, "errors": errors }))
}

pub(super) fn answer(status: StatusCode, body: Value) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_that_is_built_for_ten_minutes_is_not_stuck() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert!(!is_stuck(minutes(15), true));
        assert!(is_stuck(INSTRUCTION_TIME_MAX + minutes(1), true));
        assert!(is_stuck(minutes(15), false));
    }
}
