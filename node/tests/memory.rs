//! A node's memory does not grow with what it has appraised. A process of its own, in which nothing else takes any.

mod flat;
mod world;

/// Most that the last nine tenths may add, in KiB: what an allocator keeps back varies by some. Their leaves alone, kept, would be twice that.
const NOISE: u64 = 12 << 10;

#[test]
fn many_appraisals_leave_memory_flat() {
    let measured = flat::runtime().block_on(flat::run(6_000));
    println!(
        "{:.0} bundles a second; {} KiB after a tenth, {} KiB at the end, {} leaves",
        measured.rate, measured.at_a_tenth, measured.at_the_end, measured.leaves
    );
    assert_eq!(measured.leaves, 3_000);
    assert!(measured.at_the_end <= measured.at_a_tenth + NOISE, "memory grows with what was appraised");
}
