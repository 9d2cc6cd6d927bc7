//! The style sheet and the script of the pages, in the binary. Their names change with what is in them, so that a browser
//! keeps them for good.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use sha2::{Digest as _, Sha256};

/// Where they are.
const FOLDER: &str = "/_edit/static/";
/// Hexadecimal digits of a hash in a name: two versions that have the same one are nobody's concern.
const HASH_DIGITS: usize = 16;

/// A file in the binary.
#[derive(Debug)]
pub(super) struct Asset {
    name: &'static str,
    extension: &'static str,
    kind: &'static str,
    hash: String,
    body: Bytes,
}

/// What all pages look like.
pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "page",
        "css",
        "text/css; charset=utf-8",
        include_str!("page.css"),
    )
});

/// What a page does by itself.
pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "page",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("page.js"),
    )
});

impl Asset {
    fn new(
        name: &'static str,
        extension: &'static str,
        kind: &'static str,
        source: &'static str,
    ) -> Self {
        let body = lean(source);
        let digest = Sha256::digest(body.as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            name,
            extension,
            kind,
            hash: hash[..HASH_DIGITS].to_owned(),
            body: Bytes::from(body),
        }
    }

    /// Where a page finds it.
    pub(super) fn path(&self) -> String {
        format!("{FOLDER}{}.{}.{}", self.name, self.hash, self.extension)
    }

    /// The hash of a path to this asset, or to another version of it.
    fn asked<'p>(&self, path: &'p str) -> Option<&'p str> {
        let hash = path
            .strip_prefix(FOLDER)?
            .strip_prefix(self.name)?
            .strip_prefix('.')?
            .strip_suffix(self.extension)?
            .strip_suffix('.')?;
        let fits = hash.len() == HASH_DIGITS
            && hash
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        fits.then_some(hash)
    }
}

/// Takes out what only readers of the source need: indentation, and lines that are comments.
fn lean(source: &str) -> String {
    let lines = source.lines().map(str::trim);
    let kept: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("/*"))
        .collect();
    kept.join("\n")
}

/// The file at a raw path, which may be kept for good; none if there is no such file.
///
/// A deploy goes router by router: a page of the new one asks the old one for its script, and the other way round. So
/// another version gets the present one, which is not kept.
pub fn asset(path: &str) -> Option<Response<Bytes>> {
    let assets: [&Asset; 2] = [&STYLE, &SCRIPT];
    let (asset, hash) = assets
        .into_iter()
        .find_map(|asset| Some((asset, asset.asked(path)?)))?;
    let keep = if hash == asset.hash {
        "public, max-age=31536000, immutable"
    } else {
        "no-store"
    };
    let mut answer = Response::new(asset.body.clone());
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_kept_for_good_under_the_name_that_changes_with_it() {
        for (asset_there, kind) in [(&STYLE, "text/css"), (&SCRIPT, "text/javascript")] {
            let answer = asset(&asset_there.path()).expect("it is there");
            assert_eq!(answer.status(), StatusCode::OK);
            let header = |name: &str| answer.headers()[name].to_str().expect("text");
            assert!(header("content-type").starts_with(kind));
            assert_eq!(
                header("cache-control"),
                "public, max-age=31536000, immutable"
            );
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert!(!answer.body().is_empty());
        }
    }

    #[test]
    fn another_version_gets_the_present_one_and_does_not_keep_it() {
        let answer = asset("/_edit/static/page.0123456789abcdef.js").expect("it is there");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.body(), &SCRIPT.body);
    }

    #[test]
    fn what_is_not_there_is_not_there() {
        let path = STYLE.path();
        for path in [
            "/_edit/static/",
            "/_edit/static/page.css",
            "/_edit/static/page.0123456789abcde.js",
            "/_edit/static/page.0123456789ABCDEF.js",
            "/_edit/static/page.0123456789abcdeg.js",
            "/_edit/static/page.0123456789abcdef.mjs",
            "/_edit/static/other.0123456789abcdef.js",
            "/_edit/static/../static/page.0123456789abcdef.js",
            &format!("{path}?"),
            &format!("/{path}"),
            &path.replace("static", "%73tatic"),
        ] {
            assert!(asset(path).is_none(), "{path}");
        }
    }
}
