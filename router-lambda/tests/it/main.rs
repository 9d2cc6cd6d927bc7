//! The stories of the router.
