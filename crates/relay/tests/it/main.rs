//! What passes through the relay and what does not, told over real loopback sockets.
//!
//! The vocabulary: a [`wire::Wire`] is one end of a TCP connection, spoken to in plain text; an [`upstream::Upstream`] is a
//! listener whose connections the test plays itself; a [`front::Front`] is an axum server that relays everything to one
//! upstream. A test mostly plays both ends in turn, so that it reads in the order in which things happen.

mod front;
mod upstream;
mod wire;

mod failures;
mod heads;
mod limits;
mod pools;
mod smuggling;
mod streams;
mod web_socket;
