//! `POST /_edit/presence`: a page says that somebody has it before them and uses it.
//!
//! It keeps an environment awake, so it is taken from our own pages only: a browser always says where such a call comes from,
//! and the guard has refused the pages of others. It is the page's word and no more: a page is believed to say whether a
//! person used it, because whoever may look at the session may keep it awake by looking.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};

use super::{Door, page};
use crate::activity::{Beacon, Moment, TooMany};

/// Bytes of a beacon. It has two words.
const BEACON_MAX_BYTES: usize = 1024;
/// How long it may take to come in. It is sent at once, whole.
const BEACON_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) async fn presence(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let refuse = |status, words| page::plain(status, words).into_response();
    if !is_from_our_page(&headers) {
        return refuse(StatusCode::FORBIDDEN, "Only a page of the site says this.");
    }
    let body = axum::body::to_bytes(body, BEACON_MAX_BYTES);
    let beacon = match tokio::time::timeout(BEACON_TIME_MAX, body).await {
        Ok(Ok(body)) => serde_json::from_slice::<Beacon>(&body).ok(),
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(beacon) = beacon else {
        return refuse(
            StatusCode::BAD_REQUEST,
            r#"Presence is {"visible": true, "used": true}, in at most 1 KB."#,
        );
    };
    match door.activity.beacon(beacon, Moment::now()) {
        Ok(()) => (
            StatusCode::NO_CONTENT,
            [(header::CACHE_CONTROL, "no-store")],
        )
            .into_response(),
        Err(TooMany) => refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "That is said often enough already.",
        ),
    }
}

/// Whether a browser says that a page of ours asks. That the origin it names is ours, the guard has seen.
fn is_from_our_page(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .map_or(headers.contains_key(header::ORIGIN), |site| {
            site == "same-origin"
        })
}
