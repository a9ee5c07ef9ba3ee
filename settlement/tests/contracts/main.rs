//! The contracts on the local chain: who gets paid, and what is refused. `settlement/contracts/tests` runs the same on
//! TON's own emulator.

mod costs;
mod paid;
mod read_back;
mod refused;
mod rent;
mod trace;
mod world;
