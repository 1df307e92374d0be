//! From a request to all that will be answered: the answer is known before the first token is due.

use bytes::Bytes;

use crate::{
    Answer, ChatRequest, CompletionRequest, FinishReason, StreamOptions,
    answer::{Hash, Limits, draw},
    error::ApiError,
    input::{Prompt, conversation, prompts},
    prefix, wire,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Completion,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) answers: Vec<Answer>,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) blocks: Vec<u64>,
}

/// What chat and completion requests have in common.
struct Common<'a> {
    model: Option<&'a str>,
    n: Option<u32>,
    limits: Limits,
    stops: Vec<String>,
    seed: Option<i64>,
    temperature: Option<f64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    room: u64,
    blocks: bool,
}

impl Plan {
    /// Plans a chat in a context of `room` tokens; hashes the blocks of its prompt if asked to.
    pub(crate) fn chat(request: &ChatRequest, room: u64, blocks: bool) -> Result<Self, ApiError> {
        let (field, max) = match request.max_completion_tokens {
            Some(max) => ("max_completion_tokens", Some(max)),
            None => ("max_tokens", request.max_tokens),
        };
        let common = Common {
            model: request.model.as_deref(),
            n: request.n,
            limits: limits(field, request.min_tokens, max, request.ignore_eos)?,
            stops: request.stop.as_ref().map(|stop| stop.to_vec()).unwrap_or_default(),
            seed: request.seed,
            temperature: request.temperature,
            stream: request.stream,
            stream_options: request.stream_options,
            room,
            blocks,
        };
        common.plan(Shape::Chat, |_| Ok(vec![conversation(request)?]))
    }

    /// Plans a completion, likewise.
    pub(crate) fn completion(request: &CompletionRequest, room: u64, blocks: bool) -> Result<Self, ApiError> {
        let common = Common {
            model: request.model.as_deref(),
            n: request.n,
            limits: limits("max_tokens", request.min_tokens, request.max_tokens, request.ignore_eos)?,
            stops: request.stop.as_ref().map(|stop| stop.to_vec()).unwrap_or_default(),
            seed: request.seed,
            temperature: request.temperature,
            stream: request.stream,
            stream_options: request.stream_options,
            room,
            blocks,
        };
        common.plan(Shape::Completion, |_| prompts("prompt", request.prompt.as_ref()))
    }

    /// Number of decoding steps: all answers grow by one token in each.
    pub(crate) fn steps(&self) -> u64 {
        self.answers.iter().map(Answer::completion_tokens).max().unwrap_or(0).max(1)
    }

    pub(crate) fn finish(&self) -> FinishReason {
        let cut = self.answers.iter().any(|answer| answer.finish_reason() == FinishReason::Length);
        if cut { FinishReason::Length } else { FinishReason::Stop }
    }
}

fn limits(field: &str, min: Option<u32>, max: Option<u32>, ignore_eos: Option<bool>) -> Result<Limits, ApiError> {
    if max == Some(0) {
        return Err(ApiError::bad_value(field, "must be at least 1"));
    }
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        return Err(ApiError::bad_value("min_tokens", "must not be greater than the most tokens"));
    }
    Ok(Limits { min: min.map(u64::from), max: max.map(u64::from), ignore_eos: ignore_eos.unwrap_or(false) })
}

impl Common<'_> {
    fn plan(
        self,
        shape: Shape,
        prompts: impl FnOnce(&Self) -> Result<Vec<Prompt>, ApiError>,
    ) -> Result<Plan, ApiError> {
        let model = self.model.ok_or_else(|| ApiError::missing("model"))?;
        let prompts = prompts(&self)?;
        let n = self.n.unwrap_or(1);
        if !(1..=16).contains(&n) {
            return Err(ApiError::bad_value("n", "must be from 1 to 16"));
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(ApiError::bad_value("temperature", "must be from 0 to 2"));
        }
        let prompt_tokens: u64 = prompts.iter().map(|prompt| prompt.tokens).sum();
        let mut seeds = Vec::with_capacity(prompts.len() * n as usize);
        let (mut whole, mut output) = (Hash::new().number(shape as u64), 0_u64);
        for prompt in &prompts {
            let hash = Hash::new().part(model.as_bytes()).part(&prompt.bytes);
            // Each with its presence in front: no value stands for none.
            let hash = hash.number(self.seed.is_some().into()).number(self.seed.unwrap_or(0) as u64); // any bits do
            let hash = hash.number(self.temperature.is_some().into());
            let hash = hash.number(self.temperature.unwrap_or(0.0).to_bits());
            for i in 0..n {
                let seed = hash.number(i.into()).finish();
                let (length, finish) = self.limits.length(seed);
                whole = whole.number(seed).number(length).number(finish as u64);
                output += length;
                seeds.push(seed);
            }
        }
        if prompt_tokens.saturating_add(output) > self.room {
            return Err(ApiError::too_long(self.room, prompt_tokens, output)); // before anything so long is drawn
        }
        let whole = self.stops.iter().fold(whole, |hash, stop| hash.part(stop.as_bytes()));
        let answers: Vec<_> = seeds.into_iter().map(|seed| draw(seed, self.limits, &self.stops)).collect();
        let kind = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        Ok(Plan {
            shape,
            id: format!("{kind}-{:016x}{:016x}", whole.finish(), whole.number(0).finish()),
            model: model.to_owned(),
            completion_tokens: answers.iter().map(Answer::completion_tokens).sum(),
            answers,
            prompt_tokens,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            blocks: if self.blocks {
                prompts.iter().flat_map(|prompt| prefix::blocks(model, &prompt.bytes)).collect()
            } else {
                Vec::new()
            },
        })
    }
}

/// Room for the public functions: more than a server has, less than the memory.
const ROOM: u64 = 1 << 24;

/// Returns the answers of any server to a chat, `n` of them; none to a request that it refuses.
#[must_use]
pub fn answers(request: &ChatRequest) -> Vec<Answer> {
    Plan::chat(request, ROOM, false).map(|plan| plan.answers).unwrap_or_default()
}

/// Returns the answers to a completion, `n` to each prompt; none to a request that is refused.
#[must_use]
pub fn completion_answers(request: &CompletionRequest) -> Vec<Answer> {
    Plan::completion(request, ROOM, false).map(|plan| plan.answers).unwrap_or_default()
}

/// Returns the text of the first answer to a chat; empty for a request that is refused.
#[must_use]
pub fn expected_text(request: &ChatRequest) -> String {
    answers(request).first().map(Answer::text).unwrap_or_default()
}

/// Returns the whole body of the answer to a chat that does not stream; `None` for a request that is refused.
#[must_use]
pub fn expected_body(request: &ChatRequest) -> Option<Bytes> {
    Plan::chat(request, ROOM, false).ok().map(|plan| wire::whole(&plan))
}

/// Returns the whole body of the answer to a completion that does not stream; `None` for one that is refused.
#[must_use]
pub fn expected_completion_body(request: &CompletionRequest) -> Option<Bytes> {
    Plan::completion(request, ROOM, false).ok().map(|plan| wire::whole(&plan))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(extra: &[(&str, serde_json::Value)]) -> ChatRequest {
        let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
        for (key, value) in extra {
            request[key] = value.clone();
        }
        serde_json::from_value(request).unwrap()
    }

    #[test]
    fn the_answer_depends_on_model_prompt_and_parameters_only() {
        let text = |extra: &[_]| expected_text(&chat(extra));
        assert_eq!(text(&[]), text(&[("user", json!("x")), ("stream", json!(true))]));
        for other in [("model", json!("k")), ("seed", json!(-1)), ("temperature", json!(0.5))] {
            assert_ne!(text(&[]), text(&[other]));
        }
        assert!(text(&[]).starts_with(&text(&[("max_tokens", json!(4))])));
    }

    #[test]
    fn forced_lengths_are_exact() {
        let exact = [("min_tokens", json!(333)), ("max_tokens", json!(333)), ("ignore_eos", json!(true))];
        assert_eq!(answers(&chat(&exact))[0].completion_tokens(), 333);
        let plan = Plan::chat(&chat(&exact), 300, false);
        assert_eq!(plan.unwrap_err().code, Some("context_length_exceeded"));
        assert_eq!(answers(&chat(&[("n", json!(3))])).len(), 3);
    }
}
