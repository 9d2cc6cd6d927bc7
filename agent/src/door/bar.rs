//! The status bar: one script, put into the site's pages while they pass.
//!
//! ```text
//!   site ─▶ head of the answer: a page for a person? ─▶ its policies let the script in (`csp`)
//!        ─▶ chunk by chunk: … </head> ⟵ <script src="/_edit/bar.js"> ─▶ browser
//! ```
//!
//! A page is never held: what comes in as a chunk goes out as one, and after the end of its head not even parsed. An answer that
//! breaks off breaks off for the browser too. Everything that is no page for a person to look at passes as it is.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, BodyDataStream};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, StreamExt as _};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use lol_html::html_content::{ContentType, DocumentEnd, EndTag};
use lol_html::send::{
    DocumentContentHandlers, Element, ElementContentHandlers, HtmlRewriter, Settings,
};
use lol_html::{MemorySettings, OutputSink, Selector};
use sha2::{Digest as _, Sha256};

mod csp;

use super::{Door, control};
use crate::words;
use csp::{Pass, Visitor};

/// The script, without its words.
const SCRIPT: &str = include_str!("bar/bar.js");
/// Where the words go in it.
const WORDS: &str = "\"WORDS\"";
/// Bytes of a page's head that may be held because a tag is not complete. Beyond that, the page passes without the bar.
const HELD_MAX_BYTES: usize = 1024 * 1024;

/// The bar's script, as it is sent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    script: Bytes,
    compressed: Bytes,
    /// As policies and `integrity` name it: `sha256-…`.
    digest: Arc<str>,
    /// Changes with the script, so that browsers may keep it.
    version: Arc<str>,
}

impl Bar {
    /// The script with its words.
    pub(crate) fn new() -> Self {
        let words = serde_json::to_string(&words::BAR).expect("words are JSON");
        let script = lean(&SCRIPT.replacen(WORDS, &words, 1));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder
            .write_all(script.as_bytes())
            .expect("memory takes everything");
        let compressed = encoder.finish().expect("memory takes everything");
        let digest = Sha256::digest(script.as_bytes());
        let version: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            script: Bytes::from(script),
            compressed: Bytes::from(compressed),
            digest: format!("sha256-{}", BASE64.encode(digest)).into(),
            version: version.into(),
        }
    }

    /// Prepares a request whose answer may get the bar; none if it will not: then it is not touched.
    pub(super) fn look_at(&self, request: &mut Parts) -> Option<Wanted> {
        if !is_navigation(&request.method, &request.headers) {
            return None;
        }
        let text = |name: &str| request.headers.get(name)?.to_str().ok();
        let host = text("host").unwrap_or_default().to_ascii_lowercase();
        let secure = text("x-forwarded-proto") == Some("https");
        // What is compressed could not be rewritten, and a part of a page neither.
        let identity = HeaderValue::from_static("identity");
        request.headers.insert(header::ACCEPT_ENCODING, identity);
        request.headers.remove(header::RANGE);
        request.headers.remove(header::IF_RANGE);
        Some(Wanted {
            visitor: Visitor {
                host,
                digest: self.digest.to_string(),
            },
            version: Arc::clone(&self.version),
            scheme: if secure { "https" } else { "http" },
        })
    }
}

/// Takes out what only readers of the source need: indentation, and lines that are comments.
fn lean(script: &str) -> String {
    let lines = script.lines().map(str::trim);
    let code: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .collect();
    code.join("\n")
}

/// Whether the answer becomes the page of a window or tab. Who says nothing of it is believed if a page is wanted.
fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if *method != Method::GET || headers.contains_key(header::UPGRADE) {
        return false;
    }
    match text("sec-fetch-dest") {
        Some(destination) => destination == "document",
        None => text("accept").is_some_and(|accept| accept.contains("text/html")),
    }
}

/// An answer that is to get the bar, if it turns out to be a page.
#[derive(Debug)]
pub(super) struct Wanted {
    visitor: Visitor,
    version: Arc<str>,
    scheme: &'static str,
}

impl Wanted {
    /// Puts the bar into the answer, if it is a page.
    pub(super) fn put_into(self, response: Response) -> Response {
        if !is_page(response.status(), response.headers()) {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let mut tag = Tag {
            wanted: self,
            pass: Pass::default(),
            has_base: false,
            is_in: false,
        };
        tag.admit_headers(&mut parts.headers);
        // They are of the bytes that the site sent.
        for name in [
            header::CONTENT_LENGTH,
            header::ETAG,
            header::LAST_MODIFIED,
            header::ACCEPT_RANGES,
            HeaderName::from_static("content-digest"),
            HeaderName::from_static("repr-digest"),
        ] {
            parts.headers.remove(name);
        }
        let rewriting = Rewriting::new(tag);
        let stream = stream::unfold(
            Some((body.into_data_stream(), rewriting)),
            |state| async move { next_chunk(state?).await },
        );
        Response::from_parts(parts, Body::from_stream(stream))
    }
}

type Streaming = (BodyDataStream, Rewriting);

/// The next bytes for the browser, and what comes after them. An error is the last item and no end.
async fn next_chunk(
    (mut body, mut rewriting): Streaming,
) -> Option<(Result<Bytes, axum::Error>, Option<Streaming>)> {
    loop {
        match body.next().await {
            Some(Ok(chunk)) => {
                let out = rewriting.chunk(chunk);
                if !out.is_empty() {
                    return Some((Ok(out), Some((body, rewriting))));
                }
            }
            Some(Err(error)) => return Some((Err(error), None)),
            None => {
                let out = rewriting.end();
                return (!out.is_empty()).then_some((Ok(out), None));
            }
        }
    }
}

fn is_page(status: StatusCode, headers: &HeaderMap) -> bool {
    let text = |name| -> Option<&str> { headers.get(name)?.to_str().ok() };
    let kind = text(header::CONTENT_TYPE)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let bare = kind.split(';').next().unwrap_or_default().trim() == "text/html";
    let encoded = text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    let without_page = matches!(
        status,
        StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    // UTF-16 is the one encoding in which tags are not ASCII.
    bare && !encoded && !without_page && !status.is_informational() && !kind.contains("utf-16")
}

/// The tag that brings the script, and what the page has said so far that it depends on.
#[derive(Debug)]
struct Tag {
    wanted: Wanted,
    pass: Pass,
    /// The page's `<base>` may send relative addresses to another host.
    has_base: bool,
    /// Whether it is in the page.
    is_in: bool,
}

impl Tag {
    /// Lets the script in through the policies of the answer's head. What only reports is left alone.
    fn admit_headers(&mut self, headers: &mut HeaderMap) {
        let mut changed = false;
        let mut policies = Vec::new();
        for value in headers.get_all(header::CONTENT_SECURITY_POLICY) {
            let admitted = value
                .to_str()
                .ok()
                .and_then(|text| self.admit(text))
                .and_then(|text| HeaderValue::from_str(&text).ok());
            changed |= admitted.is_some();
            policies.push(admitted.unwrap_or_else(|| value.clone()));
        }
        if changed {
            headers.remove(header::CONTENT_SECURITY_POLICY);
            for policy in policies {
                headers.append(header::CONTENT_SECURITY_POLICY, policy);
            }
        }
    }

    /// A policy that lets us in, if it has to be changed for that. A host that no policy can name is let in by none.
    fn admit(&mut self, policies: &str) -> Option<String> {
        if !csp::is_host(&self.wanted.visitor.host) {
            return None;
        }
        let admitted = csp::admit(policies, &self.wanted.visitor, &mut self.pass);
        (admitted != policies).then_some(admitted)
    }

    /// The tag, once.
    fn put_in(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.is_in, true) {
            return None;
        }
        let Wanted {
            visitor,
            version,
            scheme,
        } = &self.wanted;
        let origin = if self.has_base && csp::is_host(&visitor.host) {
            format!("{scheme}://{}", visitor.host)
        } else {
            String::new()
        };
        let mut tag = format!(r#"<script async src="{origin}/_edit/bar.js?v={version}""#);
        if let Some(nonce) = &self.pass.nonce {
            tag.push_str(&format!(r#" nonce="{nonce}""#));
        }
        if self.pass.integrity {
            tag.push_str(&format!(r#" integrity="{}""#, visitor.digest));
        }
        tag.push_str("></script>");
        Some(tag)
    }
}

/// Where the rewriter puts what is ready.
#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl OutputSink for Output {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(chunk);
    }
}

/// A page that gets the tag while it passes.
struct Rewriting {
    /// Until the tag is in, or the page turns out to be none of which it could be said where.
    rewriter: Option<HtmlRewriter<'static, Output>>,
    output: Output,
    tag: Arc<Mutex<Tag>>,
}

impl Rewriting {
    fn new(tag: Tag) -> Self {
        let output = Output::default();
        let tag = Arc::new(Mutex::new(tag));
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(HELD_MAX_BYTES)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let on = |selector: &str| Cow::Owned(selector.parse::<Selector>().expect("a selector"));
        let put_in = |tag: &Arc<Mutex<Tag>>| {
            let tag = Arc::clone(tag);
            move || tag.lock().unwrap_or_else(PoisonError::into_inner).put_in()
        };
        let (at_head, at_end) = (Arc::clone(&tag), put_in(&tag));
        let head = ElementContentHandlers::default().element(move |head: &mut Element<'_, '_>| {
            let put_in = put_in(&at_head);
            if let Some(handlers) = head.end_tag_handlers() {
                handlers.push(Box::new(move |end: &mut EndTag<'_>| {
                    if let Some(tag) = put_in() {
                        end.before(&tag, ContentType::Html);
                    }
                    Ok(())
                }));
            }
            Ok(())
        });
        let seen = Arc::clone(&tag);
        let base = ElementContentHandlers::default().element(move |_: &mut Element<'_, '_>| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).has_base = true;
            Ok(())
        });
        let seen = Arc::clone(&tag);
        let meta = ElementContentHandlers::default().element(move |meta: &mut Element<'_, '_>| {
            let mut tag = seen.lock().unwrap_or_else(PoisonError::into_inner);
            admit_meta(meta, &mut tag)?;
            Ok(())
        });
        let end = DocumentContentHandlers::default().end(move |end: &mut DocumentEnd<'_>| {
            if let Some(tag) = at_end() {
                end.append(&tag, ContentType::Html);
            }
            Ok(())
        });
        let settings = Settings::new_send()
            .with_memory_settings(memory)
            // What is ambiguous is so for a browser, not for a page of the site's own: it is shown as it is.
            .with_strict(false)
            .append_element_content_handler((on("head"), head))
            .append_element_content_handler((on("base[href]"), base))
            .append_element_content_handler((on("meta[http-equiv][content]"), meta))
            .append_document_content_handler(end);
        Self {
            rewriter: Some(HtmlRewriter::new(settings, output.clone())),
            output,
            tag,
        }
    }

    fn chunk(&mut self, chunk: Bytes) -> Bytes {
        let Some(rewriter) = &mut self.rewriter else {
            return chunk;
        };
        if let Err(error) = rewriter.write(&chunk) {
            // It has let go of everything it held, and the rest passes as it is.
            tracing::debug!(%error, "a page goes without the bar");
            self.rewriter = None;
        } else if self.is_in() {
            self.finish();
        }
        self.take()
    }

    fn end(mut self) -> Bytes {
        self.finish();
        self.take()
    }

    fn is_in(&self) -> bool {
        self.tag
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_in
    }

    /// Lets the rewriter go, and with it what it held.
    fn finish(&mut self) {
        if let Some(rewriter) = self.rewriter.take()
            && let Err(error) = rewriter.end()
        {
            tracing::debug!(%error, "a page goes without the bar");
        }
    }

    fn take(&self) -> Bytes {
        let mut bytes = self.output.0.lock().unwrap_or_else(PoisonError::into_inner);
        Bytes::from(std::mem::take(&mut *bytes))
    }
}

/// A policy in the page's head counts like one in the answer's.
fn admit_meta(
    meta: &mut Element<'_, '_>,
    tag: &mut Tag,
) -> Result<(), lol_html::errors::AttributeNameError> {
    let is_policy = meta
        .get_attribute("http-equiv")
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("content-security-policy"));
    if is_policy
        && let Some(content) = meta.get_attribute("content")
        && let Some(admitted) = tag.admit(&unescape(&content))
    {
        meta.set_attribute("content", &admitted.replace('&', "&amp;"))?;
    }
    Ok(())
}

/// Undoes the escapes that a policy may have in an attribute: of quotes, and of the ampersand.
fn unescape(text: &str) -> String {
    let mut text = text.to_owned();
    for (escape, character) in [
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&apos;", "'"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#38;", "&"),
        ("&amp;", "&"),
    ] {
        text = text.replace(escape, character);
    }
    text
}

/// The script.
pub(super) async fn script(
    State(door): State<Arc<Door>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(bar) = &door.bar else {
        return control::unknown().await;
    };
    let asked = query
        .as_deref()
        .and_then(|query| query.strip_prefix("v="))
        .unwrap_or_default();
    let keep = if *asked == *bar.version {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let fixed = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, keep),
        (header::VARY, "accept-encoding"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if takes_gzip(&headers) {
        let encoding = [(header::CONTENT_ENCODING, "gzip")];
        (fixed, encoding, bar.compressed.clone()).into_response()
    } else {
        (fixed, bar.script.clone()).into_response()
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accepted.split(',').any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        let named = parts.next() == Some("gzip");
        let refused = parts.any(|part| {
            part.strip_prefix("q=")
                .and_then(|quality| quality.parse::<f32>().ok())
                .is_some_and(|quality| quality <= 0.0)
        });
        named && !refused
    })
}

#[cfg(test)]
mod tests;
