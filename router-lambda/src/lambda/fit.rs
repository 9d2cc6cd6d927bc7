//! Makes an answer small enough for a load balancer. Pure.
//!
//! | the answer | goes out |
//! |---|---|
//! | a text of more than 1 KB, and the visitor reads gzip | as gzip |
//! | more than 1 MB as JSON, not encoded yet, and the visitor does not refuse gzip | as gzip, whatever it is |
//! | all else | as it is |
//!
//! What does not fit then is for the caller to tell. A part of a file, and what must not be transformed, stay as they are.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    ETAG, VARY,
};
use http::{HeaderMap, HeaderValue, Response};

use super::alb::{AlbRequest, AlbResponse, Unfit, is_textual};

/// Bytes below which compressing is not worth the time.
const WORTH_BYTES: usize = 1024;
/// Measured with the 1.2 MB of React's renderer: level 1 leaves 0.24 of it, 3 leaves 0.18 in two and a half times the time, 6 leaves
/// 0.17 in seven times; and a function of 128 MB has a fourteenth of a core.
const LEVEL: u32 = 3;

/// What a visitor says of gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gzip {
    /// It reads it.
    Accepted,
    /// It says nothing about codings at all, so that every one may be sent.
    Unsaid,
    /// It does not read it.
    Refused,
}

/// The answer as JSON.
pub(super) fn fitted(response: Response<Bytes>, request: &AlbRequest) -> Result<String, Unfit> {
    let gzip = gzip_of(&request.headers);
    let may = may_be_encoded(&response);
    let worth = is_textual(response.headers()) && response.body().len() > WORTH_BYTES;
    if may && worth && gzip == Gzip::Accepted {
        let response = encoded(response);
        return AlbResponse::of(&response, request.multi_value).map(AlbResponse::into_json);
    }
    match AlbResponse::of(&response, request.multi_value) {
        Err(Unfit::TooLarge { .. }) if may && gzip != Gzip::Refused => {
            AlbResponse::of(&encoded(response), request.multi_value).map(AlbResponse::into_json)
        }
        answer => answer.map(AlbResponse::into_json),
    }
}

fn gzip_of(headers: &HeaderMap) -> Gzip {
    let mut said = false;
    let mut any = Gzip::Refused;
    for line in headers.get_all(ACCEPT_ENCODING) {
        said = true;
        for coding in line.to_str().unwrap_or_default().split(',') {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts
                .find_map(|parameter| parameter.strip_prefix("q="))
                .map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
            let verdict = if weight.is_some_and(|weight| weight > 0.0) {
                Gzip::Accepted
            } else {
                Gzip::Refused
            };
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                return verdict;
            }
            if name == "*" {
                any = verdict;
            }
        }
    }
    if said { any } else { Gzip::Unsaid }
}

fn may_be_encoded(response: &Response<Bytes>) -> bool {
    let headers = response.headers();
    let untouchable = headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let value = value.to_str().unwrap_or_default();
        value
            .split(',')
            .any(|word| word.trim().eq_ignore_ascii_case("no-transform"))
    });
    let encoded = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    !response.body().is_empty()
        && response.status() != http::StatusCode::PARTIAL_CONTENT
        && !headers.contains_key(CONTENT_RANGE)
        && !untouchable
        && !encoded
}

/// The same, as gzip.
fn encoded(response: Response<Bytes>) -> Response<Bytes> {
    let (mut parts, body) = response.into_parts();
    let room = Vec::with_capacity(body.len() / 3);
    let mut encoder = GzEncoder::new(room, Compression::new(LEVEL));
    let written = encoder.write_all(&body).and_then(|()| encoder.finish());
    let body = written.expect("a vector takes everything");
    let headers = &mut parts.headers;
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(CONTENT_LENGTH);
    // Bytes of this are not bytes of the file.
    headers.remove(ACCEPT_RANGES);
    let varies = headers.get_all(VARY).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value == "*" || names(value, "accept-encoding"))
    });
    if !varies {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
    // The same content in other bytes.
    if let Some(tag) = headers.get(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
    Response::from_parts(parts, body.into())
}

fn names(list: &str, name: &str) -> bool {
    list.split(',')
        .any(|word| word.trim().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use base64::Engine as _;
    use flate2::read::GzDecoder;
    use serde_json::Value;

    use super::super::alb::ANSWER_MAX_BYTES;
    use super::*;

    fn request(accepts: Option<&str>) -> AlbRequest {
        let field = accepts.map_or(String::new(), |accepts| {
            format!(r#""accept-encoding":["{accepts}"]"#)
        });
        let event = format!(r#"{{"httpMethod":"GET","path":"/","multiValueHeaders":{{{field}}}}}"#);
        AlbRequest::parse(event.as_bytes()).expect("a request")
    }

    fn response(fields: &[(&'static str, &'static str)], body: Vec<u8>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(body));
        for (name, value) in fields {
            response
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        response
    }

    /// Its fields, and its body as a browser has it in the end; and whether it came as gzip.
    fn sent(json: &str) -> (Value, Vec<u8>, bool) {
        let answer: Value = serde_json::from_str(json).expect("JSON");
        let fields = answer["multiValueHeaders"].clone();
        let text = answer["body"].as_str().expect("a body");
        let body = if answer["isBase64Encoded"] == true {
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .expect("base64")
        } else {
            text.as_bytes().to_vec()
        };
        if fields["content-encoding"] != serde_json::json!(["gzip"]) {
            return (fields, body, false);
        }
        let mut whole = Vec::new();
        GzDecoder::new(&body[..])
            .read_to_end(&mut whole)
            .expect("gzip");
        (fields, whole, true)
    }

    /// Something that compresses as programs do.
    fn program(bytes: usize) -> Vec<u8> {
        let line = |number: usize| {
            format!(
                "export const name{number} = (a, b) => a + b * {};\n",
                number * 7919
            )
        };
        let mut text: Vec<u8> = (0..)
            .flat_map(|number| line(number).into_bytes())
            .take(bytes)
            .collect();
        text.truncate(bytes);
        text
    }

    #[test]
    fn what_is_worth_it_goes_out_as_gzip_and_nothing_else() {
        const JS: (&str, &str) = ("content-type", "text/javascript");
        let text = program(20_000);
        for (accepts, fields, body, zipped) in [
            (Some("gzip, deflate, br"), &[JS][..], text.clone(), true),
            (Some("br;q=1.0, gzip;q=0.5"), &[JS], text.clone(), true),
            (Some("*"), &[JS], text.clone(), true),
            (Some("gzip;q=0"), &[JS], text.clone(), false),
            (Some("gzip;q=0, *"), &[JS], text.clone(), false),
            (Some("br"), &[JS], text.clone(), false),
            (Some(""), &[JS], text.clone(), false),
            (None, &[JS], text.clone(), false),
            (Some("gzip"), &[JS], program(1000), false),
            (
                Some("gzip"),
                &[("content-type", "image/png")],
                text.clone(),
                false,
            ),
            (
                Some("gzip"),
                &[JS, ("content-encoding", "br")],
                text.clone(),
                false,
            ),
            (
                Some("gzip"),
                &[JS, ("content-range", "bytes 0-9/20")],
                text.clone(),
                false,
            ),
            (
                Some("gzip"),
                &[JS, ("cache-control", "public, No-Transform")],
                text.clone(),
                false,
            ),
            (Some("gzip"), &[JS], Vec::new(), false),
        ] {
            let json = fitted(response(fields, body.clone()), &request(accepts)).expect("it fits");
            let (_, received, was_zipped) = sent(&json);
            assert_eq!(was_zipped, zipped, "{accepts:?} {fields:?}");
            assert_eq!(received, body, "{accepts:?} {fields:?}");
        }
    }

    #[test]
    fn what_goes_out_in_other_bytes_says_so() {
        let fields = [
            ("content-type", "text/css"),
            ("etag", "\"a\""),
            ("vary", "origin"),
            ("accept-ranges", "bytes"),
            ("content-length", "20000"),
        ];
        let json =
            fitted(response(&fields, program(20_000)), &request(Some("gzip"))).expect("it fits");
        let (fields, ..) = sent(&json);
        insta::assert_snapshot!(fields, @r#"{"content-encoding":["gzip"],"content-type":["text/css"],"etag":["W/\"a\""],"vary":["origin","accept-encoding"]}"#);
    }

    #[test]
    fn a_file_of_several_megabytes_passes_if_it_compresses() {
        let text = program(3 * 1024 * 1024);
        for (accepts, kind) in [
            (Some("gzip"), "text/javascript"),
            (None, "text/javascript"),
            (Some("gzip"), "application/wasm"),
        ] {
            let json = fitted(
                response(&[("content-type", kind)], text.clone()),
                &request(accepts),
            )
            .expect("it fits");
            assert!(json.len() <= ANSWER_MAX_BYTES);
            assert_eq!(sent(&json).1, text, "{accepts:?} {kind}");
        }
        let refused = fitted(
            response(&[("content-type", "text/javascript")], text),
            &request(Some("identity")),
        );
        assert!(matches!(refused, Err(Unfit::TooLarge { .. })));
        // A picture does not.
        let mut random = vec![0; 900 * 1024];
        getrandom::fill(&mut random).expect("random bytes");
        let picture = fitted(
            response(&[("content-type", "image/webp")], random),
            &request(Some("gzip")),
        );
        assert!(matches!(picture, Err(Unfit::TooLarge { .. })));
    }
}
