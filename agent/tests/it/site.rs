//! The site: every Astro, its configuration, its dependencies, its bad days.
