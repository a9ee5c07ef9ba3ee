//! The built guest binary with the demo model, driven the way a host drives it.

mod answers;
mod refusals;
mod world;
