//! A visit of the site: relayed while it answers, held while it restarts or a change is judged, told what happens while it
//! starts.
//!
//! A visitor sees the site as it was before a change or as it is after it, never in between: a visit does not begin while a
//! change is judged, and what was rendered meanwhile is kept until the verdict. If the change was taken back, the page
//! is asked for again.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use contract::Timestamp;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use relay::{Forwarded, HostPolicy, PoolKey, Proto, RelayError, Upstream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::opened::Browser;
use super::proof::Asker;
use super::{Door, Stage, page};
use crate::activity::{self, Moment};
use crate::site::{Judging, SiteState, SiteView};
use crate::words;

/// How long a visitor is held while the site restarts. Measured: 1 to 3 s; on a busy machine several times that.
const HOLD_MAX: Duration = Duration::from_secs(20);
/// How long it may take until it is known that the site is down. If it is not, it only broke off one connection.
const NOTICE_TIME: Duration = Duration::from_secs(1);
/// The router's cookie. The site neither sees it nor sets it.
const OUR_COOKIE: &str = "__Host-edit-session";

pub(super) async fn visit(door: &Door, asker: Asker, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let deadline = Instant::now() + HOLD_MAX;
    let wants_page = wants_page(&parts.method, &parts.headers);
    let by_a_person = activity::is_navigation(&parts.method, &parts.headers);
    hide_our_cookie(&mut parts.headers);
    // What only asks can be asked again when the site went away under it; what does something, or is a socket, cannot.
    let repeatable = parts.method.is_safe()
        && body.is_end_stream()
        && !parts.headers.contains_key(header::UPGRADE);
    let mut wanted = door.bar.as_ref().and_then(|bar| bar.look_at(&mut parts));
    let mut body = Some(body);
    let is_socket = parts.headers.contains_key(header::UPGRADE);
    let browser = Browser::of(asker.client, &parts.headers);
    if is_socket {
        door.opened.tell(&browser, &mut parts.headers);
    }
    let page = (wants_page || by_a_person).then(|| parts.uri.path().to_owned());
    loop {
        let judging = (!is_socket).then(|| watch_judging(door)).flatten();
        let mut judging = match judging {
            Some(judging) => match before(judging, deadline).await {
                Some(judged) => Some(judged),
                None => return not_judged(door, wants_page),
            },
            None => None,
        };
        let address = match answering(door, deadline, wants_page).await {
            Ok(address) => address,
            Err(answer) => return *answer,
        };
        let again = repeatable.then(|| copy_head(&parts));
        let Some(body_now) = body.take().or_else(|| repeatable.then(Body::empty)) else {
            return page::plain(StatusCode::BAD_GATEWAY, words::SITE_WENT_AWAY).into_response();
        };
        let mut outgoing = http::Request::from_parts(parts, body_now);
        let upstream = upstream(address, asker, outgoing.headers_mut());
        if wants_page {
            door.opened.page(browser.clone(), Timestamp::now());
        }
        match door.relay.forward(outgoing, &upstream).await {
            Ok(response) => {
                let taken_back = match &mut judging {
                    Some((judging, began)) => match verdict(judging, deadline).await {
                        Some(now) => now.taken_back > began.taken_back,
                        None => return not_judged(door, wants_page),
                    },
                    None => false,
                };
                if taken_back && again.is_some() && Instant::now() >= deadline {
                    return not_judged(door, wants_page);
                }
                if let (true, Some(head)) = (taken_back, again) {
                    tracing::debug!(
                        "the page was rendered with a change that was taken back; it is asked for again"
                    );
                    parts = head;
                    continue;
                }
                if let Some(page) = page.filter(|_| is_page(&response)) {
                    if wants_page {
                        door.visits.visited(&page);
                    }
                    if by_a_person {
                        door.activity.navigated(&page, Moment::now());
                    }
                }
                let response = relayed(response, address);
                return match wanted.take() {
                    Some(wanted) => wanted.put_into(response),
                    None => response,
                };
            }
            Err(error) => match again {
                Some(head) if went_away(&error) && Instant::now() < deadline => {
                    tracing::debug!(%error, "the site went away; the visitor is held");
                    let mut site = watch_site(door);
                    if let Some(site) = &mut site {
                        // It is published in a moment that the site is down, or up again elsewhere.
                        tokio::time::timeout_at(
                            deadline.min(Instant::now() + NOTICE_TIME),
                            site.wait_for(|view| view.address != Some(address)),
                        )
                        .await
                        .ok();
                    }
                    parts = head;
                }
                _ => {
                    tracing::debug!(error = %crate::chain(&error), "a visit could not be relayed");
                    return page::plain(error.status(), words::SITE_DID_NOT_ANSWER).into_response();
                }
            },
        }
    }
}

type Judged = (watch::Receiver<Judging>, Judging);

/// Waits for the verdict on a change that is being judged. Returns how far judging is when the visit begins.
///
/// It waits for one verdict and not for those after it: instructions that follow each other closely would keep it
/// waiting. What it then sees in between is kept until the next one.
async fn before(mut judging: watch::Receiver<Judging>, deadline: Instant) -> Option<Judged> {
    let now = verdict(&mut judging, deadline).await?;
    Some((judging, now))
}

/// Waits for a verdict; none if it takes longer than anybody waits for a page.
async fn verdict(judging: &mut watch::Receiver<Judging>, deadline: Instant) -> Option<Judging> {
    let begun = *judging.borrow_and_update();
    let judged = judging.wait_for(|now| !now.under_way || now.judged > begun.judged);
    let now = tokio::time::timeout_at(deadline, judged).await.ok()?;
    now.ok().map(|now| *now)
}

/// What a visitor is told who has waited too long for a verdict: not what has not been judged.
fn not_judged(door: &Door, wants_page: bool) -> Response {
    let stage = door.stage.borrow().clone();
    let view = match &stage {
        Stage::Serving { site } => Some(site.view().coming_back()),
        _ => None,
    };
    page::waiting(&stage, view.as_ref(), wants_page, door.developer).into_response()
}

fn watch_judging(door: &Door) -> Option<watch::Receiver<Judging>> {
    match &*door.stage.borrow() {
        Stage::Serving { site } => Some(site.hold().watch()),
        _ => None,
    }
}

/// Whether a person can look at it.
fn is_page(response: &http::Response<relay::Body>) -> bool {
    let html = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/html"));
    html && response.status() == StatusCode::OK
}

/// Waits until the site answers somewhere, or returns what to say instead.
async fn answering(
    door: &Door,
    deadline: Instant,
    wants_page: bool,
) -> Result<SocketAddr, Box<Response>> {
    let mut stage = door.stage.clone();
    let waiting = |view: Option<&SiteView>, stage: &Stage| {
        Box::new(page::waiting(stage, view, wants_page, door.developer).into_response())
    };
    loop {
        let now = stage.borrow_and_update().clone();
        let Stage::Serving { site } = &now else {
            if wants_page {
                return Err(waiting(None, &now));
            }
            match tokio::time::timeout_at(deadline, stage.changed()).await {
                Ok(Ok(())) => continue,
                _ => return Err(waiting(None, &now)),
            }
        };
        let mut watch = site.watch();
        let view = watch.borrow_and_update().clone();
        if let (SiteState::Serving, Some(address)) = (view.state, view.address) {
            return Ok(address);
        }
        // What does not start because of a change that is being judged is no business of a visitor's.
        let judging = site.hold().under_way();
        let hopeless = !judging && matches!(view.state, SiteState::Broken | SiteState::CrashLoop);
        let view = if judging { view.coming_back() } else { view };
        if hopeless || (wants_page && !view.has_served) {
            return Err(waiting(Some(&view), &now));
        }
        match tokio::time::timeout_at(deadline, watch.changed()).await {
            Ok(Ok(())) => {}
            _ => return Err(waiting(Some(&view), &now)),
        }
    }
}

fn watch_site(door: &Door) -> Option<watch::Receiver<SiteView>> {
    match &*door.stage.borrow() {
        Stage::Serving { site } => Some(site.watch()),
        _ => None,
    }
}

fn went_away(error: &RelayError) -> bool {
    error.never_reached_upstream() || matches!(error, RelayError::Disconnected { .. })
}

/// Whether a person looks at the answer.
fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    let html = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    html && *method == Method::GET && !headers.contains_key(header::UPGRADE)
}

/// Where the request goes. The site sees its own host, for pages and sockets alike; and its own origin where the
/// browser named ours, or it would refuse its own forms.
///
/// The dev server makes its own origin of its `Host` and plain http, however the visitor came; so that is what it is told as
/// `Origin` too. What the visitor's scheme was is in `X-Forwarded-Proto`, for a site that asks.
fn upstream(address: SocketAddr, asker: Asker, headers: &mut HeaderMap) -> Upstream {
    let own_host =
        HeaderValue::from_str(&address.to_string()).expect("an address is a header value");
    if headers.contains_key(header::ORIGIN) {
        // The guard has seen that it is ours.
        let origin = HeaderValue::from_str(&format!("http://{address}"))
            .expect("an address is a header value");
        headers.insert(header::ORIGIN, origin);
    }
    let forwarded = Forwarded {
        client: Some(asker.client),
        proto: Some(asker.proto.unwrap_or(Proto::Http)),
        host: headers.get(header::HOST).cloned(),
        ..Forwarded::default()
    };
    Upstream {
        address,
        host: HostPolicy::Set(own_host),
        forwarded,
        pool_key: PoolKey::from(u64::from(address.port())),
    }
}

fn relayed(response: http::Response<relay::Body>, address: SocketAddr) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(here) = parts
        .headers
        .get(header::LOCATION)
        .and_then(|location| at_the_door(location, address))
    {
        parts.headers.insert(header::LOCATION, here);
    }
    keep_our_cookie(&mut parts.headers);
    Response::from_parts(parts, Body::new(body))
}

/// The site neither sets our cookie nor takes it away.
fn keep_our_cookie(headers: &mut HeaderMap) {
    let kept: Vec<HeaderValue> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter(|value| !sets_our_cookie(value))
        .cloned()
        .collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

/// Whether a browser would send it back as ours. A cookie without a name goes out as its value alone, so `=name=value` is
/// one as well.
fn sets_our_cookie(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let named = bytes
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b'='))
        .map_or(&[][..], |start| &bytes[start..]);
    named
        .get(..OUR_COOKIE.len())
        .is_some_and(|name| name.eq_ignore_ascii_case(OUR_COOKIE.as_bytes()))
}

/// A redirect to the site's own address, without that address: it is nobody's but ours.
fn at_the_door(location: &HeaderValue, address: SocketAddr) -> Option<HeaderValue> {
    let (scheme, rest) = location.to_str().ok()?.split_once("://")?;
    if scheme != "http" && scheme != "https" {
        return None;
    }
    let rest = rest.strip_prefix(&address.to_string())?;
    match rest.chars().next() {
        Some('/') => HeaderValue::from_str(rest).ok(),
        None | Some('?' | '#') => HeaderValue::from_str(&format!("/{rest}")).ok(),
        // Another port that begins with the same digits.
        Some(_) => None,
    }
}

fn hide_our_cookie(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    if !values
        .iter()
        .any(|value| String::from_utf8_lossy(value.as_bytes()).contains(OUR_COOKIE))
    {
        return;
    }
    headers.remove(header::COOKIE);
    for value in values {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let kept: Vec<&str> = text
            .split(';')
            .map(str::trim)
            .filter(|pair| pair.split('=').next() != Some(OUR_COOKIE))
            .collect();
        if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join("; "))) {
            headers.append(header::COOKIE, value);
        }
    }
}

fn copy_head(parts: &http::request::Parts) -> http::request::Parts {
    let mut request = http::Request::new(());
    parts.method.clone_into(request.method_mut());
    parts.uri.clone_into(request.uri_mut());
    parts.headers.clone_into(request.headers_mut());
    *request.version_mut() = parts.version;
    request.into_parts().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_to_the_sites_own_address_stays_at_the_door() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4321));
        for (location, expected) in [
            ("http://127.0.0.1:4321/about/?a=1", Some("/about/?a=1")),
            ("http://127.0.0.1:4321", Some("/")),
            ("http://127.0.0.1:4321?a=1", Some("/?a=1")),
            // A site that knows how its visitors come.
            ("https://127.0.0.1:4321/about/", Some("/about/")),
            ("ftp://127.0.0.1:4321/", None),
            ("http://127.0.0.1:43210/", None),
            ("https://example.com/", None),
            ("/about/", None),
        ] {
            let here = at_the_door(&HeaderValue::from_static(location), address);
            assert_eq!(
                here.as_ref().map(HeaderValue::as_bytes),
                expected.map(str::as_bytes),
                "{location}"
            );
        }
    }

    #[test]
    fn the_site_never_sets_our_cookie() {
        let mut headers = HeaderMap::new();
        for value in [
            "a=1; Path=/",
            "__Host-edit-session=theirs; Path=/; Secure",
            "b=__Host-edit-session=2",
            "__host-edit-session=; Max-Age=0",
            " __Host-edit-session =x",
            "=__Host-edit-session=x",
            "__Host-edit-session",
            "__Host-other=1; Path=/; Secure",
        ] {
            let value = HeaderValue::from_str(value).expect("a value");
            headers.append(header::SET_COOKIE, value);
        }
        keep_our_cookie(&mut headers);
        let kept: Vec<&[u8]> = headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(
            kept,
            [
                &b"a=1; Path=/"[..],
                b"b=__Host-edit-session=2",
                b"__Host-other=1; Path=/; Secure"
            ]
        );
    }

    #[test]
    fn our_cookie_never_reaches_the_site() {
        for (sent, kept) in [
            ("__Host-edit-session=secret; a=1; b=2", Some("a=1; b=2")),
            ("__Host-edit-session=secret", None),
            ("a=1", Some("a=1")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, sent.parse().expect("a value"));
            hide_our_cookie(&mut headers);
            assert_eq!(
                headers
                    .get(header::COOKIE)
                    .map(|value| value.to_str().expect("text")),
                kept,
                "{sent}"
            );
        }
    }
}
