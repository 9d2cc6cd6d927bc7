//! The agent dies at the worst moment, and starts again.
