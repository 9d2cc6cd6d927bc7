//! Which files an instruction may touch at all. Pure: a path and the client's [`Policy`], nothing else.
//!
//! Pages, components, content, styles and pictures are free. Two kinds of files decide what *runs* rather than what is
//! shown, and need the owner's developer to say so once, in the client's policy:
//!
//! | needs | files |
//! |---|---|
//! | `allowDependencies` | what package managers read: manifests, lock files, their settings, hooks and patches |
//! | `allowConfig` | what the site, its tools and its hosting read at start: `*.config.*`, `tsconfig*.json`, `.env*`, CI, containers, hosting, and every file or folder that starts with a dot (but `.well-known`) |
//!
//! `src/content.config.ts` is `allowConfig`: it is code that runs at start, and one wrong word in it takes every
//! content page down. Names are compared without regard to ASCII case, because the file systems of some developers
//! are.

use contract::SitePath;
use contract::client_config::Policy;

/// Policy forbids a file, and which part of policy would allow it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {kind} cannot be changed here unless the client's policy has {allowed_by}.")]
pub(crate) struct Denial {
    /// The file.
    pub(crate) path: SitePath,
    /// What kind of file it is, in the plural.
    pub(crate) kind: &'static str,
    /// The field of the policy that would allow it.
    pub(crate) allowed_by: &'static str,
}

/// Whether `policy` lets an instruction touch (or read into another file) what is at `path`.
pub(crate) fn verdict(path: &SitePath, policy: &Policy) -> Result<(), Denial> {
    let (kind, allowed_by, allowed) = match guarded(path) {
        None => return Ok(()),
        Some(Guard::Dependencies) => (
            "package manifests, lock files and package manager settings",
            "allowDependencies",
            policy.allow_dependencies,
        ),
        Some(Guard::Config) => ("configuration files", "allowConfig", policy.allow_config),
    };
    if allowed {
        return Ok(());
    }
    Err(Denial {
        path: path.clone(),
        kind,
        allowed_by,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Dependencies,
    Config,
}

/// What package managers read. `binding.gyp` makes npm run a compiler; `patches/` is what pnpm and patch-package apply.
const DEPENDENCY_FILES: [&str; 19] = [
    "package.json",
    "package.json5",
    "package.yaml",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "pnpmfile.js",
    "pnpmfile.cjs",
    "yarn.lock",
    "bun.lock",
    "bun.lockb",
    "bunfig.toml",
    "deno.json",
    "deno.jsonc",
    "deno.lock",
    "jsr.json",
    "binding.gyp",
    "lerna.json",
];

/// Starts of names of dot files that package managers read.
const DEPENDENCY_DOT_FILES: [&str; 5] = [".npmrc", ".yarnrc", ".pnpmfile", ".pnp.", ".yarn"];

/// What hosting, CI and containers read.
const CONFIG_FILES: [&str; 28] = [
    "amplify.yml",
    "appspec.yml",
    "azure-pipelines.yml",
    "azure-pipelines.yaml",
    "bitbucket-pipelines.yml",
    "buildspec.yml",
    "buildspec.yaml",
    "cloudbuild.yaml",
    "codecov.yml",
    "compose.yml",
    "compose.yaml",
    "containerfile",
    "docker-compose.yml",
    "docker-compose.yaml",
    "dockerfile",
    "fly.toml",
    "jenkinsfile",
    "jsconfig.json",
    "justfile",
    "makefile",
    "netlify.toml",
    "nx.json",
    "procfile",
    "render.yaml",
    "turbo.json",
    "vercel.json",
    "wrangler.json",
    "wrangler.toml",
];

/// Starts of names that come in variants.
const VARIANT_STARTS: [&str; 3] = ["dockerfile.", "docker-compose.", "wrangler."];

/// Endings of code and data that tools load as their configuration: `astro.config.mjs`, `content.config.ts`.
const CONFIG_ENDINGS: [&str; 11] = [
    "js", "cjs", "mjs", "ts", "cts", "mts", "json", "jsonc", "toml", "yaml", "yml",
];

fn guarded(path: &SitePath) -> Option<Guard> {
    let lower = path.as_str().to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or(&lower);
    let ending = name.rsplit('.').next().unwrap_or(name);
    let dependency_dot = |part: &str| {
        DEPENDENCY_DOT_FILES
            .iter()
            .any(|start| part.starts_with(start))
    };
    if DEPENDENCY_FILES.contains(&name)
        || lower.split('/').any(dependency_dot)
        || (lower.split('/').any(|part| part == "patches") && ending == "patch")
    {
        return Some(Guard::Dependencies);
    }
    let hidden = lower
        .split('/')
        .any(|part| part.starts_with('.') && part != ".well-known");
    // `Dockerfile.dev`, `docker-compose.prod.yml`, `tsconfig.build.json`, `wrangler.jsonc`.
    let page = ["astro", "html", "md", "mdx"].contains(&ending);
    let variant = (!page && VARIANT_STARTS.iter().any(|start| name.starts_with(start)))
        || ending == "dockerfile"
        || (name.starts_with("tsconfig") && ending == "json");
    if hidden || variant || CONFIG_FILES.contains(&name) || is_tool_config(&lower, name) {
        return Some(Guard::Config);
    }
    None
}

/// `<tool>.config.<ending>`, and Astro's older `src/content/config.<ending>`.
fn is_tool_config(path: &str, name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else {
        return false;
    };
    CONFIG_ENDINGS.contains(&ending)
        && (stem.ends_with(".config")
            || stem.contains(".config.")
            || path.ends_with(&format!("content/config.{ending}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(path: &str) -> Option<Guard> {
        guarded(&path.parse().expect("a valid path"))
    }

    #[test]
    fn what_is_shown_is_free() {
        for path in [
            "src/pages/index.astro",
            "src/content/stamps/penny-black.md",
            "src/data/package.ts",
            "src/styles/config.css",
            "src/pages/dockerfile.md",
            "public/.well-known/security.txt",
            "public/robots.txt",
            "src/config.ts",
            "src/content/patches/mission.md",
            "src/pages/[...slug].astro",
            "src/middleware.ts",
            "public/manifest.json",
        ] {
            assert_eq!(guard(path), None, "{path}");
        }
    }

    #[test]
    fn what_package_managers_read_needs_allow_dependencies() {
        for path in [
            "package.json",
            "packages/site/package.json",
            "Package.JSON",
            "package-lock.json",
            "pnpm-lock.yaml",
            "pnpm-workspace.yaml",
            "yarn.lock",
            "bun.lockb",
            ".npmrc",
            "site/.npmrc",
            ".yarnrc.yml",
            ".yarn/releases/yarn.cjs",
            ".pnpmfile.cjs",
            ".pnp.cjs",
            "patches/astro.patch",
            "binding.gyp",
        ] {
            assert_eq!(guard(path), Some(Guard::Dependencies), "{path}");
        }
    }

    #[test]
    fn what_runs_or_configures_needs_allow_config() {
        for path in [
            "astro.config.mjs",
            "site/astro.config.ts",
            "vite.config.js",
            "tailwind.config.cjs",
            "vitest.config.unit.ts",
            "tsconfig.json",
            "tsconfig.build.json",
            ".env",
            ".env.production",
            "src/.env",
            ".circleci/config.yml",
            ".vscode/settings.json",
            ".husky/pre-commit",
            "Dockerfile",
            "Dockerfile.dev",
            "docker-compose.yml",
            "netlify.toml",
            "wrangler.jsonc",
            "src/content.config.ts",
            "src/content/config.ts",
            "src/.hidden/page.astro",
        ] {
            assert_eq!(guard(path), Some(Guard::Config), "{path}");
        }
    }

    #[test]
    fn a_denial_names_the_file_and_what_would_allow_it() {
        let path: SitePath = "package.json".parse().expect("valid");
        let strict = Policy::default();
        insta::assert_snapshot!(
            verdict(&path, &strict).expect_err("denied"),
            @"package.json: package manifests, lock files and package manager settings cannot be changed here unless the client's policy has allowDependencies."
        );
        let config_only = Policy {
            allow_config: true,
            ..Policy::default()
        };
        assert!(verdict(&path, &config_only).is_err());
        let dependencies = Policy {
            allow_dependencies: true,
            ..Policy::default()
        };
        assert_eq!(verdict(&path, &dependencies), Ok(()));
        let env: SitePath = ".env".parse().expect("valid");
        assert!(verdict(&env, &dependencies).is_err());
        assert_eq!(verdict(&env, &config_only), Ok(()));
    }
}
