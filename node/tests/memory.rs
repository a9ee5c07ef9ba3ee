//! A node's memory does not grow with what it has appraised. A process of its own, in which nothing else takes any.

mod flat;
mod world;

/// Most that the last nine tenths may add, in KiB: what an allocator keeps back varies by some.
const NOISE: u64 = 24 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_appraisals_leave_memory_flat() {
    let measured = flat::run(20_000).await;
    println!(
        "{:.0} bundles a second; {} KiB after a tenth, {} KiB at the end, {} leaves",
        measured.rate, measured.at_a_tenth, measured.at_the_end, measured.leaves
    );
    assert_eq!(measured.leaves, 10_000);
    assert!(measured.at_the_end <= measured.at_a_tenth + NOISE, "memory grows with what was appraised");
}
