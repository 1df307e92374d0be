//! Simulates a GPU model server: **not a model, a stand-in for one**.
//!
//! What it answers is words drawn from a hash of the prompt. What it is for is everything around the answer: it speaks
//! the OpenAI HTTP API as vLLM does (chat, completions, embeddings; whole or as server-sent events), has a fixed number
//! of slots and a KV cache that fill up, makes requests wait their turn, takes prefill and decode time, exports
//! vLLM-style and DCGM-style metrics, and fails on demand. Gateways, load tests and benchmarks run against it without a
//! GPU.
//!
//! # When not to use it
//!
//! When the words matter, or when the timing of one particular GPU does: the time model is two rates, prompt tokens per
//! second and output tokens per second and request, whatever the batch.
//!
//! # Starting one
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use forebay_model_server::{ModelServer, serve};
//! use tokio::net::TcpListener;
//!
//! let config = ModelServer::builder().model("sim-7b").slots(4).decode_tokens_per_second(200.0).build()?;
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let server = serve(listener, config, std::future::pending())?;
//! println!("listening on {}", server.url());
//! assert_eq!(server.stats().running, 0);
//! server.stop().await;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! As a process: `forebay-model-server --port 8000 --slots 4`; `--help` lists all flags. Its first line on stdout is
//! `listening on http://127.0.0.1:8000`.
//!
//! # Same question, same answer
//!
//! The answer is a function of the model's name, the prompt, `seed`, `temperature`, `n`, `stop` and the token limits,
//! and of nothing else: `id` is a hash of the request, `created` is the constant [`CREATED`], and two servers answer
//! byte for byte alike. So a test can ask [`expected_text`] what must come out of a gateway:
//!
//! ```
//! use forebay_model_server::{ChatRequest, expected_text};
//!
//! let json = r#"{"model":"sim-7b","messages":[{"role":"user","content":"Why dams?"}],"max_tokens":5}"#;
//! let request: ChatRequest = serde_json::from_str(json)?;
//! assert_eq!(expected_text(&request), expected_text(&request));
//! assert_eq!(forebay_model_server::answers(&request)[0].completion_tokens(), 5);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! A token is one word piece. A prompt counts `ceil(characters / 4)` tokens. An answer has 8 to 64 tokens, drawn from
//! the hash, cut by `max_tokens` or `max_completion_tokens`, stretched by `min_tokens`; `ignore_eos` runs to the
//! maximum, so a trace with known token counts can be replayed. `tools`, `response_format`, `echo` and `logprobs` are
//! accepted and ignored.
//!
//! # Overload, cancellation, streaming
//!
//! A request holds one slot and prompt plus output tokens of KV cache until its last token. Without room it waits, first
//! come first served (a large one at the head holds up the smaller behind it); with `max_waiting` in line the answer is
//! 503 with `Retry-After`. A stream sends its head when it has a slot and then one event per token. There is no
//! generation task: tokens come out as the response is polled, so a client that leaves takes its request along, wherever
//! it is, and [`Handle::stats`] shows it; one that stops reading keeps its slot (a real engine would decode on).
//! [`ConfigBuilder::instant`] takes out all of that: requests take no time, no slot and no lock.
//!
//! # Faults
//!
//! [`Faults`] makes given shares of requests fail, hang, break off or answer nonsense, in a sequence that depends on a
//! seed only. [`Handle::faults`], [`Handle::memory_pressure`] and [`Handle::xid`] change things on a running server.
//!
//! # Routes
//!
//! | route | answer |
//! |---|---|
//! | `POST /v1/chat/completions`, `/v1/completions`, `/v1/embeddings` | as the OpenAI API |
//! | `GET /v1/models`, `/v1/models/{id}` | the names served |
//! | `GET /health` | 200, or 503 during a slow start |
//! | `GET /metrics` | vLLM-style and DCGM-style metrics in the Prometheus text format; label: the first model |
//! | `GET /stats` | [`Stats`] as JSON |

mod answer;
mod base64;
mod body;
mod config;
mod embed;
mod engine;
mod error;
mod faults;
mod handle;
mod histogram;
mod input;
mod metrics;
mod openai;
mod pace;
mod plan;
mod prefix;
mod queue;
mod read;
mod routes;
mod serve;
mod stats;
mod stream;
mod wire;

pub use answer::{Answer, CREATED, FinishReason, prompt_tokens};
pub use config::{Config, ConfigBuilder, ConfigError, ModelServer};
pub use embed::embedding;
pub use faults::Faults;
pub use handle::Handle;
pub use openai::{ChatRequest, CompletionRequest, EmbeddingRequest, Message, OneOrMany, StreamOptions};
pub use plan::{answers, completion_answers, expected_body, expected_completion_body, expected_text};
pub use serve::serve;
pub use stats::Stats;
