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
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// One token cannot be embedded.
    #[error("the engine cannot embed a text of one token: send a longer one")]
    TooShort,
    /// A token that the model does not have.
    #[error("token {token} does not exist: the model has tokens 0 to {last}")]
    NoSuchToken {
        /// The token.
        token: u32,
        /// The last one that exists.
        last: usize,
    },
    /// The model's chat template refuses the conversation.
    #[error("the model's chat template refuses this conversation: check the order of roles")]
    Template,
    /// The tokenizer refuses the text.
    #[error("the model's tokenizer cannot read this text")]
    Tokenizer,
    /// A chat model was asked to embed, or the other way round.
    #[error("this model does not {0}")]
    Incapable(&'static str),
    /// The engine failed on this request, again where it was tried alone.
    #[error("the engine failed on this request, which is free: try again")]
    Failed,
    /// The engine refuses the schema.
    #[error("the schema cannot be followed: the engine does not support it")]
    Schema,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The engine's thread has ended.
    #[error("the engine has ended: the enclave must be restarted")]
    Ended,
}
