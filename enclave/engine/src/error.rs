use std::path::PathBuf;

/// Why the engine did not answer. No variant carries content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model folder is missing.
    #[error("{}: missing; a model folder holds config.json, tokenizer.json, tokenizer_config.json and the weights", .0.display())]
    NoModel(PathBuf),
    /// The model could not be loaded.
    #[error("the model cannot be loaded: {0}")]
    Load(String),
    /// As many requests wait as may.
    #[error("the enclave is busy: try again shortly")]
    Busy,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens and the model's context is {context}: shorten the conversation")]
    ContextFull {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The model's chat template refuses the conversation.
    #[error("the model's chat template refuses this conversation: check the order of roles")]
    Template,
    /// The engine's thread has ended.
    #[error("the engine has ended: the enclave must be restarted")]
    Ended,
}
