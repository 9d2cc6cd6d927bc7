//! The remote: a path, HTTP, ssh; it moves, refuses, and goes away.
