//! Where the site's pages answer: below its `base`, with a slash at the end or without. Pure; the runner tells both.

use serde::Deserialize;

/// How a site's addresses are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Addresses {
    /// Below which path the site is, such as `/docs`; `/` or empty for none.
    base: String,
    /// Whether a page's address ends in a slash.
    trailing_slash: TrailingSlash,
}

/// Astro's `trailingSlash`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TrailingSlash {
    /// Both ways answer.
    #[default]
    Ignore,
    Always,
    Never,
}

impl Addresses {
    /// The address of a page that its file names `/about/`.
    pub(crate) fn of(&self, page: &str) -> String {
        let address = self.below_base(page);
        match self.trailing_slash {
            TrailingSlash::Never if address.len() > 1 => address.trim_end_matches('/').to_owned(),
            _ => address,
        }
    }

    /// A path below the base.
    pub(crate) fn below_base(&self, path: &str) -> String {
        format!("{}{path}", self.base.trim_end_matches('/'))
    }

    /// The path in the site of an address as a browser shows it, decoded.
    pub(crate) fn path_of(&self, address: &str) -> String {
        let base = self.base.trim_end_matches('/');
        let path = address.strip_prefix(base).unwrap_or(address);
        percent_decoded(path)
    }
}

/// A path with what no request may have in it as `%41`. What is encoded already stays.
pub(crate) fn percent_encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?[]".contains(&byte);
        if plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn percent_decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| path.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(base: &str, trailing_slash: &str) -> Addresses {
        let told = serde_json::json!({ "base": base, "trailingSlash": trailing_slash });
        serde_json::from_value(told).expect("addresses")
    }

    #[test]
    fn a_page_answers_where_the_configuration_says() {
        for (base, slash, page, expected) in [
            ("/", "ignore", "/about/", "/about/"),
            ("", "never", "/about/", "/about"),
            ("/", "never", "/", "/"),
            ("/docs", "always", "/about/", "/docs/about/"),
            ("/docs/", "never", "/about/", "/docs/about"),
            ("/docs/", "never", "/", "/docs"),
        ] {
            let addresses = addresses(base, slash);
            assert_eq!(addresses.of(page), expected, "{base} {slash}");
        }
        assert_eq!(
            addresses("/docs", "never").path_of("/docs/gr%C3%B6%C3%9Fe"),
            "/größe"
        );
    }

    #[test]
    fn what_no_request_may_have_is_encoded_once() {
        assert_eq!(
            percent_encoded("/my page/größe"),
            "/my%20page/gr%C3%B6%C3%9Fe"
        );
        assert_eq!(percent_encoded("/a%20b?c=1"), "/a%20b?c=1");
    }
}
