//! The built guest binary with the demo model, driven the way a host drives it.

mod answers;
mod memory;
mod refusals;
mod world;
