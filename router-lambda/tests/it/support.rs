//! The vocabulary of the stories.
pub mod alb;
