//! Content from elsewhere: the bytes behind a `contentUrl`, because a photo does not fit a message.
//!
//! Whoever writes an instruction says where the agent is to look, from inside the network in which it runs. So an address is a
//! wish, and three things stand before it:
//!
//! 1. **The client's policy.** The address continues one of `policy.contentSources`, segment by segment, and is written without
//!    anything that two readers of addresses take for two things ([`place`], pure).
//! 2. **The network.** The name is resolved once, every address it has is looked at, and the connection goes to one that was:
//!    what is not public (the task's credentials at 169.254.170.2, a neighbour, this machine) is not asked, whatever its name. A
//!    redirect is an answer like any other and not followed ([`server`]).
//! 3. **The instruction's own word.** The bytes hash to its `sha256`, and are no more than a file may have.
//!
//! What is at fault goes to the producer by `content_unavailable` with the address, but never with the query of it, in which a presigned
//! address has its signature.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::client_config::Policy;
use contract::instruction::Content;
use contract::{Change, Problem, SitePath, limits};
use sha2::{Digest as _, Sha256};

mod place;
mod server;

use place::Place;
use server::Server;

/// How long all of one instruction's content may take: 50 MB at 4 Mbit/s. The instructions behind it wait meanwhile.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Buckets of S3, of which there are none on a laptop.
#[async_trait]
pub(crate) trait Buckets: fmt::Debug + Send + Sync {
    /// The whole object, or why not in the words of a person, as the rest of a sentence. It reads no more than `max_bytes`.
    async fn get(&self, bucket: &str, key: &str, max_bytes: u64) -> Result<Vec<u8>, String>;
}

/// Fetches content.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    buckets: Option<Arc<dyn Buckets>>,
    server: Server,
}

/// Content that could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unavailable {
    /// In words.
    pub(crate) message: String,
    /// What to do now, where that is more than to check address and hash.
    pub(crate) hint: Option<&'static str>,
    /// All of it, each with the JSON path of what is at fault.
    pub(crate) details: Vec<Problem>,
}

impl Fetcher {
    /// For the cloud: only what is public is asked.
    pub(crate) fn new(buckets: Option<Arc<dyn Buckets>>) -> Self {
        Self {
            buckets,
            server: Server::of_the_public(),
        }
    }

    /// For a developer's machine: a source that names this very machine by its loopback address is the developer's own word, who
    /// can reach everything there anyway.
    pub(crate) fn on_a_laptop() -> Self {
        Self {
            buckets: None,
            server: Server::of_the_public_and_this_machine(),
        }
    }

    /// The bytes behind every address in `changes`, each proven by its hash. Nothing is asked for if anything must not be.
    pub(crate) async fn fetch(
        &self,
        changes: &[Change],
        policy: &Policy,
    ) -> Result<BTreeMap<String, Vec<u8>>, Unavailable> {
        let wanted = Wanted::all(changes);
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut faults = Vec::new();
        let mut places = Vec::new();
        for wanted in &wanted {
            match allowed(wanted.url, policy) {
                Ok(place) => places.push(place),
                Err(why) => faults.push(wanted.fault("contentUrl", &why)),
            }
        }
        if !faults.is_empty() {
            let hint = "Put it where the client's `policy.contentSources` allows, or send the bytes in the message as `contentBase64`.";
            return Err(unavailable(faults, Some(hint)));
        }
        let fetching = self.fetch_all(&wanted, &places, policy);
        match tokio::time::timeout(TIME_MAX, fetching).await {
            Ok(fetched) => fetched,
            Err(_) => {
                let why = format!("could not be fetched within {} s", TIME_MAX.as_secs());
                Err(unavailable(vec![wanted[0].fault("contentUrl", &why)], None))
            }
        }
    }

    async fn fetch_all(
        &self,
        wanted: &[Wanted<'_>],
        places: &[Place],
        policy: &Policy,
    ) -> Result<BTreeMap<String, Vec<u8>>, Unavailable> {
        let per_file = policy
            .max_file_bytes
            .unwrap_or(limits::FILE_MAX_BYTES as u64);
        let mut room = limits::CHANGE_SET_MAX_BYTES as u64;
        let mut fetched = BTreeMap::<String, Vec<u8>>::new();
        let mut faults = Vec::new();
        for (wanted, place) in wanted.iter().zip(places) {
            if !fetched.contains_key(wanted.url) {
                let max = per_file.min(room);
                match self.get(place, max).await {
                    Ok(bytes) => {
                        room = room.saturating_sub(bytes.len() as u64);
                        tracing::debug!(%place, bytes = bytes.len(), "content was fetched");
                        fetched.insert(wanted.url.to_owned(), bytes);
                    }
                    Err(why) => {
                        faults.push(wanted.fault("contentUrl", &why));
                        continue;
                    }
                }
            }
            let found = hex(&Sha256::digest(&fetched[wanted.url]));
            if found != wanted.sha256 {
                let why = format!("has the SHA-256 {found}, and not the one of the instruction");
                faults.push(wanted.fault("contentUrl", &why));
            }
        }
        if faults.is_empty() {
            Ok(fetched)
        } else {
            Err(unavailable(faults, None))
        }
    }

    async fn get(&self, place: &Place, max_bytes: u64) -> Result<Vec<u8>, String> {
        match (place, &self.buckets) {
            (Place::Server(address), _) => self.server.get(address, max_bytes).await,
            (Place::Bucket { bucket, key }, Some(buckets)) => {
                let bytes = buckets.get(bucket, key, max_bytes).await?;
                if bytes.len() as u64 > max_bytes {
                    return Err(too_large(max_bytes));
                }
                Ok(bytes)
            }
            (Place::Bucket { .. }, None) => {
                Err("is in a bucket, and this environment has no way to one".to_owned())
            }
        }
    }
}

/// Whether `text` can be a source on a developer's machine, where there are no buckets.
pub(crate) fn check_source(text: &str) -> Result<String, String> {
    match Place::read(text) {
        Ok(Place::Server(address)) if address.query.is_none() => Ok(text.to_owned()),
        Ok(_) => Err("must be https://host/path, without a query".to_owned()),
        Err(why) => Err(format!("must be https://host/path; it {why}")),
    }
}

/// Reads an address that the policy allows, or says why it does not.
fn allowed(url: &str, policy: &Policy) -> Result<Place, String> {
    if policy.content_sources.is_empty() {
        return Err(
            "is elsewhere, and the client's policy allows no place to fetch from".to_owned(),
        );
    }
    let place = Place::read(url)?;
    // A source that cannot be read allows nothing.
    let mut sources = policy
        .content_sources
        .iter()
        .flat_map(|source| Place::read(source));
    if sources.any(|source| place.continues(&source)) {
        Ok(place)
    } else {
        Err(format!(
            "is at {place}, which is no place that the client's policy allows"
        ))
    }
}

/// What one change wants.
struct Wanted<'a> {
    index: usize,
    path: &'a SitePath,
    url: &'a str,
    sha256: &'a str,
}

impl<'a> Wanted<'a> {
    fn all(changes: &'a [Change]) -> Vec<Self> {
        let wanted = |(index, change): (usize, &'a Change)| match change {
            Change::Write {
                path,
                content: Content::Url { url, sha256 },
                ..
            } => Some(Self {
                index,
                path,
                url,
                sha256,
            }),
            _ => None,
        };
        changes.iter().enumerate().filter_map(wanted).collect()
    }

    /// `why` is the rest of a sentence about what is behind the address.
    fn fault(&self, field: &str, why: &str) -> Problem {
        Problem {
            path: format!("$.action.changes[{}].{field}", self.index),
            message: format!("{}: what its `contentUrl` names {why}.", self.path),
        }
    }
}

fn unavailable(mut details: Vec<Problem>, hint: Option<&'static str>) -> Unavailable {
    let message = details[0].message.clone();
    details.truncate(limits::PROBLEMS_MAX);
    Unavailable {
        message,
        hint,
        details,
    }
}

fn too_large(max_bytes: u64) -> String {
    format!("has more than {max_bytes} bytes, which is the most there is room for")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Buckets in memory that say what they were asked for.
    #[derive(Debug, Default)]
    struct Kept {
        objects: BTreeMap<(String, String), Vec<u8>>,
        asked: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Buckets for Kept {
        async fn get(&self, bucket: &str, key: &str, _max_bytes: u64) -> Result<Vec<u8>, String> {
            self.asked.lock().expect("no panic").push(key.to_owned());
            let object = self.objects.get(&(bucket.to_owned(), key.to_owned()));
            object.cloned().ok_or_else(|| "is not there".to_owned())
        }
    }

    fn write(path: &str, url: &str, content: &[u8]) -> Change {
        Change::Write {
            path: path.parse().expect("a path"),
            content: Content::Url {
                url: url.to_owned(),
                sha256: hex(&Sha256::digest(content)),
            },
            base: None,
        }
    }

    fn policy(sources: &[&str]) -> Policy {
        Policy {
            content_sources: sources.iter().map(|&source| source.to_owned()).collect(),
            max_file_bytes: Some(10),
            ..Policy::default()
        }
    }

    fn kept(objects: &[(&str, &[u8])]) -> (Arc<Kept>, Fetcher) {
        let objects = objects
            .iter()
            .map(|(key, bytes)| (("media".to_owned(), (*key).to_owned()), bytes.to_vec()));
        let kept = Arc::new(Kept {
            objects: objects.collect(),
            asked: Mutex::default(),
        });
        let buckets: Arc<dyn Buckets> = Arc::<Kept>::clone(&kept);
        (kept, Fetcher::new(Some(buckets)))
    }

    #[tokio::test]
    async fn what_is_in_an_allowed_bucket_is_fetched_once_and_proven() {
        let (kept, fetcher) = kept(&[("amelia/a.jpg", b"a"), ("amelia/b.jpg", b"b")]);
        let changes = [
            write("public/a.jpg", "s3://media/amelia/a.jpg", b"a"),
            write("public/same.jpg", "s3://media/amelia/a.jpg", b"a"),
            write("public/b.jpg", "s3://media/amelia/b.jpg", b"b"),
        ];
        let policy = policy(&["s3://media/amelia/"]);
        let bytes = fetcher.fetch(&changes, &policy).await.expect("all of it");
        assert_eq!(bytes["s3://media/amelia/a.jpg"], b"a");
        assert_eq!(bytes["s3://media/amelia/b.jpg"], b"b");
        assert_eq!(
            *kept.asked.lock().expect("no panic"),
            ["amelia/a.jpg", "amelia/b.jpg"]
        );
    }

    #[tokio::test]
    async fn nothing_is_asked_for_if_anything_must_not_be() {
        let (kept, fetcher) = kept(&[("amelia/a.jpg", b"a")]);
        let changes = [
            write("public/a.jpg", "s3://media/amelia/a.jpg", b"a"),
            write(
                "public/b.jpg",
                "s3://media/bo/b.jpg?X-Amz-Signature=secret",
                b"b",
            ),
            write(
                "public/c.jpg",
                "https://media.example/c.jpg?X-Amz-Signature=secret",
                b"c",
            ),
        ];
        let error = fetcher
            .fetch(&changes, &policy(&["s3://media/amelia/"]))
            .await
            .expect_err("not allowed");
        assert!(kept.asked.lock().expect("no panic").is_empty());
        assert!(
            error
                .hint
                .is_some_and(|hint| hint.contains("policy.contentSources"))
        );
        let details: Vec<String> = error
            .details
            .iter()
            .map(|problem| format!("{} {}", problem.path, problem.message))
            .collect();
        insta::assert_snapshot!(details.join("\n"), @r"
        $.action.changes[1].contentUrl public/b.jpg: what its `contentUrl` names is at s3://media/bo/b.jpg, which is no place that the client's policy allows.
        $.action.changes[2].contentUrl public/c.jpg: what its `contentUrl` names is at https://media.example/c.jpg, which is no place that the client's policy allows.
        ");
        let none = fetcher
            .fetch(&changes, &policy(&[]))
            .await
            .expect_err("from nowhere");
        insta::assert_snapshot!(none.message, @"public/a.jpg: what its `contentUrl` names is elsewhere, and the client's policy allows no place to fetch from.");
    }

    #[tokio::test]
    async fn what_is_not_as_the_instruction_says_is_named() {
        let (_, fetcher) = kept(&[("a.jpg", b"other"), ("b.jpg", b"12345678901")]);
        let changes = [
            write("public/a.jpg", "s3://media/a.jpg", b"a"),
            write("public/b.jpg", "s3://media/b.jpg", b"12345678901"),
            write("public/c.jpg", "s3://media/c.jpg", b"c"),
        ];
        let error = fetcher
            .fetch(&changes, &policy(&["s3://media/"]))
            .await
            .expect_err("three faults");
        let details: Vec<String> = error
            .details
            .iter()
            .map(|problem| format!("{} {}", problem.path, problem.message))
            .collect();
        insta::assert_snapshot!(details.join("\n"), @r"
        $.action.changes[0].contentUrl public/a.jpg: what its `contentUrl` names has the SHA-256 d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, and not the one of the instruction.
        $.action.changes[1].contentUrl public/b.jpg: what its `contentUrl` names has more than 10 bytes, which is the most there is room for.
        $.action.changes[2].contentUrl public/c.jpg: what its `contentUrl` names is not there.
        ");
        let laptop = Fetcher::on_a_laptop()
            .fetch(&changes, &policy(&["s3://media/"]))
            .await;
        insta::assert_snapshot!(laptop.expect_err("no buckets").message, @"public/a.jpg: what its `contentUrl` names is in a bucket, and this environment has no way to one.");
    }
}
