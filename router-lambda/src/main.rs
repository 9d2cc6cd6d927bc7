//! The router's command.

fn main() {}
