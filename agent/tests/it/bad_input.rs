//! What a developer or a producer can get wrong, and what they are told.
