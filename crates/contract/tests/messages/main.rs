//! What producers and readers of records see of the contract: the examples, the round trip, the schemas.

mod examples;
mod instructions;
mod round_trip;
mod schemas;
