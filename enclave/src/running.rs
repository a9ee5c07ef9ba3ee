//! The generations of one answer. What they say is taken from the engine at once, and waits here to be written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocoon_engine::{Event, Generation, Logprob, Prompt};
use cocoon_protocol::receipt::TokenCounts;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::models::Model;
use crate::openai::{Generate, Piece, Splitter};
use crate::unread::{Full, Waiting};

/// What comes next of an answer.
pub(crate) enum Next {
    /// Of this choice.
    Said(usize, Event),
    /// More waits to be read than may, so the engine was stopped.
    TooMuch(Full),
}

/// The generations of one answer. Dropping them stops them.
pub(crate) struct Running {
    /// Stops its tasks when dropped.
    tasks: JoinSet<()>,
    events: mpsc::UnboundedReceiver<Next>,
    waiting: Arc<Waiting>,
    stopped: watch::Sender<bool>,
    /// Of each prompt, whether the engine was asked to continue it.
    begun: Arc<Mutex<Vec<bool>>>,
    /// Tokens of each prompt.
    prompts: Vec<u64>,
    splitters: Vec<Splitter>,
    counted: TokenCounts,
    /// An answer that failed is worth nothing.
    failed: bool,
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
        let (waiting, begun) = (Arc::new(waiting), Arc::new(Mutex::new(vec![false; prompts.len()])));
        let (stopped, stop) = watch::channel(false);
        let (mut tasks, mut splitters) = (JoinSet::new(), Vec::new());
        let places = Arc::new(Semaphore::new(at_once));
        for (number, prompt) in prompts.iter().enumerate() {
            for copy in 0..generate.choices {
                let choice = splitters.len();
                let thoughts = generate.thoughts && model.engine.thinks();
                splitters.push(Splitter::new(thoughts, prompt.thinking, generate.calls));
                let (engine, prompt, sender) = (model.engine.clone(), prompt.clone(), sender.clone());
                let (waiting, begun, places, mut stop) = (waiting.clone(), begun.clone(), places.clone(), stop.clone());
                let mut sampling = generate.sampling.clone();
                sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(copy as u64));
                let max_tokens = generate.max_tokens.unwrap_or(u64::MAX);
                tasks.spawn(async move {
                    let begin = async {
                        let place = places.acquire().await;
                        (place, engine.generate(prompt, sampling, max_tokens).await)
                    };
                    // Whoever is stopped before its turn has come has cost nothing.
                    let (_place, generation) = tokio::select! {
                        biased;
                        () = until(&mut stop) => return,
                        generation = begin => generation,
                    };
                    let Ok(generation) = generation else {
                        let _ = sender.send(Next::Said(choice, Event::Failed));
                        return;
                    };
                    if let Some(begun) = lock(&begun).get_mut(number) {
                        *begun = true;
                    }
                    pass_on(generation, choice, &waiting, &sender, stop).await;
                });
            }
        }
        Self {
            tasks,
            events,
            waiting,
            stopped,
            begun,
            prompts: prompts.iter().map(Prompt::tokens).collect(),
            splitters,
            counted: TokenCounts::default(),
            failed: false,
        }
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

    /// Counts what an event says, and takes it apart.
    pub(crate) fn take(&mut self, choice: usize, event: &Event) -> Vec<Piece> {
        let splitter = &mut self.splitters[choice];
        match event {
            Event::Token(token) => {
                let kind = if splitter.thinking() { &mut self.counted.reasoning } else { &mut self.counted.completion };
                *kind += 1;
                splitter.push(&token.text)
            }
            Event::Rest(text) => splitter.push(text),
            Event::Done { .. } => splitter.finish(),
            Event::Failed | Event::Schema => {
                self.failed = true;
                Vec::new()
            }
            Event::Stopped => Vec::new(),
        }
    }

    /// The end of a choice that was cut off.
    pub(crate) fn finish(&mut self, choice: usize) -> Vec<Piece> {
        self.splitters[choice].finish()
    }

    /// Choices.
    pub(crate) fn choices(&self) -> usize {
        self.splitters.len()
    }

    /// Calls of tools that a choice has made.
    pub(crate) fn calls(&self, choice: usize) -> usize {
        self.splitters[choice].calls()
    }

    /// Counts what is kept of an answer until it is whole.
    ///
    /// # Errors
    /// There may not be as much.
    pub(crate) fn keep(&self, bytes: usize) -> Result<(), Full> {
        self.waiting.add(bytes)
    }

    /// Stops those that have not ended, whatever they have said.
    pub(crate) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// Tokens of what was taken, and of the prompts that the engine was asked to continue.
    pub(crate) fn counted(&self) -> TokenCounts {
        let begun = lock(&self.begun);
        let prompt = self.prompts.iter().zip(begun.iter()).filter(|(_, begun)| **begun).map(|(tokens, _)| tokens).sum();
        TokenCounts { prompt, ..self.counted }
    }

    /// Stops those that have not ended, and counts all that was generated until then, each token as what it is. `None` where an answer failed.
    pub(crate) async fn stop(mut self) -> Option<TokenCounts> {
        self.stopped.send_replace(true);
        // Ends with the last task.
        while let Some(next) = self.events.recv().await {
            if let Next::Said(choice, event) = self.taken(next) {
                self.take(choice, &event);
            }
        }
        (!self.failed).then(|| self.counted())
    }
}

/// Passes on what a generation says until its end, or until it is stopped: then what it has said until then.
async fn pass_on(
    mut generation: Generation,
    choice: usize,
    waiting: &Waiting,
    sender: &mpsc::UnboundedSender<Next>,
    mut stop: watch::Receiver<bool>,
) {
    let mut stopping = false;
    loop {
        let event = tokio::select! {
            biased;
            () = until(&mut stop), if !stopping => {
                stopping = true;
                generation.stop();
                continue;
            }
            event = generation.next() => event,
        };
        let last = !matches!(event, Event::Token(_) | Event::Rest(_));
        if !stopping && let Err(full) = waiting.add(weight(&event)) {
            // The few tokens that come until it has stopped are counted, though there is no room for them.
            stopping = true;
            generation.stop();
            let _ = sender.send(Next::TooMuch(full));
        }
        if sender.send(Next::Said(choice, event)).is_err() || last {
            return;
        }
    }
}

/// Until it is stopped, or nobody is there any more who could.
async fn until(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
