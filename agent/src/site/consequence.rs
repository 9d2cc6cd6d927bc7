//! What a changed file means for the running dev server. Pure.

use contract::SitePath;

/// What has to happen for a change to be shown, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Consequence {
    /// The dev server sees it by itself.
    None,
    /// The process has to be started anew. Astro's own restart in place loses the watch on Markdown (6 and 7).
    Restart,
    /// The dependencies have to be put in place anew, and then the process.
    Reinstall,
}

/// What changing these files of the site means.
pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a SitePath>) -> Consequence {
    paths
        .into_iter()
        .map(of_path)
        .max()
        .unwrap_or(Consequence::None)
}

fn of_path(path: &SitePath) -> Consequence {
    let text = path.as_str();
    match text {
        "package.json"
        | "package-lock.json"
        | "npm-shrinkwrap.json"
        | "pnpm-lock.yaml"
        | "pnpm-workspace.yaml"
        | "yarn.lock"
        | "bun.lock"
        | "bun.lockb"
        | ".npmrc"
        | ".yarnrc"
        | ".yarnrc.yml"
        | ".pnpmfile.cjs"
        | "bunfig.toml" => Consequence::Reinstall,
        _ if text.starts_with("astro.config.") || text.starts_with("vite.config.") => {
            Consequence::Restart
        }
        _ if text.starts_with(".env")
            || (text.starts_with("tsconfig")
                && path.extension() == "json"
                && !text.contains('/')) =>
        {
            Consequence::Restart
        }
        _ if text.starts_with("src/content.config.") || text.starts_with("src/content/config.") => {
            Consequence::Restart
        }
        _ => Consequence::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_file_decides() {
        for (paths, expected) in [
            (
                &["src/pages/index.astro", "public/a.jpg"][..],
                Consequence::None,
            ),
            (
                &["src/pages/index.astro", "astro.config.mjs"],
                Consequence::Restart,
            ),
            (&[".env"], Consequence::Restart),
            (&["tsconfig.json"], Consequence::Restart),
            (&["src/content.config.ts"], Consequence::Restart),
            (&["src/lib/tsconfig.json"], Consequence::None),
            (
                &["astro.config.mjs", "package-lock.json"],
                Consequence::Reinstall,
            ),
            (&[], Consequence::None),
        ] {
            let paths: Vec<SitePath> = paths
                .iter()
                .map(|path| path.parse().expect("valid"))
                .collect();
            assert_eq!(of(&paths), expected, "{paths:?}");
        }
    }
}
