//! Admits the bar into a page's Content-Security-Policy, and nothing else. Pure.
//!
//! The policy stays the site's: only the bar's one script and its own addresses are added, in directives that govern
//! nothing but script elements and connections. So `default-src` and `script-src` themselves are never changed (they also govern
//! pictures, workers and `eval`): where they decide about scripts, `script-src-elem` is added, with their sources and ours.

/// Where the script is, from the door's root.
const SCRIPT_PATH: &str = "/_edit/bar.js";
/// Where the bar asks, from the door's root.
const CONNECT_PATH: &str = "/_edit/";

/// What the bar is to a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The page's own host, with its port if it has one: `127.0.0.1:8080`.
    pub(super) host: String,
    /// The digest of the script, as a policy names it: `sha256-…`.
    pub(super) digest: String,
}

/// What the script's tag has to carry, for the policies seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// A nonce of the site's.
    pub(super) nonce: Option<String>,
    /// Whether to name the digest.
    pub(super) integrity: bool,
}

/// A host as policies and addresses can name it. An IPv6 address is none: a policy has no way to write it.
pub(super) fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !name.is_empty()
        && name.bytes().all(plain)
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// One header or `<meta>`: policies separated by commas, each of which has to let us in. Text that needs no change is
/// returned byte for byte.
pub(super) fn admit(policies: &str, visitor: &Visitor, pass: &mut Pass) -> String {
    let admitted: Vec<String> = policies
        .split(',')
        .map(|policy| admit_one(policy, visitor, pass))
        .collect();
    admitted.join(",")
}

fn admit_one(policy: &str, visitor: &Visitor, pass: &mut Pass) -> String {
    let mut directives: Vec<String> = policy.split(';').map(str::to_owned).collect();
    admit_script(&mut directives, visitor, pass);
    admit_connections(&mut directives, visitor);
    directives.join(";")
}

fn admit_script(directives: &mut Vec<String>, visitor: &Visitor, pass: &mut Pass) {
    let Some((name, sources)) = governing(
        directives,
        &["script-src-elem", "script-src", "default-src"],
    ) else {
        return;
    };
    let has = |keyword: &str| {
        sources
            .iter()
            .any(|source| source.eq_ignore_ascii_case(keyword))
    };
    let ours = if has("'strict-dynamic'") {
        // Here hosts count for nothing, and 'unsafe-inline' is not in force: a digest switches nothing off.
        let nonces = || sources.iter().filter_map(|source| nonce(source));
        let known = match &pass.nonce {
            Some(known) => nonces().any(|nonce| nonce == known),
            None => {
                pass.nonce = nonces().next().map(str::to_owned);
                pass.nonce.is_some()
            }
        };
        if known {
            return;
        }
        pass.integrity = true;
        let digest = format!("'{}'", visitor.digest);
        if sources.contains(&digest) {
            return;
        }
        digest
    } else if is_open(&sources, visitor) {
        return;
    } else {
        format!("{}{SCRIPT_PATH}", visitor.host)
    };
    add(directives, &name, "script-src-elem", sources, ours);
}

fn admit_connections(directives: &mut Vec<String>, visitor: &Visitor) {
    let Some((name, sources)) = governing(directives, &["connect-src", "default-src"]) else {
        return;
    };
    if !is_open(&sources, visitor) {
        let ours = format!("{}{CONNECT_PATH}", visitor.host);
        add(directives, &name, "connect-src", sources, ours);
    }
}

/// The first of these directives that is there, and its sources. Of two of the same name the first one counts.
fn governing(directives: &[String], names: &[&str]) -> Option<(String, Vec<String>)> {
    names.iter().find_map(|name| {
        directives.iter().find_map(|directive| {
            let mut words = directive.split_ascii_whitespace();
            let found = words.next()?.eq_ignore_ascii_case(name);
            found.then(|| ((*name).to_owned(), words.map(str::to_owned).collect()))
        })
    })
}

/// Whether the page's own origin is let in already.
fn is_open(sources: &[String], visitor: &Visitor) -> bool {
    sources.iter().any(|source| {
        let source = source.to_ascii_lowercase();
        let host = source.strip_prefix("http://").unwrap_or(&source);
        // `http:` lets in https as well; `https:` says nothing of a page that came over http.
        matches!(source.as_str(), "'self'" | "*" | "http:")
            || host.eq_ignore_ascii_case(&visitor.host)
    })
}

fn nonce(source: &str) -> Option<&str> {
    let prefix = source.get(.."'nonce-".len())?;
    if !prefix.eq_ignore_ascii_case("'nonce-") {
        return None;
    }
    let nonce = source["'nonce-".len()..].strip_suffix('\'')?;
    // What a nonce may consist of; anything else would have to be escaped in the tag.
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    (!nonce.is_empty() && nonce.bytes().all(plain)).then_some(nonce)
}

/// Adds a source to the directive `wanted`. If another one governs so far, `wanted` is added with the same sources.
fn add(
    directives: &mut Vec<String>,
    governing: &str,
    wanted: &str,
    mut sources: Vec<String>,
    ours: String,
) {
    // 'none' means nothing beside a source, and browsers complain of it.
    sources.retain(|source| !source.eq_ignore_ascii_case("'none'"));
    sources.push(ours);
    let directive = format!("{wanted} {}", sources.join(" "));
    if governing == wanted {
        let place = directives.iter_mut().find(|directive| {
            let name = directive.split_ascii_whitespace().next();
            name.is_some_and(|name| name.eq_ignore_ascii_case(wanted))
        });
        if let Some(place) = place {
            let indent = place.len() - place.trim_start().len();
            *place = format!("{}{directive}", &place[..indent]);
        }
        return;
    }
    // A semicolon at the end leaves an empty last one: ours goes before it.
    let end = match directives.last() {
        Some(last) if last.trim().is_empty() => directives.len() - 1,
        _ => directives.len(),
    };
    directives.insert(end, format!(" {directive}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(policies: &str) -> (String, Pass) {
        let visitor = Visitor {
            host: "edit.example".to_owned(),
            digest: "sha256-D".to_owned(),
        };
        let mut pass = Pass::default();
        let policies = admit(policies, &visitor, &mut pass);
        (policies, pass)
    }

    #[test]
    fn a_policy_that_lets_us_in_stays_as_it_is() {
        for policy in [
            "",
            "img-src 'none'",
            "default-src 'self'",
            "default-src *;",
            "script-src 'self' 'unsafe-inline'; connect-src *",
            "script-src http:; connect-src 'SELF'",
            "Script-Src EDIT.example; connect-src http://edit.example",
            "sandbox allow-scripts",
            "upgrade-insecure-requests;  ;script-src-elem 'self'",
            "script-src 'nonce-abc' 'strict-dynamic'",
        ] {
            assert_eq!(admitted(policy).0, policy);
        }
    }

    #[test]
    fn only_scripts_and_connections_are_let_in_and_only_ours() {
        for (policy, expected) in [
            (
                "default-src 'none'",
                "default-src 'none'; script-src-elem edit.example/_edit/bar.js; connect-src edit.example/_edit/",
            ),
            (
                "default-src 'none'; img-src 'self';",
                "default-src 'none'; img-src 'self'; script-src-elem edit.example/_edit/bar.js; connect-src edit.example/_edit/;",
            ),
            (
                "default-src https://cdn.example 'unsafe-inline'",
                "default-src https://cdn.example 'unsafe-inline'; script-src-elem https://cdn.example 'unsafe-inline' edit.example/_edit/bar.js; connect-src https://cdn.example 'unsafe-inline' edit.example/_edit/",
            ),
            (
                "script-src 'nonce-abc'; connect-src 'none'",
                "script-src 'nonce-abc'; connect-src edit.example/_edit/; script-src-elem 'nonce-abc' edit.example/_edit/bar.js",
            ),
            (
                "script-src 'none'; script-src-elem 'none'; worker-src 'self'",
                "script-src 'none'; script-src-elem edit.example/_edit/bar.js; worker-src 'self'",
            ),
            (
                "script-src https:",
                "script-src https:; script-src-elem https: edit.example/_edit/bar.js",
            ),
            (
                "script-src",
                "script-src; script-src-elem edit.example/_edit/bar.js",
            ),
            // The second of two directives of a name counts for nothing.
            (
                "connect-src 'none'; connect-src *",
                "connect-src edit.example/_edit/; connect-src *",
            ),
            // A source that only looks like ours.
            (
                "connect-src edit.example.evil edit.example:8080 edit.example/x",
                "connect-src edit.example.evil edit.example:8080 edit.example/x edit.example/_edit/",
            ),
            // Every policy has its say.
            (
                "script-src 'self', script-src 'none'",
                "script-src 'self', script-src 'none'; script-src-elem edit.example/_edit/bar.js",
            ),
        ] {
            assert_eq!(admitted(policy).0, expected, "{policy}");
            assert_eq!(admitted(policy).1, Pass::default(), "{policy}");
        }
    }

    #[test]
    fn a_policy_that_trusts_no_host_gets_the_sites_nonce_or_our_digest() {
        let nonce = |nonce: &str, integrity| Pass {
            nonce: Some(nonce.to_owned()),
            integrity,
        };
        let digest = Pass {
            nonce: None,
            integrity: true,
        };
        for (policy, expected, pass) in [
            (
                "script-src 'strict-dynamic' 'nonce-aB+/=' 'unsafe-inline' https:",
                "script-src 'strict-dynamic' 'nonce-aB+/=' 'unsafe-inline' https:",
                nonce("aB+/=", false),
            ),
            (
                "script-src 'strict-dynamic' 'sha256-x'",
                "script-src 'strict-dynamic' 'sha256-x'; script-src-elem 'strict-dynamic' 'sha256-x' 'sha256-D'",
                digest.clone(),
            ),
            (
                "script-src-elem 'strict-dynamic' 'sha256-D'",
                "script-src-elem 'strict-dynamic' 'sha256-D'",
                digest.clone(),
            ),
            // A nonce that could break out of the tag is none.
            (
                "script-src-elem 'strict-dynamic' 'nonce-a\"b'",
                "script-src-elem 'strict-dynamic' 'nonce-a\"b' 'sha256-D'",
                digest,
            ),
            // A tag has one nonce only.
            (
                "script-src 'strict-dynamic' 'nonce-a',script-src-elem 'strict-dynamic' 'nonce-b'",
                "script-src 'strict-dynamic' 'nonce-a',script-src-elem 'strict-dynamic' 'nonce-b' 'sha256-D'",
                nonce("a", true),
            ),
        ] {
            assert_eq!(admitted(policy), (expected.to_owned(), pass), "{policy}");
        }
    }

    #[test]
    fn what_was_let_in_once_is_not_added_twice() {
        let (once, _) = admitted("default-src 'none'; script-src 'strict-dynamic' 'sha256-x'");
        assert_eq!(admitted(&once).0.matches("'sha256-D'").count(), 1);
    }

    #[test]
    fn only_a_plain_host_comes_into_a_policy() {
        for (host, expected) in [
            ("localhost", true),
            ("127.0.0.1:8080", true),
            ("edit.amelia.example", true),
            ("[::1]:8080", false),
            ("localhost:80; script-src *", false),
            ("localhost:", false),
            ("", false),
            ("a,b", false),
        ] {
            assert_eq!(is_host(host), expected, "{host}");
        }
    }
}
