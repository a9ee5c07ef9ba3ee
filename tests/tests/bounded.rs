//! Memory of a replay does not grow with the log. A process of its own, in which nothing else takes any; `make bench` does the same with more.

use cocoon_tests::fleet::memory;

#[test]
fn a_log_of_eight_times_the_leaves_takes_no_more_memory() {
    let folder = tempfile::tempdir().unwrap();
    // The longer log's leaves alone have more than twice as many bytes as may be added.
    let [short, long] = memory::of_replays(folder.path(), 200, [3, 24]).unwrap();
    println!("highest memory: {} MB with {} leaves, {} MB with {}", short.peak, short.leaves, long.peak, long.leaves);
    assert_eq!(long.leaves, 8 * short.leaves);
    assert!(long.peak <= short.peak + memory::NOISE, "memory grows with the log");
}
