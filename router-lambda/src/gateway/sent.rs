//! What is sent to a visitor, from its first byte to its end: counted, and written down when it has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use relay::BoxError;

use super::access::{End, Record};
use super::turn::Turn;

/// Where the bytes come from.
pub(super) enum Source {
    /// From us.
    Own(Full<Bytes>),
    /// From a door.
    Door(relay::Body),
}

/// The body of an answer.
pub(super) struct Sent {
    source: Source,
    record: Record,
    turn: Arc<Turn>,
    status: StatusCode,
    bytes: u64,
    ended: bool,
    broken: bool,
}

impl Sent {
    /// An answer that is about to be sent.
    pub(super) fn response(
        response: Response<Source>,
        record: Record,
        turn: Arc<Turn>,
    ) -> Response<Self> {
        let status = response.status();
        let asks_for_head = record.asks_for_head();
        response.map(|source| Self {
            source,
            record,
            turn,
            status,
            bytes: 0,
            // Of an answer without a body nothing is asked for.
            ended: asks_for_head,
            broken: false,
        })
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.source {
            Source::Own(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Source::Door(body) => Pin::new(body).poll_frame(context),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(
                    error = &**error as &dyn std::error::Error,
                    "a door broke off"
                );
                self.broken = true;
            }
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_end_stream(),
            Source::Door(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => body.size_hint(),
            Source::Door(body) => body.size_hint(),
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let end = if self.broken {
            End::Broken
        } else if self.ended || self.is_end_stream() {
            End::Whole
        } else {
            End::Left
        };
        self.record.write(self.status, self.bytes, end);
        self.turn.answered();
    }
}
