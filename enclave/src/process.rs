//! What the operating system may not keep of this process: prompts and keys are in its memory.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Forbids core files and other processes' eyes, keeps memory out of swap where that is allowed, and makes panics say where and not what.
pub fn harden() {
    // Three locks on one door: no size, nothing to dump, and no right to ask for it.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let unlimited = setrlimit(Resource::Core, none).is_err();
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    let readable = set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err();
    if unlimited || readable {
        tracing::warn!("the system does not let this process forbid core files");
    }
    // Locking needs the right to lock everything: a limit would turn into failed allocations later.
    let unbounded = getrlimit(Resource::Memlock).current.is_none();
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if !(unbounded && mlockall(all).is_ok()) {
        tracing::warn!("memory is not locked: give the guest no swap, or raise RLIMIT_MEMLOCK");
    }
    // A panic's message can quote the text that it tripped over.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
        eprintln!("a thread panicked at {place}; its message may quote content and is left out");
    }));
}
