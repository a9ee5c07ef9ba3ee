//! An enclave pressed hard: readers that do not read, clients that go away, channels and queues that are full, requests beyond every
//! bound, clocks and keys that change under way.

#[expect(dead_code, reason = "the guest's own tests use the rest")]
#[path = "../guest/world.rs"]
mod world;

mod bounds;
mod enclave;
mod keys;
mod limits;
mod readers;
mod schemas;
mod timing;
