//! A host and its money, on the local chain: what it lets clients promise, what it claims, and the room its keys take.

mod claim;
mod reserve;
mod room;
mod world;
