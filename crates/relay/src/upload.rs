//! A request's body on its way to the upstream: limited, and watched, so that a timeout can tell who was waited for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use tokio::time::Instant;

use crate::BoxError;
use crate::head::BodySize;

/// The body that the client of the upstream is given.
pub(crate) struct Upload {
    body: UnsyncBoxBody<Bytes, BoxError>,
    size: BodySize,
    /// What may still come.
    allowance: Option<u64>,
    /// Nobody watches a request without a body.
    progress: Option<Arc<Progress>>,
}

impl Upload {
    /// No body.
    pub(crate) fn none() -> Self {
        Self {
            body: no_body(),
            size: BodySize::None,
            allowance: None,
            progress: None,
        }
    }

    /// This body, and where its progress can be seen.
    pub(crate) fn of<B>(body: B, size: BodySize, limit: Option<u64>) -> (Self, Arc<Progress>)
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let progress = Arc::new(Progress::new());
        let body = body.map_err(Into::into).boxed_unsync();
        (
            Self {
                body,
                size,
                allowance: limit,
                progress: Some(Arc::clone(&progress)),
            },
            progress,
        )
    }

    fn note(&self, phase: Phase) {
        if let Some(progress) = &self.progress {
            progress.note(phase);
        }
    }

    /// Ends the body and lets go of the client's.
    fn end(&mut self, phase: Phase) {
        self.note(phase);
        self.body = no_body();
        self.size = BodySize::None;
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.size == BodySize::None {
            return Poll::Ready(None);
        }
        self.note(Phase::Client);
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            None => {
                self.end(Phase::Upstream);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.end(Phase::Broken);
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(frame)) => {
                let length = frame
                    .data_ref()
                    .map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                if let Some(allowance) = self.allowance {
                    let Some(left) = allowance.checked_sub(length) else {
                        self.end(Phase::TooLarge);
                        return Poll::Ready(Some(Err("the request body is too large".into())));
                    };
                    self.allowance = Some(left);
                }
                self.note(Phase::Upstream);
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size == BodySize::None || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The client's: the upstream would take more.
    Client,
    /// The upstream's: to take what it was given, or to answer.
    Upstream,
    /// Nobody's: the client broke off.
    Broken,
    /// Nobody's: the limit was passed.
    TooLarge,
}

/// How far a body has come.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<(Phase, Instant)>);

impl Progress {
    fn new() -> Self {
        Self(Mutex::new((Phase::Upstream, Instant::now())))
    }

    /// Whose turn it is, and since when.
    pub(crate) fn read(&self) -> (Phase, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, phase: Phase) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A second look at a client that still has nothing is no progress.
        if held.0 != phase {
            *held = (phase, Instant::now());
        }
    }
}

fn no_body() -> UnsyncBoxBody<Bytes, BoxError> {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
