//! The function: one program for everything that AWS asks of the router, and one loop that tells the askers apart.
//!
//! ```text
//!   load balancer ──▶ event ─┬─ requestContext.elb ──▶ alb ─▶ Router ─┬─ an answer ───────────────────────▶ alb ─▶ JSON
//!   intake queue  ──▶        │                                        └─ a door ─▶ forward ─▶ fit (gzip) ─▶
//!   schedule      ──▶        ├─ Records from SQS ──▶ TakesIn ─▶ which of them failed
//!                            ├─ aws.events, or {"sweep": true} ─▶ Sweeps
//!                            └─ anything else ─▶ an error that says what came
//! ```
//!
//! Events are read from their bytes, here: the library that makes requests of them reorders a query, writes `?raw` as
//! `?raw=`, and panics on a `Host` that is none.
//!
//! Where there is a gateway, no byte of a site comes this way: a load balancer sends the function entry links, wakes and
//! whatever else the router answers itself. Where there is none, the function forwards to the door, as far as one can be used
//! without a socket, without a stream, and in 1 MB.

use std::time::{Duration, SystemTime};

use contract::Timestamp;
use http::{Method, StatusCode};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use telemetry::Embedded;
use tokio::time::Instant;

use crate::assembly::Assembly;
use crate::gateway::access::shown_path;
use crate::intake::Record;
use crate::page::{self, Form};
use crate::router::{Outcome, Told};

pub mod alb;
mod fit;
mod forward;
mod vite;

use alb::{AlbRequest, AlbResponse, Refused, Unfit};
use forward::Forwarder;

/// How long before AWS ends an invocation it has to be answered. What AWS ends is a 502, and starts the function anew.
const DEADLINE_MARGIN: Duration = Duration::from_secs(1);
/// The longest that anything waits: a load balancer gives up after 60 s by default.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(55);
/// What a visitor is told after that.
const TOO_SLOW: &str = "The site took too long to answer. Load the page again.";
/// What an operator is told who sent a page here that belongs to the gateway.
const WRONG_TARGET: &str = "The load balancer sent this request to the wrong target: the pages of a site are the gateway's. \
    Point the rule for this host at the gateway's target group.";
/// Keys of an unknown event that are named in the error.
const KEYS_NAMED_MAX: usize = 8;
/// Records of one event. SQS sends at most ten of a FIFO queue.
const RECORDS_MAX: usize = 10_000;

/// What the function is made of.
#[derive(Debug, Clone)]
pub struct Front {
    /// The rooms of the router.
    pub rooms: Assembly,
    /// Whether it asks doors itself: where there is no gateway.
    pub forwards: bool,
    /// Where numbers are written, after every invocation: between two of them there may be days.
    pub embedded: Option<Embedded>,
}

/// Serves until the process is ended. Everything that can be opened beforehand has been by now: this asks for the first event,
/// and with that the time that a visitor waits begins.
pub async fn serve(front: Front) -> Result<(), Error> {
    let function = &Function::new(front);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        let deadline = deadline(event.context.deadline(), SystemTime::now());
        let answer = function
            .answer(event.payload.get().as_bytes(), deadline)
            .await?;
        Ok::<_, Error>(RawValue::from_string(answer)?)
    }))
    .await
}

/// How long an invocation may still take. Nobody invokes for a time that is over: an emulator says for how long it may take where
/// AWS says until when.
fn deadline(ends: SystemTime, now: SystemTime) -> Duration {
    match ends.duration_since(now) {
        Ok(left) => left.saturating_sub(DEADLINE_MARGIN).min(ANSWER_TIME_MAX),
        Err(_) => ANSWER_TIME_MAX,
    }
}

/// The function, from the bytes of an event to those of its answer.
#[derive(Debug)]
pub struct Function {
    front: Front,
    forwarder: Forwarder,
}

impl Function {
    /// Connects to nothing yet.
    pub fn new(front: Front) -> Self {
        Self {
            front,
            forwarder: Forwarder::new(),
        }
    }

    /// Answers an event within that time. An error is an event that is not for us: AWS counts it, and sends a message again.
    pub async fn answer(&self, event: &[u8], time: Duration) -> Result<String, UnknownEvent> {
        let rooms = &self.front.rooms;
        let answer = match Event::of(event)? {
            Event::Request => self.request(event, time).await,
            Event::Messages(records) => {
                let failed = rooms.intake.take(records, Timestamp::now()).await;
                let failed: Vec<_> = failed
                    .iter()
                    .map(|id| json!({ "itemIdentifier": id }))
                    .collect();
                json!({ "batchItemFailures": failed }).to_string()
            }
            Event::Sweep => {
                rooms.sweep.once(Timestamp::now()).await;
                "{}".to_owned()
            }
        };
        // Once this is answered the process is frozen, and whatever still runs in it.
        rooms.waker.settle().await;
        if let Some(embedded) = &self.front.embedded {
            rooms.metrics.write(embedded, Timestamp::now());
        }
        Ok(answer)
    }

    async fn request(&self, event: &[u8], time: Duration) -> String {
        let began = Instant::now();
        let request = match AlbRequest::parse(event) {
            Ok(request) => request,
            Err(Refused { multi_value, why }) => {
                tracing::info!(%why, "a request was refused");
                return small(why.status(), "This request cannot be read.", multi_value);
            }
        };
        if request.is_health_check() {
            return small(StatusCode::OK, "The router is here.", request.multi_value);
        }
        let router = &self.front.rooms.router;
        let (response, told) = match router.handle(&request.head(), Timestamp::now()).await {
            Outcome::Answer(mut response) => {
                let told = response
                    .extensions_mut()
                    .remove::<Told>()
                    .unwrap_or_default();
                (response, told)
            }
            Outcome::Forward(forward) => {
                let of_the_site = Told {
                    client: Some(forward.client.clone()),
                    session: Some(forward.session.redacted().to_owned()),
                    why: "site",
                };
                if self.front.forwards {
                    let asked = self.forwarder.forward(router, &request, &forward);
                    let answered = tokio::time::timeout_at(began + time, asked).await;
                    let mut response = answered
                        .unwrap_or_else(|_| page::refused(StatusCode::GATEWAY_TIMEOUT, TOO_SLOW));
                    let told = response
                        .extensions_mut()
                        .remove::<Told>()
                        .unwrap_or(of_the_site);
                    (response, told)
                } else {
                    let why = "wrong_target";
                    let response = page::refused(StatusCode::SERVICE_UNAVAILABLE, WRONG_TARGET);
                    (response, Told { why, ..of_the_site })
                }
            }
        };
        let status = response.status();
        let answer =
            fit::fitted(response, &request).unwrap_or_else(|unfit| told_unfit(&unfit, &request));
        note(&request, status, &told, answer.len(), began.elapsed());
        answer
    }
}

/// The line of a request: what an operator has to know, and neither query nor cookie nor the id in an entry.
fn note(request: &AlbRequest, status: StatusCode, told: &Told, bytes: usize, took: Duration) {
    let path = shown_path(&request.path);
    let Told {
        client,
        session,
        why,
    } = told;
    tracing::info!(
        client = client.as_ref().map(tracing::field::display),
        session,
        method = %request.method,
        path,
        status = status.as_u16(),
        why,
        bytes,
        ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "a request was answered"
    );
}

/// An answer that no load balancer passes on, put into words that it does.
fn told_unfit(unfit: &Unfit, request: &AlbRequest) -> String {
    tracing::warn!(%unfit, "an answer does not pass the load balancer");
    let response = match unfit {
        Unfit::TooLarge { .. } => page::too_large(None, Form::of(&request.headers)),
        Unfit::HeadTooLarge { .. } => page::refused(
            StatusCode::BAD_GATEWAY,
            "The site answered with too many header fields.",
        ),
    };
    AlbResponse::of(&response, request.multi_value)
        .expect("a sentence passes")
        .into_json()
}

fn small(status: StatusCode, words: &str, multi_value: bool) -> String {
    AlbResponse::of(&page::refused(status, words), multi_value)
        .expect("a sentence passes")
        .into_json()
}

/// Whether a request asks only to see.
fn reads(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// What AWS wants.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A visitor's request; it is read by [`AlbRequest::parse`].
    Request,
    /// Messages of the intake queue.
    Messages(Vec<Record>),
    /// That it is time to sweep.
    Sweep,
}

/// An event of which nobody knows what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownEvent {
    /// It is something else.
    #[error(
        "the event is none of a load balancer, of SQS or of a schedule: {0}. \
         Subscribe this function to those only; {{\"sweep\":true}} makes it sweep"
    )]
    Unknown(String),
    /// A message that is not as SQS sends them.
    #[error("the records of the event are not as SQS sends them: {0}")]
    Records(String),
}

#[derive(Deserialize)]
struct Shape<'e> {
    #[serde(rename = "requestContext", default, borrow)]
    request_context: Option<&'e RawValue>,
    #[serde(rename = "Records", default, borrow)]
    records: Option<&'e RawValue>,
    #[serde(default, borrow)]
    source: Option<&'e RawValue>,
    #[serde(default)]
    sweep: Option<bool>,
}

impl Event {
    fn of(event: &[u8]) -> Result<Self, UnknownEvent> {
        let unknown = || UnknownEvent::Unknown(outline(event));
        let shape: Shape<'_> = serde_json::from_slice(event).map_err(|_| unknown())?;
        if let Some(context) = shape.request_context {
            #[derive(Deserialize)]
            struct Context {
                #[serde(default)]
                elb: Option<serde::de::IgnoredAny>,
            }
            let context: Context = serde_json::from_str(context.get()).map_err(|_| unknown())?;
            return context.elb.map(|_| Event::Request).ok_or_else(unknown);
        }
        if let Some(records) = shape.records {
            return Ok(Event::Messages(messages(records.get())?));
        }
        let scheduled = shape
            .source
            .is_some_and(|source| source.get() == "\"aws.events\"");
        if scheduled || shape.sweep == Some(true) {
            return Ok(Event::Sweep);
        }
        Err(unknown())
    }
}

/// What an event looks like, without what it says.
fn outline(event: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(event) {
        Ok(serde_json::Value::Object(object)) => {
            let short = |key: &String| {
                key.chars()
                    .take(40)
                    .collect::<String>()
                    .escape_debug()
                    .to_string()
            };
            let keys: Vec<_> = object.keys().take(KEYS_NAMED_MAX).map(short).collect();
            let more = if object.len() > keys.len() {
                ", …"
            } else {
                ""
            };
            format!("an object with the keys {}{more}", keys.join(", "))
        }
        Ok(serde_json::Value::Array(list)) => format!("a list of {}", list.len()),
        Ok(_) => "a single value".to_owned(),
        Err(_) => format!("{} bytes that are not JSON", event.len()),
    }
}

/// The messages of an event, in their order.
fn messages(records: &str) -> Result<Vec<Record>, UnknownEvent> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Told {
        event_source: String,
        message_id: String,
        body: String,
        #[serde(default)]
        attributes: Attributes,
        #[serde(default)]
        message_attributes: std::collections::BTreeMap<String, Attribute>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Attributes {
        message_group_id: Option<String>,
        approximate_receive_count: Option<String>,
        sent_timestamp: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Attribute {
        #[serde(default)]
        string_value: Option<String>,
    }
    let wrong = |why: &str| UnknownEvent::Records(why.to_owned());
    // The library's own words repeat the message.
    let told: Vec<Told> = serde_json::from_str(records).map_err(|error| {
        UnknownEvent::Records(format!("{:?} at byte {}", error.classify(), error.column()))
    })?;
    if told.len() > RECORDS_MAX {
        return Err(wrong("there are more than 10,000"));
    }
    if told.iter().any(|record| record.event_source != "aws:sqs") {
        return Err(wrong("some are of another service"));
    }
    let record = |mut told: Told| Record {
        message_id: told.message_id,
        body: told.body,
        group: told.attributes.message_group_id.unwrap_or_default(),
        receive_count: told
            .attributes
            .approximate_receive_count
            .and_then(|count| count.parse().ok())
            .unwrap_or(1),
        sent_at: told
            .attributes
            .sent_timestamp
            .and_then(|at| at.parse().ok())
            .map_or_else(Timestamp::now, Timestamp::from_unix_ms),
        trace_parent: told
            .message_attributes
            .remove("traceparent")
            .and_then(|attribute| attribute.string_value),
    };
    Ok(told.into_iter().map(record).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(event: &str) -> Result<Event, UnknownEvent> {
        Event::of(event.as_bytes())
    }

    #[test]
    fn askers_are_told_apart() {
        assert_eq!(
            of(r#"{"requestContext":{"elb":{"targetGroupArn":"a"}},"httpMethod":"GET"}"#),
            Ok(Event::Request)
        );
        assert_eq!(of(r#"{"Records":[]}"#), Ok(Event::Messages(vec![])));
        assert_eq!(
            of(r#"{"version":"0","source":"aws.events","detail-type":"Scheduled Event"}"#),
            Ok(Event::Sweep)
        );
        assert_eq!(of(r#"{"sweep":true}"#), Ok(Event::Sweep));
        for other in [
            r#"{"sweep":false}"#,
            r#"{"source":"aws.s3"}"#,
            r#"{"requestContext":{"http":{"method":"GET"}}}"#,
            r#"{"requestContext":null,"source":"mine"}"#,
            "[]",
            "null",
            "{",
            "",
        ] {
            assert!(
                matches!(of(other), Err(UnknownEvent::Unknown(_))),
                "{other}"
            );
        }
        for other in [
            r#"{"Records":[{"eventSource":"aws:s3","messageId":"1","body":""}]}"#,
            r#"{"Records":[{"eventSource":"aws:sqs"}]}"#,
            r#"{"Records":{}}"#,
        ] {
            assert!(
                matches!(of(other), Err(UnknownEvent::Records(_))),
                "{other}"
            );
        }
    }

    #[test]
    fn what_came_is_said_without_what_it_says() {
        let wrong = of(
            r#"{"version":"2.0","requestContext":{"http":{}},"cookies":["secret"],"headers":{"authorization":"secret"}}"#,
        );
        insta::assert_snapshot!(wrong.expect_err("it is unknown"), @r#"the event is none of a load balancer, of SQS or of a schedule: an object with the keys cookies, headers, requestContext, version. Subscribe this function to those only; {"sweep":true} makes it sweep"#);
        let wrong =
            of(r#"{"Records":[{"eventSource":"aws:sqs","messageId":"1","body":{"secret":1}}]}"#);
        insta::assert_snapshot!(wrong.expect_err("it is unknown"), @"the records of the event are not as SQS sends them: Data at byte 49");
    }

    /// As AWS documents it.
    #[test]
    fn messages_are_read_with_what_is_known_of_them() {
        let event = r#"{"Records":[{
            "messageId":"11d6ee51-4cc7-4302-9e22-7cd8afdaadf5","receiptHandle":"AQEBBX8nesZEXmkhsmZeyIE8iQAMig7qw...","body":"{\"a\":1}",
            "attributes":{"ApproximateReceiveCount":"3","SentTimestamp":"1573251510774","SequenceNumber":"18849496460467696128",
                "MessageGroupId":"amelia/mail-1","SenderId":"AIDAIO23YVJENQZJOL4VO","MessageDeduplicationId":"1","ApproximateFirstReceiveTimestamp":"1573251510774"},
            "messageAttributes":{"traceparent":{"stringValue":"00-trace-01","dataType":"String","stringListValues":[],"binaryListValues":[]}},
            "md5OfBody":"e4e68fb7bd0e697a0ae8f1bb342846b3","eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:us-east-2:123456789012:fifo.fifo","awsRegion":"us-east-2"},
            {"messageId":"2","body":"b","eventSource":"aws:sqs"}]}"#;
        let Ok(Event::Messages(records)) = of(event) else {
            panic!("they are messages");
        };
        assert_eq!(
            records[0],
            Record {
                message_id: "11d6ee51-4cc7-4302-9e22-7cd8afdaadf5".to_owned(),
                body: r#"{"a":1}"#.to_owned(),
                group: "amelia/mail-1".to_owned(),
                receive_count: 3,
                sent_at: Timestamp::from_unix_ms(1_573_251_510_774),
                trace_parent: Some("00-trace-01".to_owned()),
            }
        );
        assert_eq!(
            (records[1].message_id.as_str(), records[1].receive_count),
            ("2", 1)
        );
    }

    #[test]
    fn an_invocation_is_answered_before_it_is_ended() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let left = |seconds: u64| deadline(now + Duration::from_secs(seconds), now).as_secs();
        assert_eq!([left(10), left(900), left(1)], [9, 55, 0]);
        // An emulator says for how long instead of until when.
        assert_eq!(
            deadline(SystemTime::UNIX_EPOCH + Duration::from_secs(600), now),
            ANSWER_TIME_MAX
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_one_of_them_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,300}") {
            drop(Event::of(&bytes));
            drop(Event::of(text.as_bytes()));
            drop(Event::of(format!(r#"{{"Records":[{{"eventSource":"aws:sqs","messageId":{text:?},"body":{text:?},"attributes":{{"SentTimestamp":{text:?}}}}}]}}"#).as_bytes()));
        }
    }
}
