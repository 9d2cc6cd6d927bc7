//! The few requests a producer makes of a door.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Door;
use crate::failure::{Exit, Failure};

/// How long an answer may take. What takes long is followed by events, not by waiting for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Talks to one door.
#[derive(Debug)]
pub(crate) struct Wire {
    authority: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    /// The body, if the status is the expected one.
    pub(crate) fn expect_status(self, status: u16) -> Result<Value, Failure> {
        if self.status == status {
            Ok(self.body)
        } else {
            Err(Failure::new(
                Exit::NoEnvironment,
                format!(
                    "what answers there is no edit environment (status {})",
                    self.status
                ),
                "Name the environment with --url.",
            ))
        }
    }
}

impl Wire {
    pub(crate) fn new(door: &Door) -> Self {
        Self {
            authority: door.authority.clone(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Listens to what happens, from event `after` on if that is known, else from now on.
    pub(super) async fn events(&self, after: Option<u64>) -> Result<Stream, Failure> {
        let mut driver = JoinSet::new();
        let mut sender = self.connect(&mut driver).await?;
        let mut request = Request::get("/_edit/events")
            .header("host", &self.authority)
            .header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        let request = request
            .body(Full::default())
            .map_err(|error| Failure::internal("ask for events", &error))?;
        let response = tokio::time::timeout(ANSWER_TIME_MAX, sender.send_request(request))
            .await
            .map_err(|_| self.silent())?
            .map_err(|error| self.lost(&error))?;
        if response.status() != 200 {
            return Err(Failure::new(
                Exit::NoEnvironment,
                format!(
                    "{} answers {} when asked for events",
                    self.authority,
                    response.status()
                ),
                "Name the environment with --url.",
            ));
        }
        Ok(Stream {
            response,
            buffer: Vec::new(),
            _sender: sender,
            _driver: driver,
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let asked = async {
            let mut driver = JoinSet::new();
            let mut sender = self.connect(&mut driver).await?;
            let bytes = body
                .map(|body| Bytes::from(body.to_string()))
                .unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", &self.authority)
                .header("content-type", "application/json")
                .body(Full::new(bytes));
            let request =
                request.map_err(|error| Failure::internal("ask the environment", &error))?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| self.lost(&error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES)
                .collect()
                .await;
            let body = body
                .map_err(|error| {
                    Failure::new(
                        Exit::NoEnvironment,
                        format!("{} broke off its answer: {error}", self.authority),
                        "",
                    )
                })?
                .to_bytes();
            Ok(Answer {
                status,
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            })
        };
        tokio::time::timeout(ANSWER_TIME_MAX, asked)
            .await
            .map_err(|_| self.silent())?
    }

    async fn connect(&self, driver: &mut JoinSet<()>) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| {
            Failure::new(
                Exit::NoEnvironment,
                format!("no edit environment answers on {}: {error}", self.authority),
                "Start one with `edit-agent dev REPO`.",
            )
        })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.lost(&error))?;
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the environment ended");
            }
        });
        Ok(sender)
    }

    fn silent(&self) -> Failure {
        Failure::new(
            Exit::NoEnvironment,
            format!(
                "{} did not answer within {} s",
                self.authority,
                ANSWER_TIME_MAX.as_secs()
            ),
            "Look at what the environment says, or start it again.",
        )
    }

    fn lost(&self, error: &hyper::Error) -> Failure {
        Failure::new(
            Exit::NoEnvironment,
            format!("{} broke off: {error}", self.authority),
            "Look at what the environment says, or start it again.",
        )
    }
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: Option<u64>,
    pub(super) data: String,
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Stream {
    response: Response<Incoming>,
    buffer: Vec<u8>,
    _sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Stream {
    /// The next event; none once the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = take_event(&mut self.buffer) {
                return Some(event);
            }
            let frame = self.response.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// Takes the first whole event out of the buffer. Events without data are pings.
fn take_event(buffer: &mut Vec<u8>) -> Option<Event> {
    loop {
        let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let block: Vec<u8> = buffer.drain(..end + 2).collect();
        let mut event = Event::default();
        for line in String::from_utf8_lossy(&block).lines() {
            if let Some(data) = line.strip_prefix("data: ") {
                event.data.push_str(data);
            } else if let Some(id) = line.strip_prefix("id: ") {
                event.id = id.parse().ok();
            }
        }
        if !event.data.is_empty() {
            return Some(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole_and_pings_passed_over() {
        let mut buffer = b": ping\n\nid: 7\nevent: receipt\ndata: {\"a\":1}\n\nid: 8\nda".to_vec();
        assert_eq!(
            take_event(&mut buffer),
            Some(Event {
                id: Some(7),
                data: "{\"a\":1}".to_owned()
            })
        );
        assert_eq!(take_event(&mut buffer), None);
        assert_eq!(buffer, b"id: 8\nda");
    }
}
