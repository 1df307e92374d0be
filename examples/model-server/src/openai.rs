//! The requests of the OpenAI API, as far as the simulator reads them; unknown fields are ignored.

use serde::Deserialize;
use serde_json::Value;

/// `POST /v1/chat/completions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ChatRequest {
    /// The model's name; required.
    pub model: Option<String>,
    /// The conversation; required and not empty.
    pub messages: Option<Vec<Message>>,
    /// Whether to answer with server-sent events.
    pub stream: Option<bool>,
    /// What else a stream tells.
    pub stream_options: Option<StreamOptions>,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// Most tokens of the answer; goes before `max_tokens`.
    pub max_completion_tokens: Option<u32>,
    /// Least tokens of the answer (vLLM).
    pub min_tokens: Option<u32>,
    /// Whether to go on to the most tokens (vLLM).
    pub ignore_eos: Option<bool>,
    /// How many answers, 1 to 16.
    pub n: Option<u32>,
    /// Texts that end the answer.
    pub stop: Option<OneOrMany>,
    /// Chooses another answer.
    pub seed: Option<i64>,
    /// Chooses another answer, 0 to 2.
    pub temperature: Option<f64>,
}

/// One message of a chat.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Message {
    /// Who speaks; required.
    pub role: Option<String>,
    /// A text, an array of parts, or nothing.
    pub content: Option<Value>,
    /// The tools that the assistant called.
    pub tool_calls: Option<Value>,
}

/// `POST /v1/completions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CompletionRequest {
    /// The model's name; required.
    pub model: Option<String>,
    /// A text, texts, tokens, or arrays of tokens; required.
    pub prompt: Option<Value>,
    /// Whether to answer with server-sent events.
    pub stream: Option<bool>,
    /// What else a stream tells.
    pub stream_options: Option<StreamOptions>,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// Least tokens of the answer (vLLM).
    pub min_tokens: Option<u32>,
    /// Whether to go on to the most tokens (vLLM).
    pub ignore_eos: Option<bool>,
    /// How many answers to each prompt, 1 to 16.
    pub n: Option<u32>,
    /// Texts that end the answer.
    pub stop: Option<OneOrMany>,
    /// Chooses another answer.
    pub seed: Option<i64>,
    /// Chooses another answer, 0 to 2.
    pub temperature: Option<f64>,
}

/// `POST /v1/embeddings`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EmbeddingRequest {
    /// The model's name; required.
    pub model: Option<String>,
    /// A text, texts, tokens, or arrays of tokens; required.
    pub input: Option<Value>,
    /// `float` or `base64` (32-bit floats, least byte first).
    pub encoding_format: Option<String>,
    /// Length of the vectors, 1 to 4096.
    pub dimensions: Option<u32>,
}

/// What a stream tells besides tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Whether a last event has the token counts.
    pub include_usage: Option<bool>,
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn to_vec(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Many(texts) => texts.clone(),
        }
    }
}
