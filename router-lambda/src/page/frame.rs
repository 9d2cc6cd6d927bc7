//! What every page has round its words: whose site it is, the colours, the policy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use contract::ClientConfig;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::asset::{SCRIPT, STYLE};
use super::colour;

/// A page, without what all pages have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// Whose site; none where that must not be said, or is not known.
    pub(super) client: Option<&'a ClientConfig>,
    /// The title, without markup in it.
    pub(super) headline: &'a str,
    /// Further elements of the head, as HTML.
    pub(super) head: &'a str,
    /// The page, as HTML.
    pub(super) body: &'a str,
    /// What the script knows, by name. Where there is nothing, the page has no script.
    pub(super) data: &'a [(&'a str, &'a str)],
    /// Where its forms may lead.
    pub(super) forms: Forms,
}

/// Where the forms of a page may lead. Browsers look at where an answer to a form redirects to, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forms {
    /// To this host only.
    Here,
    /// From this host to the session's own, which is another one.
    ToSession,
}

impl Frame<'_> {
    /// The answer with the page.
    pub(super) fn answer(&self, status: StatusCode) -> Response<Bytes> {
        let style = colour::style(self.client.and_then(|client| client.brand.as_ref()));
        let html = self.html(&style);
        let mut answer = answer(status, "text/html; charset=utf-8", html);
        // The one style sheet that is in the page is known by its hash: there is no nonce that a page could leak.
        let digest = BASE64.encode(Sha256::digest(style.as_bytes()));
        let forms = match self.forms {
            Forms::Here => "form-action 'self'; ",
            Forms::ToSession => "",
        };
        let policy = format!(
            "default-src 'none'; style-src 'self' 'sha256-{digest}'; script-src 'self'; connect-src 'self'; \
             {forms}frame-ancestors 'self'; base-uri 'none'"
        );
        answer.headers_mut().insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::try_from(policy).expect("a policy is visible ASCII"),
        );
        answer
    }

    fn html(&self, style: &str) -> String {
        let Self {
            client,
            headline,
            head,
            body,
            data,
            ..
        } = *self;
        let name = client.map(|client| escape(name(client)));
        let title = match &name {
            Some(name) => format!("{headline} · {name}"),
            None => headline.to_owned(),
        };
        let banner = name
            .map(|name| format!("<header><p><bdi>{name}</bdi></p></header>\n"))
            .unwrap_or_default();
        let known: String = data
            .iter()
            .map(|(name, value)| format!(" data-{name}=\"{}\"", escape(value)))
            .collect();
        let script = if data.is_empty() {
            String::new()
        } else {
            format!("<script src=\"{}\" defer></script>\n", SCRIPT.path())
        };
        let sheet = STYLE.path();
        format!(
            "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">
<meta name=\"robots\" content=\"noindex\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>{title}</title>
<link rel=\"stylesheet\" href=\"{sheet}\">
<style>{style}</style>
{head}{script}</head>
<body>
{banner}<main{known}>
{body}
</main>
</body>
</html>
"
        )
    }
}

/// Under which name the owner knows the site.
pub(super) fn name(client: &ClientConfig) -> &str {
    client
        .brand
        .as_ref()
        .and_then(|brand| brand.name.as_deref())
        .unwrap_or(&client.domains.production)
}

/// An answer that is not kept by anybody.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-robots-tag"),
        HeaderValue::from_static("noindex"),
    );
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Text, for HTML: between elements and in an attribute in double quotes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}
