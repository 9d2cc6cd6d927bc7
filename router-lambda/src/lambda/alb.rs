//! What a load balancer tells a function of a request, and how it is answered. Pure.
//!
//! ```text
//!   visitor ──HTTP──▶ load balancer ──JSON──▶ AlbRequest ──▶ (the router, or the door)
//!           ◀─HTTP──                ◀─JSON── AlbResponse ◀──
//! ```
//!
//! A load balancer takes a request apart and does not hand over what it took apart. What can be put together again is, byte
//! for byte; the path, and keys and values of the query, are not decoded and not encoded, because the load balancer does
//! neither. What is lost on the way, and cannot be had here:
//!
//! | asked for | comes out as | because |
//! |---|---|---|
//! | `?raw=` | `?raw` | key and value are told, not whether a `=` stood between them. Dev servers ask for `?raw`, and the other is another module to them |
//! | `?` | no query | an empty one is told like none |
//! | `?a&&b`, `?a&` | `?a&b`, `?a` | an empty pair is not told |
//! | `?a=1&b&a=2` | `?a=1&a=2&b` | values are told by key, in the place of the first one |
//! | the same, one value a key | `?a=2&b` | the last one wins |
//! | two `Cookie` lines, one value a field | the last one | the same. Browsers send one line |
//! | two `Set-Cookie` lines, one value a field | two, spelt in two ways | a field is told by its name; `SET-COOKIE` is another name to JSON and the same one to browsers |
//! | a field in Latin-1 | in UTF-8 | JSON has no other text |
//! | an answer to `HEAD` | without its length | the load balancer counts the bytes that are there |
//!
//! So the attribute `lambda.multi_value_headers.enabled` of the target group is better set. Both ways are understood, and the
//! answer is given in the way of the question.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, SET_COOKIE, TRANSFER_ENCODING, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use relay::Proto;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::ask::Head;

/// Bytes of an event: the most that a function is ever handed.
pub const EVENT_MAX_BYTES: usize = 6 * 1024 * 1024;
/// Bytes of a request's body. A load balancer answers 413 itself beyond that.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of an answer as JSON. A load balancer answers 502 itself beyond that, whatever the page was.
pub const ANSWER_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of names and values of an answer's fields: beyond that a load balancer answers 502 as well.
pub const ANSWER_HEAD_MAX_BYTES: usize = 32 * 1024;
/// Keys of a query. The head's own limit is 64 KiB; this bounds what is allocated for `?a&a&a…`.
const PARAMETERS_MAX: usize = 4096;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// How the load balancer's own checks call themselves; they name no host.
const HEALTH_CHECKER: &str = "ELB-HealthChecker/";

/// A request, as far as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlbRequest {
    /// The method.
    pub method: Method,
    /// The path, as it was on the wire; it begins with `/`.
    pub path: String,
    /// The query, put together again, without its `?`. None where nothing is told of one.
    pub query: Option<String>,
    /// The fields. The length of the body is that of [`Self::body`], if the visitor said one at all.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether fields and parameters are told with all of their values. The answer is given in the same way.
    pub multi_value: bool,
}

/// A request that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// As in [`AlbRequest::multi_value`]: it has to be answered all the same.
    pub multi_value: bool,
    /// Why.
    pub why: Why,
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The event is larger than any that there is.
    #[error("the event has {bytes} bytes, at most {EVENT_MAX_BYTES} are read")]
    EventTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The event is not of the form that load balancers send.
    #[error("the event is not of the form that load balancers send: {0}")]
    Event(String),
    /// The method is no word.
    #[error("the method is not one of HTTP")]
    Method,
    /// Path and query are none that could have been on the wire.
    #[error("the path or the query is not one of HTTP")]
    Target,
    /// A field has a name or a value that none can have.
    #[error("a field is not one of HTTP")]
    Field,
    /// More fields, or longer ones, than are passed on.
    #[error(
        "the head has {fields} fields in {bytes} bytes, at most {} in {} are taken",
        relay::REQUEST_HEADERS_MAX,
        relay::REQUEST_HEAD_MAX_BYTES
    )]
    HeadTooLarge {
        /// Fields.
        fields: usize,
        /// Bytes of path, query, names and values.
        bytes: usize,
    },
    /// The body says that it is base64, and is not.
    #[error("the body is not base64")]
    Body,
    /// A load balancer would not have passed that on.
    #[error("the body has {bytes} bytes, at most {BODY_MAX_BYTES} are taken")]
    BodyTooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl Why {
    /// The status that says it.
    pub fn status(&self) -> StatusCode {
        match self {
            Why::EventTooLarge { .. } | Why::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Why::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Why::Event(_) | Why::Method | Why::Target | Why::Field | Why::Body => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

impl AlbRequest {
    /// Reads an event.
    pub fn parse(event: &[u8]) -> Result<Self, Refused> {
        if event.len() > EVENT_MAX_BYTES {
            let why = Why::EventTooLarge { bytes: event.len() };
            return Err(Refused {
                multi_value: false,
                why,
            });
        }
        let told: Told = serde_json::from_slice(event).map_err(|error| Refused {
            multi_value: false,
            // What it says in words repeats the event, cookies and all.
            why: Why::Event(format!("{:?} at byte {}", error.classify(), error.column())),
        })?;
        let multi_value = told.multi_value_headers.is_some();
        Self::of(told, multi_value).map_err(|why| Refused { multi_value, why })
    }

    fn of(told: Told<'_>, multi_value: bool) -> Result<Self, Why> {
        let method = Method::from_bytes(told.http_method.0.as_bytes()).map_err(|_| Why::Method)?;
        let parameters = told
            .multi_value_parameters
            .or(told.parameters)
            .unwrap_or_default();
        let fields = told
            .multi_value_headers
            .or(told.headers)
            .unwrap_or_default();

        let query = query(&parameters)?;
        let path = told.path.0.into_owned();
        judge_target(&path, query.as_deref())?;

        let mut headers = HeaderMap::with_capacity(fields.0.len().min(relay::REQUEST_HEADERS_MAX));
        let mut bytes = path.len() + query.as_ref().map_or(0, |query| query.len() + 1);
        let mut count = 0;
        for (name, values) in &fields.0 {
            let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Why::Field)?;
            for value in values {
                count += 1;
                bytes += name.len() + value.len() + ": \r\n".len();
                if count <= relay::REQUEST_HEADERS_MAX && bytes <= relay::REQUEST_HEAD_MAX_BYTES {
                    let value =
                        HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Why::Field)?;
                    headers.append(field.clone(), value);
                }
            }
        }
        if count > relay::REQUEST_HEADERS_MAX || bytes > relay::REQUEST_HEAD_MAX_BYTES {
            return Err(Why::HeadTooLarge {
                fields: count,
                bytes,
            });
        }

        let text = told.body.map(|body| body.0).unwrap_or_default();
        let body = if told.is_base64 {
            Bytes::from(STANDARD.decode(text.as_bytes()).map_err(|_| Why::Body)?)
        } else {
            Bytes::from(text.into_owned())
        };
        if body.len() > BODY_MAX_BYTES {
            return Err(Why::BodyTooLarge { bytes: body.len() });
        }
        // The load balancer has read the body to its end, whatever the visitor said of its length.
        let said = headers.remove(CONTENT_LENGTH).is_some();
        headers.remove(TRANSFER_ENCODING);
        if said || !body.is_empty() {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        Ok(Self {
            method,
            path,
            query,
            headers,
            body,
            multi_value,
        })
    }

    /// Who asks: the last address that is named, which is the one that the load balancer saw and added. What stands before it
    /// is the visitor's own word.
    pub fn visitor(&self) -> Option<IpAddr> {
        let line = self.headers.get_all(FORWARDED_FOR).iter().next_back()?;
        let last = line.to_str().ok()?.rsplit(',').next()?.trim();
        // A target group can be told to add the port as well.
        last.parse()
            .or_else(|_| last.parse().map(|address: SocketAddr| address.ip()))
            .ok()
    }

    /// How the visitor reached the load balancer, which sets this itself.
    pub fn proto(&self) -> Proto {
        let said = self.headers.get_all(FORWARDED_PROTO).iter().next_back();
        match said {
            Some(proto) if proto.as_bytes().eq_ignore_ascii_case(b"https") => Proto::Https,
            _ => Proto::Http,
        }
    }

    /// Whether it is the load balancer that asks whether we are there. It names no host, which nobody else may leave out.
    pub fn is_health_check(&self) -> bool {
        !self.headers.contains_key(HOST)
            && self
                .headers
                .get(USER_AGENT)
                .is_some_and(|agent| agent.as_bytes().starts_with(HEALTH_CHECKER.as_bytes()))
    }

    /// What the router decides by.
    pub fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            visitor: self.visitor(),
            proto: self.proto(),
        }
    }
}

/// The query, in the order in which it is told. An empty value is a bare key: `?raw`, as dev servers ask.
fn query(parameters: &Pairs<'_>) -> Result<Option<String>, Why> {
    let mut query = String::new();
    let mut count = 0;
    for (key, values) in &parameters.0 {
        for value in values {
            count += 1;
            if count > PARAMETERS_MAX || query.len() > relay::REQUEST_HEAD_MAX_BYTES {
                let bytes = query.len();
                return Err(Why::HeadTooLarge { fields: 0, bytes });
            }
            if key.is_empty() && value.is_empty() {
                continue;
            }
            // Whatever would end it here did not stand there: a load balancer decodes nothing.
            if key.contains(['&', '=']) || value.contains('&') {
                return Err(Why::Target);
            }
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(key);
            if !value.is_empty() {
                query.push('=');
                query.push_str(value);
            }
        }
    }
    Ok((!query.is_empty()).then_some(query))
}

/// Judges path and query by the grammar of the server that a gateway has, and no other.
fn judge_target(path: &str, query: Option<&str>) -> Result<(), Why> {
    if !path.starts_with('/') || path.contains('?') {
        return Err(Why::Target);
    }
    let target = match query {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path),
    };
    let read: PathAndQuery = target.parse().map_err(|_| Why::Target)?;
    // A `#` ends what is read.
    if read.as_str() == target {
        Ok(())
    } else {
        Err(Why::Target)
    }
}

/// An event. What else there is in it is not looked at.
#[derive(serde::Deserialize)]
struct Told<'e> {
    #[serde(rename = "httpMethod", borrow)]
    http_method: Text<'e>,
    #[serde(borrow)]
    path: Text<'e>,
    #[serde(rename = "queryStringParameters", default, borrow)]
    parameters: Option<Pairs<'e>>,
    #[serde(rename = "multiValueQueryStringParameters", default, borrow)]
    multi_value_parameters: Option<Pairs<'e>>,
    #[serde(default, borrow)]
    headers: Option<Pairs<'e>>,
    #[serde(rename = "multiValueHeaders", default, borrow)]
    multi_value_headers: Option<Pairs<'e>>,
    #[serde(default, borrow)]
    body: Option<Text<'e>>,
    #[serde(rename = "isBase64Encoded", default)]
    is_base64: bool,
}

/// A text, borrowed where nothing in it is escaped: serde's own `Cow` never borrows inside of an `Option`.
struct Text<'e>(Cow<'e, str>);

impl<'de: 'e, 'e> Deserialize<'de> for Text<'e> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;
        impl<'de> Visitor<'de> for OfText {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(OfText)
    }
}

/// Keys and their values, in the order in which they are told, also where a key is told twice. Each key has one text or a
/// list of them; none of either is none.
#[derive(Default)]
struct Pairs<'e>(Vec<(Cow<'e, str>, Vec<Cow<'e, str>>)>);

impl<'de: 'e, 'e> Deserialize<'de> for Pairs<'e> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfPairs;
        impl<'de> Visitor<'de> for OfPairs {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with their values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Values(values))) = map.next_entry()? {
                    pairs.push((key, values));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(OfPairs)
    }
}

/// One value, or a list of them.
struct Values<'e>(Vec<Cow<'e, str>>);

impl<'de: 'e, 'e> Deserialize<'de> for Values<'e> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfValues;
        impl<'de> Visitor<'de> for OfValues {
            type Value = Values<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Values<'de>, E> {
                Ok(Values(vec![Cow::Borrowed(text)]))
            }
            fn visit_str<E>(self, text: &str) -> Result<Values<'de>, E> {
                Ok(Values(vec![Cow::Owned(text.to_owned())]))
            }
            fn visit_unit<E>(self) -> Result<Values<'de>, E> {
                Ok(Values(Vec::new()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values<'de>, A::Error> {
                let mut values = Vec::new();
                while let Some(Text(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_any(OfValues)
    }
}

/// An answer, as the JSON that a load balancer reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlbResponse(String);

/// An answer that a load balancer would make a 502 of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// As JSON it is larger than [`ANSWER_MAX_BYTES`].
    #[error(
        "the answer has {bytes} bytes as JSON, at most {ANSWER_MAX_BYTES} pass a load balancer"
    )]
    TooLarge {
        /// Its size; at least that, where it was clear without counting.
        bytes: usize,
    },
    /// Its fields are larger than [`ANSWER_HEAD_MAX_BYTES`].
    #[error(
        "the answer's fields have {bytes} bytes, at most {ANSWER_HEAD_MAX_BYTES} pass a load balancer"
    )]
    HeadTooLarge {
        /// Their size.
        bytes: usize,
    },
}

impl AlbResponse {
    /// Writes an answer down. Texts stay texts, everything else becomes base64.
    pub fn of(response: &Response<Bytes>, multi_value: bool) -> Result<Self, Unfit> {
        let (headers, body) = (response.headers(), response.body());
        let bytes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
        let bytes: usize = bytes.sum();
        if bytes > ANSWER_HEAD_MAX_BYTES {
            return Err(Unfit::HeadTooLarge { bytes });
        }
        if body.len() > ANSWER_MAX_BYTES {
            return Err(Unfit::TooLarge { bytes: body.len() });
        }
        let status = response.status();
        let mut json = String::with_capacity(body.len() + body.len() / 2 + bytes * 2 + 256);
        json.push_str("{\"statusCode\":");
        json.push_str(status.as_str());
        json.push_str(",\"statusDescription\":\"");
        json.push_str(status.as_str());
        json.push(' ');
        // From a list of the library's, or nothing.
        json.push_str(status.canonical_reason().unwrap_or("Unnamed"));
        json.push_str(if multi_value {
            "\",\"multiValueHeaders\":{"
        } else {
            "\",\"headers\":{"
        });
        if multi_value {
            push_lists(&mut json, headers);
        } else {
            push_ones(&mut json, headers);
        }
        json.push_str("},\"body\":");
        let text = is_textual(headers)
            .then(|| std::str::from_utf8(body).ok())
            .flatten();
        let is_base64 = match text {
            Some(text) => {
                push_text(&mut json, text);
                false
            }
            None => {
                json.push('"');
                STANDARD.encode_string(body, &mut json);
                json.push('"');
                true
            }
        };
        json.push_str(",\"isBase64Encoded\":");
        json.push_str(if is_base64 { "true}" } else { "false}" });
        if json.len() > ANSWER_MAX_BYTES {
            return Err(Unfit::TooLarge { bytes: json.len() });
        }
        Ok(Self(json))
    }

    /// The JSON.
    pub fn into_json(self) -> String {
        self.0
    }
}

/// Whether a body of this type is text, as far as it is UTF-8. What is encoded is none, whatever is encoded.
pub(super) fn is_textual(headers: &HeaderMap) -> bool {
    let encoded = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let (false, Some(kind)) = (encoded, kind) else {
        return false;
    };
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let Some((family, member)) = kind.split_once('/') else {
        return false;
    };
    family == "text"
        || member.ends_with("+json")
        || member.ends_with("+xml")
        || (family == "application"
            && matches!(
                member,
                "json"
                    | "javascript"
                    | "ecmascript"
                    | "x-javascript"
                    | "xml"
                    | "xhtml"
                    | "graphql"
                    | "x-ndjson"
            ))
}

fn push_lists(json: &mut String, headers: &HeaderMap) {
    for (number, name) in headers.keys().enumerate() {
        if number > 0 {
            json.push(',');
        }
        push_text(json, name.as_str());
        json.push_str(":[");
        for (number, value) in headers.get_all(name).iter().enumerate() {
            if number > 0 {
                json.push(',');
            }
            push_text(json, &String::from_utf8_lossy(value.as_bytes()));
        }
        json.push(']');
    }
}

/// One value a name: lists are joined, as HTTP allows, and cookies, for which it does not, are spelt differently each.
fn push_ones(json: &mut String, headers: &HeaderMap) {
    let mut first = true;
    let mut push = |name: &str, value: &str| {
        if !std::mem::take(&mut first) {
            json.push(',');
        }
        push_text(json, name);
        json.push(':');
        push_text(json, value);
    };
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        if name == SET_COOKIE {
            for (number, value) in values.iter().enumerate() {
                push(&spelling(name.as_str(), number), value);
            }
        } else {
            push(name.as_str(), &values.join(", "));
        }
    }
}

/// The name with the letters in upper case that the number's bits name. A cookie beyond the spellings there are replaces one.
fn spelling(name: &str, number: usize) -> String {
    let mut bit = 0;
    name.chars()
        .map(|letter| {
            if !letter.is_ascii_alphabetic() {
                return letter;
            }
            let upper = number >> bit & 1 == 1;
            bit += 1;
            if upper {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        })
        .collect()
}

fn push_text(json: &mut String, text: &str) {
    let written = serde_json::to_string(text).expect("a text is JSON");
    json.push_str(&written);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn response(fields: &[(&str, &str)], body: &[u8]) -> Response<Bytes> {
        let mut response = Response::new(Bytes::copy_from_slice(body));
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a name");
            response
                .headers_mut()
                .append(name, value.parse().expect("a value"));
        }
        response
    }

    fn json(fields: &[(&str, &str)], body: &[u8], multi_value: bool) -> String {
        AlbResponse::of(&response(fields, body), multi_value)
            .expect("it fits")
            .into_json()
    }

    #[test]
    fn an_answer_is_written_in_the_way_of_the_question() {
        let fields = [
            ("content-type", "text/html"),
            ("vary", "a"),
            ("vary", "b"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ];
        insta::assert_snapshot!(json(&fields, "<p>\"ü\"".as_bytes(), true), @r#"{"statusCode":200,"statusDescription":"200 OK","multiValueHeaders":{"content-type":["text/html"],"vary":["a","b"],"set-cookie":["a=1","b=2"]},"body":"<p>\"ü\"","isBase64Encoded":false}"#);
        insta::assert_snapshot!(json(&fields, b"", false), @r#"{"statusCode":200,"statusDescription":"200 OK","headers":{"content-type":"text/html","vary":"a, b","set-cookie":"a=1","Set-cookie":"b=2"},"body":"","isBase64Encoded":false}"#);
    }

    #[test]
    fn every_cookie_has_a_name_of_its_own() {
        let spelt: std::collections::BTreeSet<String> = (0..512)
            .map(|number| spelling("set-cookie", number))
            .collect();
        assert_eq!(spelt.len(), 512);
        assert!(
            spelt
                .iter()
                .all(|name| name.eq_ignore_ascii_case("set-cookie"))
        );
    }

    #[test]
    fn texts_stay_texts_and_everything_else_becomes_base64() {
        let is_base64 = |fields: &[(&str, &str)], body: &[u8]| {
            let answer: Value = serde_json::from_str(&json(fields, body, true)).expect("JSON");
            let text = answer["body"].as_str().expect("a body");
            let is_base64 = answer["isBase64Encoded"].as_bool().expect("a flag");
            let decoded = if is_base64 {
                STANDARD.decode(text).expect("base64")
            } else {
                text.as_bytes().to_vec()
            };
            assert_eq!(decoded, body);
            is_base64
        };
        for (fields, body, expected) in [
            (&[("content-type", "text/css")][..], &b"a{}"[..], false),
            (
                &[("content-type", "Text/HTML; charset=utf-8")],
                b"<p>",
                false,
            ),
            (&[("content-type", "application/json")], b"{}", false),
            (
                &[("content-type", "application/manifest+json")],
                b"{}",
                false,
            ),
            (&[("content-type", "image/svg+xml")], b"<svg/>", false),
            (
                &[("content-type", "text/javascript")],
                "const a = '\u{2028}\u{0}'".as_bytes(),
                false,
            ),
            // Latin-1: a text, but none that JSON can hold.
            (&[("content-type", "text/html")], b"f\xfcr", true),
            (&[("content-type", "image/png")], b"\x89PNG", true),
            (&[("content-type", "image/png")], b"text", true),
            (
                &[("content-type", "text/css"), ("content-encoding", "gzip")],
                b"a{}",
                true,
            ),
            (
                &[
                    ("content-type", "text/css"),
                    ("content-encoding", "identity"),
                ],
                b"a{}",
                false,
            ),
            (&[("content-type", "nonsense")], b"a", true),
            (&[], b"a", true),
        ] {
            assert_eq!(is_base64(fields, body), expected, "{fields:?}");
        }
    }

    #[test]
    fn an_answer_passes_up_to_the_last_byte() {
        let fields = [("content-type", "text/plain")];
        let around = json(&fields, b"", true).len();
        let largest = vec![b'a'; ANSWER_MAX_BYTES - around];
        assert_eq!(json(&fields, &largest, true).len(), ANSWER_MAX_BYTES);
        let larger = [&largest[..], b"a"].concat();
        let unfit = AlbResponse::of(&response(&fields, &larger), true);
        let bytes = ANSWER_MAX_BYTES + 1;
        assert_eq!(unfit, Err(Unfit::TooLarge { bytes }));
        // Every quote is two.
        let quotes = vec![b'"'; ANSWER_MAX_BYTES / 2];
        assert!(AlbResponse::of(&response(&fields, &quotes), true).is_err());
        let long = "a".repeat(ANSWER_HEAD_MAX_BYTES);
        let unfit = AlbResponse::of(&response(&[("x", &long)], b""), true);
        assert!(matches!(unfit, Err(Unfit::HeadTooLarge { .. })));
    }

    #[test]
    fn more_than_there_ever_is_is_not_read() {
        let refused = |event: &str| {
            AlbRequest::parse(event.as_bytes())
                .expect_err("it is refused")
                .why
        };
        let event = |rest: &str| format!(r#"{{"httpMethod":"GET","path":"/",{rest}}}"#);
        let body = |bytes: usize| event(&format!(r#""body":"{}""#, "a".repeat(bytes)));
        assert!(AlbRequest::parse(body(BODY_MAX_BYTES).as_bytes()).is_ok());
        assert!(matches!(
            refused(&body(BODY_MAX_BYTES + 1)),
            Why::BodyTooLarge { .. }
        ));
        assert!(matches!(
            refused(&body(EVENT_MAX_BYTES)),
            Why::EventTooLarge { .. }
        ));
        let field = event(&format!(
            r#""headers":{{"x":"{}"}}"#,
            "a".repeat(relay::REQUEST_HEAD_MAX_BYTES)
        ));
        assert!(matches!(refused(&field), Why::HeadTooLarge { .. }));
        let keys = vec!["\"\""; PARAMETERS_MAX + 1].join(",");
        let query = event(&format!(
            r#""multiValueQueryStringParameters":{{"a":[{keys}]}}"#
        ));
        assert!(matches!(refused(&query), Why::HeadTooLarge { .. }));
        let deep = event(&format!(r#""headers":{}"#, "[".repeat(5000)));
        assert!(matches!(refused(&deep), Why::Event(_)));
    }

    #[test]
    fn what_is_wrong_is_said_without_what_was_sent() {
        let event = r#"{"httpMethod":"GET","path":"/","headers":{"cookie":{"secret":1}}}"#;
        let refused = AlbRequest::parse(event.as_bytes()).expect_err("it is refused");
        insta::assert_snapshot!(refused, @"the event is not of the form that load balancers send: Data at byte 52");
    }

    proptest! {
        #[test]
        fn every_answer_that_fits_is_read_back(body in proptest::collection::vec(any::<u8>(), 0..200), value in "[ -~\u{80}-\u{ff}]{0,20}", multi_value: bool) {
            let mut response = response(&[("content-type", "text/plain")], &body);
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append("x", value);
            }
            let answer = AlbResponse::of(&response, multi_value).expect("it fits").into_json();
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            prop_assert_eq!(&answer["statusCode"], 200);
        }
    }
}
