//! A node's memory does not grow with what it has appraised. A process of its own, in which nothing else takes any.

mod flat;
mod world;

/// Most that the second half may add, in KiB: what an allocator keeps back varies by some. Its leaves alone, kept, would be twice that.
const NOISE: u64 = 8 << 10;

/// With one arena the C library's allocator keeps back less, and what is measured is what the node keeps.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

#[test]
fn many_appraisals_leave_memory_flat() {
    if std::env::var(ARENAS.0).as_deref() != Ok(ARENAS.1) {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let status = again.env(ARENAS.0, ARENAS.1).arg("--nocapture").status().unwrap();
        return assert!(status.success(), "{status}");
    }
    let measured = flat::runtime().block_on(flat::run(4_000, 8_000));
    println!(
        "{:.0} bundles a second; {} KiB after half of them, {} KiB at the end, {} leaves",
        measured.rate, measured.at_first, measured.at_the_end, measured.leaves
    );
    assert_eq!(measured.leaves, 4_000);
    assert!(measured.at_the_end <= measured.at_first + NOISE, "memory grows with what was appraised");
}
