//! What the chain said a moment ago: many who ask at once cost one question.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// An answer that serves everybody who comes within its age; whoever comes while it is being asked for waits for it.
pub(crate) struct Glance<T> {
    age: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Glance<T> {
    pub fn new(age: Duration) -> Self {
        Self { age, last: Mutex::new(None) }
    }

    /// The answer of at most that age, or what `ask` gives. What could not be asked is asked again by the next.
    pub async fn get<E>(&self, ask: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < self.age
        {
            return Ok(answer.clone());
        }
        let answer = ask.await?;
        *last = Some((Instant::now(), answer.clone()));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_cost_one_question_and_an_error_is_not_kept() {
        let (glance, asked) = (Glance::new(Duration::from_secs(60)), AtomicU32::new(0));
        let ask = |answer: Result<u32, &'static str>| {
            let asked = &asked;
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                answer
            }
        };
        assert_eq!(glance.get(ask(Err("no"))).await, Err("no"));
        let all = futures::future::join_all((0..50).map(|number| glance.get(ask(Ok(number))))).await;
        assert_eq!(all, vec![Ok(0); 50]);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let glance = Glance::new(Duration::ZERO);
        assert_eq!((glance.get(ask(Ok(1))).await, glance.get(ask(Ok(2))).await), (Ok(1), Ok(2)));
    }
}
