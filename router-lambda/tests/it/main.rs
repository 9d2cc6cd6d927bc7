//! The stories of the router.
mod alb_events;
mod support;
