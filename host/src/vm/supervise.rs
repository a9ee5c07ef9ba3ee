//! One life of a guest after the other, until it is told to stop or cannot start.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Plan;
use super::death::Death;
use super::monitor::{StartError, Vm};
use crate::back_off::BackOff;

const WATCH: Duration = Duration::from_millis(100);

/// What happens to a supervised guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// QEMU runs it.
    Started {
        /// Its process.
        pid: u32,
    },
    /// It ended by itself.
    Ended {
        /// Why, in one line.
        why: String,
        /// When it is started again.
        again_in: Duration,
    },
    /// It was stopped.
    Stopped {
        /// How, in one line.
        how: String,
    },
}

/// Keeps a guest running until `stop` says so, or its other end is gone. `patience` is what its power button gets. Blocks.
///
/// # Errors
/// It cannot start, and would not the next time.
pub fn run(
    plan: &Plan,
    stop: &Receiver<()>,
    patience: Duration,
    mut tell: impl FnMut(Event),
) -> Result<(), StartError> {
    let mut back_off = BackOff::default();
    loop {
        let started = Instant::now();
        let death = match Vm::start(&plan.command, &plan.config.data) {
            Ok(vm) => match live(vm, stop, patience, &mut tell) {
                Some(death) => death,
                None => return Ok(()),
            },
            Err(StartError::Ended(death)) if death.again => death,
            Err(error) => return Err(error),
        };
        if !death.again {
            return Err(StartError::Ended(death));
        }
        let wait = back_off.after(started.elapsed());
        tell(Event::Ended { why: death.why, again_in: wait });
        if stop.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            tell(Event::Stopped { how: "stopped between two lives".into() });
            return Ok(());
        }
    }
}

/// One life: how it ended, or nothing if it was stopped.
fn live(mut vm: Vm, stop: &Receiver<()>, patience: Duration, tell: &mut impl FnMut(Event)) -> Option<Death> {
    tell(Event::Started { pid: vm.pid() });
    while stop.recv_timeout(WATCH) == Err(RecvTimeoutError::Timeout) {
        if let Some(death) = vm.ended() {
            return Some(death);
        }
    }
    tell(Event::Stopped { how: vm.stop(patience).why });
    None
}
