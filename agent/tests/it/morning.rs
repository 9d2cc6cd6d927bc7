//! An owner's morning, in a real browser: everything an owner does, once from the bar and once as a producer sends it, with
//! somebody else at work on the same site. Every frame is recorded, and every step leaves a picture in
//! `<CARGO_TARGET_TMPDIR>/morning/`.

use std::path::Path;

use serde_json::{Value, json};

use crate::site::versions::node_24;
use crate::support::browser::{Browser, PILL, ROOT, Recording, Sight};
use crate::support::{Environment, Repository, Start};

const DRAFT: &str = "edit/local";
const INDEX: &str = "src/pages/index.astro";
const HEADLINE: &str = "document.querySelector('#headline')?.textContent";
/// What the bar's panel says first.
const NEWS: &str = "(document.querySelector('edit-bar')?.shadowRoot.querySelector('.now')?.innerText.replace(/\\n+/g, '\\n') ?? '')";
/// What the owner is told of an edit with which the home page would not show.
const NOT_DONE: &str = "With this change, the home page would not show any more. The change was taken back; the site is as it was.";

#[tokio::test]
async fn an_owners_morning_on_astro_5() {
    a_morning("astro-5", &Repository::amelia(), &[]).await;
}

#[tokio::test]
async fn an_owners_morning_on_the_newest_astro() {
    let repository = Repository::amelia_on_the_newest_astro();
    a_morning("astro-7", &repository, &["--node", &node_24()]).await;
}

async fn a_morning(name: &str, site: &Repository, arguments: &[&str]) {
    let mut morning = Morning::begin(name, site, arguments).await;
    morning.an_edit().await;
    morning.a_wrong_edit().await;
    morning.an_undo_of_the_first_of_three().await;
    morning.somebody_else_on_the_draft().await;
    morning.publishing().await;
    morning.somebody_else_on_what_is_published().await;
    morning.discarding().await;
    morning.nothing_was_ever_broken().await;
    morning.end().await;
}

struct Morning {
    name: String,
    pictures: usize,
    bare: Repository,
    environment: Environment,
    browser: Browser,
}

impl Morning {
    async fn begin(name: &str, site: &Repository, arguments: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("morning")
            .join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("removed");
        }
        std::fs::create_dir_all(&folder).expect("made");
        let bare = site.bare_copy();
        let environment = Start::of(&bare.address()).with(arguments).ready().await;
        let browser = Browser::open("about:blank").await;
        browser
            .command("Emulation.setScrollbarsHidden", json!({ "hidden": true }))
            .await;
        browser.record().await;
        let mut morning = Self {
            name: name.to_owned(),
            pictures: 0,
            bare,
            environment,
            browser,
        };
        morning.sits_at_a_screen_of(1280, 800).await;
        morning.goes_to("/").await;
        morning
            .browser
            .until(PILL, &json!("Everything is published"))
            .await;
        morning.picture("before").await;
        morning
    }

    async fn an_edit(&mut self) {
        // From `send`: the page changes, and the bar on it says so.
        self.replaces("Rare stamps", "Rare & old stamps").await;
        self.headline_is("Rare & old stamps, honestly described")
            .await;
        self.browser
            .until(PILL, &json!("Your change is live on this page."))
            .await;
        self.picture("edit-from-send").await;

        // Of another page, with a link to it.
        self.environment
            .lands(&[
                "--replace",
                "src/pages/about.astro",
                "How I work",
                "How I go to work",
            ])
            .await;
        self.browser
            .until(PILL, &json!("The page /about/ was changed."))
            .await;
        self.opens_the_bar().await;
        self.news_is("The page /about/ was changed.\nSee it on the page /about/")
            .await;
        self.browser.point(".now a").await;
        self.browser
            .until("location.pathname", &json!("/about/"))
            .await;
        self.shows("How I go to work").await;
        self.news_is("The page /about/ was changed.\nYour change is live on this page.")
            .await;
        self.picture("edit-of-another-page").await;
        self.goes_to("/").await;

        // From the bar.
        self.types(&json!({ "type": "edit", "changes": [
            { "op": "replace", "path": INDEX, "find": "Rare & old stamps", "replace": "Old stamps" },
        ] }))
        .await;
        self.headline_is("Old stamps, honestly described").await;
        self.news_is("The home page was changed.\nYour change is live on this page.")
            .await;
        self.to_publish_are("Publish 3 changes").await;
        // Nobody was named, and the list names nobody.
        let times =
            format!("[...{ROOT}.querySelectorAll('.entry small')].map((entry) => entry.innerText)");
        self.browser
            .until(
                &times,
                &json!(["just now", "Amelia · just now", "Amelia · just now"]),
            )
            .await;
        self.picture("edit-from-the-bar").await;
        // `docs/bar.png` is this one, in fewer colours.
        self.sits_at_a_screen_of(1280, 1000).await;
        self.picture("for-the-readme").await;
        self.sits_at_a_screen_of(1280, 800).await;
        assert!(
            self.bare
                .show(DRAFT, INDEX)
                .contains("Old stamps, honestly")
        );
    }

    async fn a_wrong_edit(&mut self) {
        let tip = self.tip(DRAFT);
        let headline = self.browser.ask(HEADLINE).await;

        // From `send`, while the owner loads the page again and again.
        let before = self.browser.recording().await;
        let wrong = ["--replace", INDEX, "id=\"headline\"", "id=\"headline\" {{{"];
        let receipt = {
            let sent = self.environment.is_rejected(&wrong, "page_broken");
            tokio::pin!(sent);
            loop {
                tokio::select! {
                    receipt = &mut sent => break receipt,
                    // The driver gives up on a load that the page itself overtakes; what was seen is in the recording.
                    loaded = self.browser.client.refresh() => drop(loaded),
                }
            }
        };
        assert_eq!(receipt["verdict"], "breaks");
        self.news_is(NOT_DONE).await;
        self.stayed_whole(&before, &headline).await;
        self.picture("wrong-edit-from-send").await;

        // From the bar, in another way: what the page is made of.
        let before = self.browser.recording().await;
        let mut events = self.environment.events(None).await;
        self.types(&json!({ "type": "edit", "changes": [
            { "op": "replace", "path": "src/components/Price.astro", "find": "const { amount,", "replace": "const = ; const { amount," },
        ] }))
        .await;
        // What the bar says in the end it has said already, of the one before.
        loop {
            let (_, event) = events.next().await.expect("it goes on");
            if event["event"] == "receipt" {
                assert_eq!(event["verdict"], "breaks", "{event:#}");
                break;
            }
        }
        self.news_is(NOT_DONE).await;
        self.stayed_whole(&before, &headline).await;
        self.picture("wrong-edit-from-the-bar").await;
        assert_eq!(self.tip(DRAFT), tip);
    }

    async fn an_undo_of_the_first_of_three(&mut self) {
        // From the bar, by keyboard.
        self.three_edits(
            "from-the-bar",
            ["What I promise", "New in the album", "From the journal"],
            ["What I keep", "Newest in the album", "From my journal"],
        )
        .await;
        self.picture("three-edits").await;
        self.browser
            .tab_to("[data-key=\"undo-from-the-bar-1\"]")
            .await;
        self.browser.press("Enter").await;
        self.shows("What I promise").await;
        self.news_is("A change was taken back: the home page.\nYour change is live on this page.")
            .await;
        for later in ["Newest in the album", "From my journal"] {
            self.shows(later).await;
        }
        let undone = format!(
            "[...{ROOT}.querySelectorAll('.entry.undone')].map((entry) => entry.querySelector('small').innerText)"
        );
        self.browser
            .until(&undone, &json!(["Amelia · just now · Undone"]))
            .await;
        self.picture("undo-from-the-bar").await;

        // From `send`.
        self.three_edits(
            "from-send",
            [
                "Your wish list",
                "Thirty days to think",
                "Four words, no more",
            ],
            ["Your wishes", "Sixty days to think", "Four words"],
        )
        .await;
        self.environment.lands(&["--undo", "from-send-1"]).await;
        for shown in [
            "Your wish list",
            "Sixty days to think",
            "Four words",
            "Newest in the album",
            "From my journal",
            "What I promise",
        ] {
            self.shows(shown).await;
        }
        self.browser
            .until(&format!("{undone}.length"), &json!(2))
            .await;
        self.picture("undo-from-send").await;
        let draft = self.bare.show(DRAFT, INDEX);
        assert!(draft.contains("Your wish list") && draft.contains("Sixty days to think"));
    }

    async fn three_edits(&self, name: &str, from: [&str; 3], to: [&str; 3]) {
        for (number, (find, replace)) in (1..).zip(from.into_iter().zip(to)) {
            let id = format!("{name}-{number}");
            self.environment
                .lands(&["--id", &id, "--replace", INDEX, find, replace])
                .await;
        }
        for words in to {
            self.shows(words).await;
        }
    }

    async fn somebody_else_on_the_draft(&mut self) {
        self.somebody_pushes(DRAFT, INDEX, "I am Amelia.", "I am Amelia Tern.")
            .await;
        // It is in the list, and would be published with the rest.
        let newest = format!("{ROOT}.querySelector('.entry div').innerText");
        self.browser
            .until(
                &newest,
                &json!("The home page was changed.\nDora Developer · just now"),
            )
            .await;
        self.to_publish_are("Publish 8 changes").await;
        self.picture("somebody-else-on-the-draft").await;
    }

    async fn publishing(&mut self) {
        // From the bar, by keyboard.
        let before = self.tip("main");
        self.browser.tab_to("[data-key=publish]").await;
        self.browser.press("Enter").await;
        self.browser
            .until(&format!("{ROOT}.activeElement?.dataset.key"), &json!("yes"))
            .await;
        self.picture("publish-asked").await;
        assert_eq!(self.tip("main"), before, "it was only asked");
        self.browser.press("Enter").await;
        self.news_is("The changes are published: everybody can see them.")
            .await;
        self.to_publish_are("Nothing to publish").await;
        self.picture("publish-from-the-bar").await;
        assert_ne!(self.tip("main"), before);
        assert!(
            self.bare
                .show("main", INDEX)
                .contains("Sixty days to think")
        );

        // From `send`.
        self.replaces("Old stamps", "Fine stamps").await;
        self.headline_is("Fine stamps, honestly described").await;
        self.to_publish_are("Publish 1 change").await;
        let (code, receipt) = self.environment.send(&["--publish"]).await;
        assert_eq!(
            (code, receipt["status"].as_str()),
            (0, Some("published")),
            "{receipt:#}"
        );
        self.news_is("The changes are published: everybody can see them.")
            .await;
        self.to_publish_are("Nothing to publish").await;
        self.picture("publish-from-send").await;
        assert!(self.bare.show("main", INDEX).contains("Fine stamps"));
    }

    async fn somebody_else_on_what_is_published(&mut self) {
        // The draft has nothing of its own, and follows.
        self.somebody_pushes(
            "main",
            INDEX,
            "I am Amelia Tern.",
            "I am Amelia of Tern Lane.",
        )
        .await;
        self.picture("somebody-else-published").await;
        // It has something of its own, and that stays.
        self.replaces("Fine stamps", "Small stamps").await;
        self.headline_is("Small stamps, honestly described").await;
        self.somebody_pushes("main", INDEX, "See the stamps", "See all the stamps")
            .await;
        self.headline_is("Small stamps, honestly described").await;
        self.news_is("What was published elsewhere is in your draft now.")
            .await;
        self.picture("somebody-else-published-meanwhile").await;
    }

    async fn discarding(&mut self) {
        // From the bar, with the mouse.
        self.browser.point("[data-key=discard]").await;
        self.browser
            .until(
                &format!("{ROOT}.querySelector('#question')?.innerText"),
                &json!("Discard this change?"),
            )
            .await;
        self.picture("discard-asked").await;
        self.headline_is("Small stamps, honestly described").await;
        self.browser.point("[data-key=yes]").await;
        self.headline_is("Fine stamps, honestly described").await;
        self.news_is("The changes were discarded: your draft is as the published site.")
            .await;
        self.to_publish_are("Nothing to publish").await;
        self.picture("discard-from-the-bar").await;
        self.is_as_published();

        // From `send`.
        self.replaces("Fine stamps", "No stamps").await;
        self.headline_is("No stamps, honestly described").await;
        self.environment.lands(&["--discard"]).await;
        self.headline_is("Fine stamps, honestly described").await;
        self.to_publish_are("Nothing to publish").await;
        self.picture("discard-from-send").await;
        self.is_as_published();
    }

    /// In the whole morning. And the recording would have seen it: a page that somebody breaks by hand is broken.
    async fn nothing_was_ever_broken(&mut self) {
        let morning = self.browser.recording().await;
        assert_whole(&morning.sights);
        assert_eq!(self.browser.complaints().await, Vec::<String>::new());

        let file = self.environment.work_tree().join(INDEX);
        let good = std::fs::read_to_string(&file).expect("there");
        let bad = good.replace("id=\"headline\"", "id=\"headline\" {{{");
        std::fs::write(&file, bad).expect("written");
        // By itself the page is at least empty; its error comes later, and not to a page that does not listen yet.
        let broken = "window.recorded?.().sights.some(({ overlay, blank }) => overlay || blank)";
        self.browser.until(broken, &json!(true)).await;
        let overlay = "window.recorded?.().sights.some(({ overlay }) => overlay)";
        for looked in 1.. {
            if self.browser.soon(overlay, &json!(true)).await {
                break;
            }
            assert!(
                looked < 10,
                "{:#?}",
                self.browser.recording().await.sights.last()
            );
            self.browser.client.refresh().await.expect("loaded");
        }
        self.picture("broken-by-hand").await;
        std::fs::write(&file, good).expect("written");
        self.headline_is("Fine stamps, honestly described").await;
        self.picture("mended-by-hand").await;
    }

    async fn end(self) {
        self.bare.was_never_forced(DRAFT);
        self.bare.was_never_forced("main");
        self.browser.close().await;
        let (_, code, _) = self.environment.stop().await;
        assert_eq!(code, 0);
    }

    /// Nobody saw anything else than the page with this headline since then, and somebody was looking all the time.
    async fn stayed_whole(&self, before: &Recording, headline: &Value) {
        let now = self.browser.recording().await;
        assert!(
            now.frames >= before.frames + 10,
            "hardly anything was recorded: {} frames, then {}",
            before.frames,
            now.frames
        );
        let seen = now.after(before);
        assert_whole(seen);
        for sight in seen {
            let as_it_was = sight.headline.as_deref() == headline.as_str();
            assert!(as_it_was || sight.loading, "{sight:#?}");
        }
    }

    /// Somebody else changes a file of a branch and pushes it. It shows by itself.
    async fn somebody_pushes(&self, branch: &str, path: &str, from: &str, to: &str) {
        let clone = self.bare.clone_at(branch);
        let file = std::fs::read_to_string(clone.path().join(path)).expect("there");
        assert_eq!(file.matches(from).count(), 1, "{from}");
        clone.write(path, &file.replace(from, to));
        clone.commit_all("By hand");
        clone.git(&["push", "--quiet", &self.bare.address(), branch]);
        self.shows(to).await;
    }

    async fn sits_at_a_screen_of(&self, width: u32, height: u32) {
        let screen =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.browser
            .command("Emulation.setDeviceMetricsOverride", screen)
            .await;
        self.browser.until("innerHeight", &json!(height)).await;
    }

    async fn goes_to(&self, path: &str) {
        let url = format!("{}{path}", self.environment.url());
        self.browser.client.goto(&url).await.expect("it opens");
    }

    async fn replaces(&self, from: &str, to: &str) {
        self.environment
            .lands(&["--replace", INDEX, from, to])
            .await;
    }

    async fn opens_the_bar(&self) {
        self.browser.point(".pill").await;
        self.browser
            .until(
                &format!("{ROOT}.activeElement?.dataset.key"),
                &json!("title"),
            )
            .await;
    }

    /// Writes into the bar's box, and sends it.
    async fn types(&self, action: &Value) {
        self.browser.point("[data-key=text]").await;
        self.browser
            .command("Input.insertText", json!({ "text": action.to_string() }))
            .await;
        self.browser.point("[data-key=send]").await;
    }

    async fn headline_is(&self, words: &str) {
        self.browser.until(HEADLINE, &json!(words)).await;
    }

    async fn shows(&self, words: &str) {
        let there = format!("document.body.textContent.includes({})", json!(words));
        self.browser.until(&there, &json!(true)).await;
    }

    async fn news_is(&self, words: &str) {
        self.browser.until(NEWS, &json!(words)).await;
    }

    async fn to_publish_are(&self, words: &str) {
        let publish = format!("{ROOT}.querySelector('[data-key=publish]')?.innerText");
        self.browser.until(&publish, &json!(words)).await;
    }

    fn is_as_published(&self) {
        let tree = |branch: &str| self.bare.git(&["rev-parse", &format!("{branch}^{{tree}}")]);
        assert_eq!(tree(DRAFT), tree("main"));
    }

    fn tip(&self, branch: &str) -> String {
        self.bare.git(&["rev-parse", branch])
    }

    async fn picture(&mut self, step: &str) {
        self.pictures += 1;
        let name = format!("morning/{}/{:02}-{step}.png", self.name, self.pictures);
        self.browser.picture_of_the_top(&name).await;
    }
}

/// No frame had an error over it, was empty, or was anything but the site.
fn assert_whole(sights: &[Sight]) {
    for sight in sights {
        let ours = sight.title.ends_with("Amelia Stamps") || sight.loading;
        assert!(!sight.overlay && !sight.blank && ours, "{sight:#?}");
    }
}
