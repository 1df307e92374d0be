//! The answers as JSON and as server-sent events.

use std::fmt::Write;

use bytes::Bytes;
use serde::Serialize;

use crate::{
    Answer,
    answer::CREATED,
    plan::{Plan, Shape},
};

const FINGERPRINT: &str = "forebay-simulator";

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    const fn of(plan: &Plan) -> Self {
        let (prompt_tokens, completion_tokens) = (plan.prompt_tokens, plan.completion_tokens);
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    #[serde(flatten)]
    content: Content,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    Message { role: &'static str, content: String, refusal: Option<()> },
    Text(String),
}

/// The body of an answer that does not stream.
pub(crate) fn whole(plan: &Plan) -> Bytes {
    let choice = |(index, answer): (usize, &Answer)| {
        let content = match plan.shape {
            Shape::Chat => Content::Message { role: "assistant", content: answer.text(), refusal: None },
            Shape::Completion => Content::Text(answer.text()),
        };
        Choice { index, content, logprobs: None, finish_reason: answer.finish_reason().as_str() }
    };
    let object = if plan.shape == Shape::Chat { "chat.completion" } else { "text_completion" };
    json(&Whole {
        id: &plan.id,
        object,
        created: CREATED,
        model: &plan.model,
        system_fingerprint: FINGERPRINT,
        choices: plan.answers.iter().enumerate().map(choice).collect(),
        usage: Usage::of(plan),
    })
}

/// Serialises what cannot fail: own types of strings and numbers.
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Writes the events of one answer.
#[derive(Debug)]
pub(crate) struct Events {
    head: String, // what every event begins with, up to its choices
    tail: &'static str,
}

impl Events {
    pub(crate) fn new(plan: &Plan) -> Self {
        let object = if plan.shape == Shape::Chat { "chat.completion.chunk" } else { "text_completion" };
        let model = serde_json::to_string(&plan.model).unwrap_or_default();
        let head = format!(
            "data: {{\"id\":\"{}\",\"object\":\"{object}\",\"created\":{CREATED},\"model\":{model},\
             \"system_fingerprint\":\"{FINGERPRINT}\",\"choices\":[",
            plan.id
        );
        Self { head, tail: if plan.include_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" } }
    }

    /// Writes the events of one decoding step, from 0: a token of each answer, and the ends of those that end here.
    pub(crate) fn step(&self, out: &mut String, plan: &Plan, step: u64) {
        for (i, answer) in plan.answers.iter().enumerate() {
            if step == 0 && plan.shape == Shape::Chat {
                let delta = "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}";
                self.event(out, i, delta, "null");
            }
            let last = answer.completion_tokens().max(1) - 1; // an empty answer ends in the first step
            if let Some(piece) = usize::try_from(step).ok().and_then(|step| answer.pieces().get(step)) {
                // Pieces are plain ASCII without quotes: see `PIECES`.
                match plan.shape {
                    Shape::Chat => self.event(out, i, &format!("\"delta\":{{\"content\":\"{piece}\"}}"), "null"),
                    Shape::Completion => self.event(out, i, &format!("\"text\":\"{piece}\""), "null"),
                }
            }
            if step == last {
                let nothing = if plan.shape == Shape::Chat { "\"delta\":{}" } else { "\"text\":\"\"" };
                self.event(out, i, nothing, &format!("\"{}\"", answer.finish_reason().as_str()));
            }
        }
    }

    /// Writes what comes after all tokens.
    pub(crate) fn end(&self, out: &mut String, plan: &Plan) {
        if plan.include_usage {
            let usage = serde_json::to_string(&Usage::of(plan)).unwrap_or_default();
            let _ = write!(out, "{}],\"usage\":{usage}}}\n\n", self.head);
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn event(&self, out: &mut String, index: usize, content: &str, finish: &str) {
        let (head, tail) = (&self.head, self.tail);
        let _ = write!(out, "{head}{{\"index\":{index},{content},\"logprobs\":null,\"finish_reason\":{finish}}}{tail}");
    }
}
