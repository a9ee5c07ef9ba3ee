//! The generations of one answer. What they say is taken from the engine at once, and waits here to be written.

use std::sync::{Arc, Mutex, PoisonError};

use cocoon_engine::{Event, Logprob, Meter, Prompt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::models::Model;
use crate::openai::{Generate, Splitter};
use crate::unread::{Full, Waiting};

/// What comes next of an answer.
pub(crate) enum Next {
    /// Of this choice.
    Said(usize, Event),
    /// More waits to be read than may, so the engine was stopped.
    TooMuch(Full),
}

/// Tokens of one generation.
enum Count {
    Running(Meter),
    /// Its meter is gone, and with it what the engine kept of each token.
    Ended(u64),
}

/// The generations of one answer. Dropping them stops them.
pub(crate) struct Running {
    /// Stops its tasks when dropped.
    tasks: JoinSet<()>,
    events: mpsc::UnboundedReceiver<Next>,
    waiting: Arc<Waiting>,
    counts: Arc<Mutex<Vec<Count>>>,
    pub(crate) splitters: Vec<Splitter>,
}

impl Running {
    /// Starts them, so many at once.
    pub(crate) fn start(
        model: &Model,
        generate: &Generate,
        prompts: &[Prompt],
        at_once: usize,
        waiting: Waiting,
    ) -> Self {
        // As long as `waiting` allows.
        let (sender, events) = mpsc::unbounded_channel();
        let (waiting, counts): (_, Arc<Mutex<Vec<Count>>>) = (Arc::new(waiting), Arc::default());
        let (mut tasks, mut splitters) = (JoinSet::new(), Vec::new());
        let places = Arc::new(Semaphore::new(at_once));
        for prompt in prompts {
            for number in 0..generate.choices {
                let choice = splitters.len();
                let thoughts = generate.thoughts && model.engine.thinks();
                splitters.push(Splitter::new(thoughts, prompt.thinking, generate.calls));
                let (engine, prompt, sender) = (model.engine.clone(), prompt.clone(), sender.clone());
                let (waiting, counts, places) = (waiting.clone(), counts.clone(), places.clone());
                let mut sampling = generate.sampling.clone();
                sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(number as u64));
                let max_tokens = generate.max_tokens.unwrap_or(u64::MAX);
                tasks.spawn(async move {
                    let _place = places.acquire().await;
                    let Ok(mut generation) = engine.generate(prompt, sampling, max_tokens).await else {
                        let _ = sender.send(Next::Said(choice, Event::Failed));
                        return;
                    };
                    let counted = {
                        let mut counts = lock(&counts);
                        counts.push(Count::Running(generation.meter()));
                        counts.len() - 1
                    };
                    loop {
                        let event = generation.next().await;
                        let last = !matches!(event, Event::Token(_) | Event::Rest(_));
                        let fits = waiting.add(weight(&event));
                        let next = fits.map_or_else(Next::TooMuch, |()| Next::Said(choice, event));
                        if sender.send(next).is_err() || last || fits.is_err() {
                            break;
                        }
                    }
                    drop(generation);
                    let count = &mut lock(&counts)[counted];
                    if let Count::Running(meter) = count {
                        *count = Count::Ended(meter.tokens());
                    }
                });
            }
        }
        Self { tasks, events, waiting, counts, splitters }
    }

    /// What has come meanwhile.
    pub(crate) fn try_next(&mut self) -> Option<Next> {
        self.events.try_recv().ok().map(|next| self.taken(next))
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Next {
        // Every task says how it ended, if it does not panic.
        let next = self.events.recv().await.unwrap_or(Next::Said(0, Event::Failed));
        self.taken(next)
    }

    fn taken(&self, next: Next) -> Next {
        if let Next::Said(_, event) = &next {
            self.waiting.remove(weight(event));
        }
        next
    }

    /// Counts what is kept of an answer until it is whole.
    ///
    /// # Errors
    /// There may not be as much.
    pub(crate) fn keep(&self, bytes: usize) -> Result<(), Full> {
        self.waiting.add(bytes)
    }

    /// Stops those that have not ended.
    pub(crate) fn stop(&mut self) {
        self.tasks.abort_all();
    }

    /// Tokens generated so far.
    pub(crate) fn tokens(&self) -> u64 {
        let count = |count: &Count| match count {
            Count::Running(meter) => meter.tokens(),
            Count::Ended(tokens) => *tokens,
        };
        lock(&self.counts).iter().map(count).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an allocation takes beside its content, in bytes, roughly.
const ALLOCATION: usize = 16;

/// Bytes that an event takes while it waits, roughly.
fn weight(event: &Event) -> usize {
    let score =
        |score: &Logprob| size_of::<Logprob>() + score.token.capacity() + score.bytes.capacity() + 2 * ALLOCATION;
    size_of::<Next>()
        + match event {
            Event::Token(token) => {
                let scores = token
                    .scores
                    .iter()
                    .map(|(own, best)| score(own) + ALLOCATION + best.iter().map(score).sum::<usize>());
                ALLOCATION + token.text.capacity() + scores.sum::<usize>()
            }
            Event::Rest(text) => ALLOCATION + text.capacity(),
            _ => 0,
        }
}
