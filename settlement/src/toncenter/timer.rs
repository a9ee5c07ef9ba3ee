//! The time between two questions, which tests count instead of waiting for it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;

/// What a client waits with.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Time since some moment before the first call; never less than it was.
    fn now(&self) -> Duration;

    /// Ends when so much time has passed.
    async fn wait(&self, time: Duration);
}

/// The machine's own time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTimer;

#[async_trait]
impl Timer for SystemTimer {
    fn now(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
