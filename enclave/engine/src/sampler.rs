//! The choice of every token, made here and not by the engine: with a seed of the request's own, biases and log-probabilities, and with
//! a record of what was chosen, by which answers are metered and decoded.
//!
//! The engine asks with the logits of one position; it is handed back logits that leave it one choice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mistralrs::{CustomLogitsProcessor, Tensor};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How to choose the next token. What is `None` is off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 or `None`: always the likeliest token.
    pub temperature: Option<f64>,
    /// Nucleus: the likeliest tokens that have this probability together.
    pub top_p: Option<f64>,
    /// Number of candidates.
    pub top_k: Option<usize>,
    /// Least probability of a candidate, as a share of the likeliest one's.
    pub min_p: Option<f64>,
    /// OpenAI's frequency penalty, over what was generated.
    pub frequency_penalty: f32,
    /// OpenAI's presence penalty, over what was generated.
    pub presence_penalty: f32,
    /// Divides the logits of what came before, prompt included; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed, prompt and model give the same answer. A seed of the system's if `None`.
    pub seed: Option<u64>,
    /// How many of the likeliest tokens to report beside the chosen one; `None` reports nothing.
    pub logprobs: Option<usize>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// A JSON schema that the answer must follow.
    pub schema: Option<serde_json::Value>,
}

/// A token, and the natural logarithm of its probability before temperature, penalties and biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scored {
    pub(crate) token: u32,
    pub(crate) logprob: f32,
}

/// One choice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) token: u32,
    /// The chosen token's score and the likeliest ones, if asked for.
    pub(crate) scores: Option<(f32, Vec<Scored>)>,
}

struct State {
    random: ChaCha12Rng,
    chosen: Vec<Chosen>,
    /// Tokens to choose again: those of an attempt that the engine did not survive.
    replay: Vec<u32>,
    /// The position that was asked for last, and, where scores under a schema are wanted, its logits before the schema forbade any.
    asked: Option<usize>,
    logits: Vec<f32>,
}

/// 32-bit words of random numbers that one choice takes.
const WORDS: u128 = 2;

/// Chooses for one answer.
pub(crate) struct Chooser {
    sampling: Sampling,
    prompt: usize,
    end: u32,
    cancelled: AtomicBool,
    state: Mutex<State>,
    #[cfg(test)]
    pub(crate) fault: Option<crate::tests::Fault>,
}

impl Chooser {
    pub(crate) fn new(sampling: Sampling, prompt: usize, end: u32) -> Result<Self, crate::Error> {
        let mut seed = [0; 32];
        match sampling.seed {
            Some(number) => seed[..8].copy_from_slice(&number.to_le_bytes()),
            None => getrandom::fill(&mut seed).map_err(|_| crate::Error::Random)?,
        }
        let state = State {
            random: ChaCha12Rng::from_seed(seed),
            chosen: Vec::new(),
            replay: Vec::new(),
            asked: None,
            logits: Vec::new(),
        };
        Ok(Self {
            sampling,
            prompt,
            end,
            cancelled: AtomicBool::new(false),
            state: Mutex::new(state),
            #[cfg(test)]
            fault: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the answer with the next token.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The position that was asked for last.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> Option<usize> {
        self.lock().asked
    }

    /// Tokens chosen so far.
    pub(crate) fn count(&self) -> usize {
        self.lock().chosen.len()
    }

    /// Choices from `from` on, without the last `uncertain` ones.
    pub(crate) fn since(&self, from: usize, uncertain: usize) -> Vec<Chosen> {
        let state = self.lock();
        let until = state.chosen.len().saturating_sub(uncertain);
        state.chosen.get(from..until.max(from)).unwrap_or_default().to_vec()
    }

    /// Forgets what came after `keep`, and returns what was kept, to be chosen or read again.
    pub(crate) fn rewind(&self, keep: usize, replay: bool) -> Vec<u32> {
        let mut state = self.lock();
        state.chosen.truncate(keep);
        state.asked = None;
        let kept: Vec<u32> = state.chosen.iter().map(|chosen| chosen.token).collect();
        state.replay = if replay { kept.clone() } else { Vec::new() };
        kept
    }

    fn choose(&self, logits: &[f32], context: &[u32]) -> u32 {
        let step = context.len().saturating_sub(self.prompt);
        let mut state = self.lock();
        // The engine asks again for the same position where a schema forbids the first choice, without what it forbids.
        state.chosen.truncate(step);
        let again = state.asked.replace(step) == Some(step);
        if self.cancelled.load(Ordering::Relaxed) {
            // It only ends the engine's work: nobody generated it, and nobody pays for it. Where a schema does not allow the end, the engine
            // would fail on it, and on whatever it computes beside it: it gets what is allowed, and finds out that nobody listens any more.
            return if again { likeliest(logits) } else { self.end };
        }
        let token = match state.replay.get(step).copied() {
            Some(token) => token,
            None => {
                // Each question has random numbers of its own: an answer that is taken up again goes on as it would have.
                let question = 2 * step as u128 + u128::from(again);
                state.random.set_word_pos(question * WORDS);
                pick(logits, context, self.prompt, &self.sampling, &mut state.random)
            }
        };
        let scores = self.sampling.logprobs.map(|top| {
            if !again && self.sampling.schema.is_some() {
                state.logits = logits.to_vec();
            }
            scores(if again { &state.logits } else { logits }, token, top)
        });
        state.chosen.push(Chosen { token, scores });
        token
    }
}

impl CustomLogitsProcessor for Chooser {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
        let values: Vec<f32> = logits.to_vec1()?;
        #[cfg(test)]
        if let Some(fault) = &self.fault {
            fault.strike(context.len() - self.prompt)?;
        }
        let token = self.choose(&values, context) as usize;
        let mut one = vec![0f32; values.len()];
        if let Some(value) = one.get_mut(token) {
            *value = 1.0;
        }
        Tensor::from_vec(one, values.len(), logits.device())
    }
}

fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0 as u32
}

fn pick(logits: &[f32], context: &[u32], prompt: usize, sampling: &Sampling, random: &mut ChaCha12Rng) -> u32 {
    let adjusted = adjust(logits, context, prompt, sampling);
    let logits = adjusted.as_deref().unwrap_or(logits);
    let Some(temperature) = sampling.temperature.filter(|temperature| *temperature > 0.0) else {
        return likeliest(logits);
    };
    // Tiny temperatures would overflow; they mean the likeliest token.
    if temperature < 1e-5 {
        return likeliest(logits);
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !most.is_finite() {
        return likeliest(logits);
    }
    let weight = |logit: f32| (f64::from(logit - most) / temperature).exp();
    let whole = sampling.top_k.is_none() && sampling.top_p.is_none_or(|p| p >= 1.0) && sampling.min_p.is_none();
    let mut candidates: Vec<(u32, f64)> =
        logits.iter().enumerate().map(|(token, logit)| (token as u32, weight(*logit))).collect();
    if !whole {
        narrow(&mut candidates, sampling);
    }
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    // 53 random bits, as many as a double holds.
    let unit = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = unit * total;
    for (token, weight) in &candidates {
        left -= weight;
        if left < 0.0 {
            return *token;
        }
    }
    candidates.iter().rev().find(|(_, weight)| *weight > 0.0).map_or(0, |(token, _)| *token)
}

/// Keeps what top-k, top-p and min-p leave, in this order.
fn narrow(candidates: &mut Vec<(u32, f64)>, sampling: &Sampling) {
    let descending = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if let Some(k) = sampling.top_k.filter(|k| (1..candidates.len()).contains(k)) {
        candidates.select_nth_unstable_by(k - 1, descending);
        candidates.truncate(k);
    }
    if let Some(p) = sampling.top_p.filter(|p| *p < 1.0) {
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        // Tokens this unlikely have less than 1 - p together, so the nucleus needs none of them.
        let least = total * (1.0 - p) / candidates.len() as f64;
        candidates.retain(|(_, weight)| *weight >= least);
        candidates.sort_unstable_by(descending);
        let mut sum = 0.0;
        let nucleus = candidates.iter().take_while(|(_, weight)| {
            let inside = sum < p * total;
            sum += weight;
            inside
        });
        let kept = nucleus.count().max(1);
        candidates.truncate(kept);
    }
    if let Some(p) = sampling.min_p {
        let most = candidates.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        candidates.retain(|(_, weight)| *weight >= p * most);
    }
}

/// Logits with biases and penalties; `None` if there are none.
fn adjust(logits: &[f32], context: &[u32], prompt: usize, sampling: &Sampling) -> Option<Vec<f32>> {
    let repetition = sampling.repetition_penalty.filter(|penalty| (*penalty - 1.0).abs() > f32::EPSILON);
    let counted = sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0;
    if sampling.logit_bias.is_empty() && repetition.is_none() && !counted {
        return None;
    }
    let mut logits = logits.to_vec();
    if let Some(penalty) = repetition {
        let seen: std::collections::HashSet<u32> = context.iter().copied().collect();
        for token in seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }
    if counted {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for token in context.get(prompt..).unwrap_or_default() {
            *counts.entry(*token).or_default() += 1;
        }
        for (token, count) in counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= count as f32 * sampling.frequency_penalty + sampling.presence_penalty;
            }
        }
    }
    for (token, bias) in &sampling.logit_bias {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit += bias;
        }
    }
    Some(logits)
}

fn scores(logits: &[f32], token: u32, top: usize) -> (f32, Vec<Scored>) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    let normal = most + total.ln() as f32;
    let of = |token: u32| Scored { token, logprob: logits.get(token as usize).map_or(f32::MIN, |l| l - normal) };
    let mut best: Vec<Scored> = Vec::new();
    if top > 0 && !logits.is_empty() {
        let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
        let descending = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let top = top.min(tokens.len());
        tokens.select_nth_unstable_by(top - 1, descending);
        tokens.truncate(top);
        tokens.sort_unstable_by(descending);
        best = tokens.into_iter().map(of).collect();
    }
    (of(token).logprob, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: &[f32] = &[1.0, 3.0, 2.0, -1.0, 0.0];

    fn shares(sampling: &Sampling) -> Vec<f64> {
        let mut random = ChaCha12Rng::from_seed([7; 32]);
        let mut counts = vec![0u32; LOGITS.len()];
        for _ in 0..20_000 {
            counts[pick(LOGITS, &[], 0, sampling, &mut random) as usize] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / 20_000.0).collect()
    }

    fn softmax(of: &[f32], temperature: f64) -> Vec<f64> {
        let weights: Vec<f64> = of.iter().map(|l| (f64::from(*l) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    fn warm(temperature: f64) -> Sampling {
        Sampling { temperature: Some(temperature), ..Sampling::default() }
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        for temperature in [0.5, 1.0, 2.0] {
            for (share, expected) in shares(&warm(temperature)).iter().zip(softmax(LOGITS, temperature)) {
                assert!((share - expected).abs() < 0.015, "{share} for {expected}");
            }
        }
    }

    #[test]
    fn filters_leave_the_likeliest_in_their_proportions() {
        let whole = softmax(LOGITS, 1.0);
        for (sampling, kept) in [
            (Sampling { top_k: Some(2), ..warm(1.0) }, vec![1, 2]),
            (Sampling { top_p: Some(whole[1] - 0.01), ..warm(1.0) }, vec![1]),
            (Sampling { top_p: Some(whole[1] + 0.01), ..warm(1.0) }, vec![1, 2]),
            (Sampling { min_p: Some(0.1), ..warm(1.0) }, vec![0, 1, 2]),
            (Sampling { min_p: Some(1.0), ..warm(1.0) }, vec![1]),
        ] {
            let total: f64 = kept.iter().map(|token| whole[*token]).sum();
            for (token, share) in shares(&sampling).iter().enumerate() {
                let expected = if kept.contains(&token) { whole[token] / total } else { 0.0 };
                assert!((share - expected).abs() < 0.015, "{sampling:?}: token {token} {share} for {expected}");
            }
        }
    }

    #[test]
    fn biases_and_penalties_change_the_choice_and_the_prompt_is_not_penalised() {
        let mut random = ChaCha12Rng::from_seed([0; 32]);
        let mut greedy = |sampling: &Sampling, context: &[u32]| pick(LOGITS, context, 2, sampling, &mut random);
        assert_eq!(greedy(&Sampling::default(), &[]), 1);
        assert_eq!(greedy(&Sampling { logit_bias: vec![(3, 100.0), (9, 1.0)], ..Sampling::default() }, &[]), 3);
        let presence = Sampling { presence_penalty: 1.5, ..Sampling::default() };
        assert_eq!(greedy(&presence, &[1, 1]), 1, "the prompt");
        assert_eq!(greedy(&presence, &[0, 0, 1]), 2, "what was generated");
        let frequency = Sampling { frequency_penalty: 0.6, ..Sampling::default() };
        assert_eq!(greedy(&frequency, &[0, 0, 1]), 1);
        assert_eq!(greedy(&frequency, &[0, 0, 1, 1]), 2);
        assert_eq!(greedy(&Sampling { repetition_penalty: Some(2.0), ..Sampling::default() }, &[1, 1]), 2);
    }

    #[test]
    fn log_probabilities_are_natural_and_sorted() {
        let (own, best) = scores(LOGITS, 2, 3);
        let expected = softmax(LOGITS, 1.0);
        assert!((f64::from(own).exp() - expected[2]).abs() < 1e-6);
        assert_eq!(best.iter().map(|scored| scored.token).collect::<Vec<_>>(), [1, 2, 0]);
        assert!((f64::from(best[0].logprob).exp() - expected[1]).abs() < 1e-6);
        assert!(scores(LOGITS, 0, 0).1.is_empty());
    }

    #[test]
    fn scores_under_a_schema_are_the_models_own() {
        let sampling = Sampling { logprobs: Some(5), schema: Some(serde_json::json!({})), ..Sampling::default() };
        let chooser = Chooser::new(sampling, 0, 0).unwrap();
        assert_eq!(chooser.choose(LOGITS, &[]), 1);
        // The schema forbids what was chosen, and all but two tokens.
        let allowed = [f32::NEG_INFINITY, f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY, 0.0];
        assert_eq!(chooser.choose(&allowed, &[]), 2);
        let chosen = chooser.since(0, 0);
        let (own, best) = chosen[0].scores.clone().unwrap();
        assert_eq!((chosen.len(), own), (1, scores(LOGITS, 2, 5).0));
        assert!(best.len() == 5 && best.iter().all(|scored| scored.logprob.is_finite()));
        // The next position is another one.
        assert_eq!(chooser.choose(&allowed, &[2]), 2);
        assert_eq!(chooser.since(1, 0)[0].scores.clone().unwrap().0, scores(&allowed, 2, 5).0);
    }

    #[test]
    fn what_ends_a_cancelled_answer_is_no_token_of_it() {
        let chooser = Chooser::new(Sampling::default(), 0, 4).unwrap();
        chooser.choose(LOGITS, &[]);
        chooser.cancel();
        assert_eq!((chooser.choose(LOGITS, &[1]), chooser.count()), (4, 1));
    }

    #[test]
    fn a_cancelled_answer_chooses_nothing_that_its_schema_forbids() {
        let allowed = [f32::NEG_INFINITY, f32::NEG_INFINITY, 2.0, 0.0, f32::NEG_INFINITY];
        let chooser = Chooser::new(Sampling::default(), 0, 4).unwrap();
        chooser.choose(LOGITS, &[]);
        chooser.cancel();
        assert_eq!((chooser.choose(LOGITS, &[1]), chooser.count()), (4, 1));
        assert_eq!((chooser.choose(&allowed, &[1]), chooser.count()), (2, 1), "the schema does not allow the end");
        // Cancelled between the two times that a schema makes the engine ask.
        let chooser = Chooser::new(Sampling::default(), 0, 4).unwrap();
        chooser.choose(LOGITS, &[]);
        chooser.choose(LOGITS, &[1]);
        chooser.cancel();
        assert_eq!((chooser.choose(&allowed, &[1]), chooser.count()), (2, 1));
    }

    #[test]
    fn a_seed_repeats_and_none_does_not() {
        let draw = |seed| {
            let chooser = Chooser::new(Sampling { seed, ..warm(2.0) }, 0, 0).unwrap();
            (0..64).map(|step| chooser.choose(LOGITS, &vec![0; step])).collect::<Vec<_>>()
        };
        assert_eq!(draw(Some(5)), draw(Some(5)));
        assert_ne!(draw(Some(5)), draw(Some(6)));
        assert_ne!(draw(None), draw(None));
    }

    #[test]
    fn logits_that_are_no_numbers_still_give_a_token() {
        let mut random = ChaCha12Rng::from_seed([0; 32]);
        for bad in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [f32::INFINITY; 3]] {
            assert!(pick(&bad, &[], 0, &warm(1.0), &mut random) < 3);
        }
    }
}
