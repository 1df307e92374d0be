//! Embeddings: unit vectors drawn from a hash of the input.

use bytes::Bytes;
use serde::Serialize;

use crate::{
    EmbeddingRequest,
    answer::{Hash, Random},
    base64,
    error::ApiError,
    input::{Prompt, prompts},
    prefix, wire,
};

/// Returns the embedding of a text: a vector of length one, the same on any server.
#[must_use]
pub fn embedding(model: &str, text: &str, dimensions: u32) -> Vec<f32> {
    vector(model, text.as_bytes(), dimensions)
}

fn vector(model: &str, input: &[u8], dimensions: u32) -> Vec<f32> {
    let mut random = Random(Hash::new().part(model.as_bytes()).part(input).finish());
    let drawn: Vec<f64> = (0..dimensions).map(|_| (random.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0).collect();
    let norm = drawn.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    drawn.into_iter().map(|x| (x / norm) as f32).collect()
}

#[derive(Debug)]
pub(crate) struct EmbedPlan {
    model: String,
    inputs: Vec<Prompt>,
    base64: bool,
    dimensions: u32,
    pub(crate) tokens: u64,
}

impl EmbedPlan {
    pub(crate) fn new(request: &EmbeddingRequest, room: u64, dimensions: u32) -> Result<Self, ApiError> {
        let model = request.model.clone().ok_or_else(|| ApiError::missing("model"))?;
        let inputs = prompts("input", request.input.as_ref())?;
        let base64 = match request.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(ApiError::bad_value("encoding_format", "must be 'float' or 'base64'")),
        };
        let dimensions = request.dimensions.unwrap_or(dimensions);
        if !(1..=4096).contains(&dimensions) {
            return Err(ApiError::bad_value("dimensions", "must be from 1 to 4096"));
        }
        let tokens = inputs.iter().map(|input| input.tokens).sum();
        if tokens > room {
            return Err(ApiError::too_long(room, tokens, 0));
        }
        Ok(Self { model, inputs, base64, dimensions, tokens })
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn blocks(&self) -> Vec<u64> {
        self.inputs.iter().flat_map(|input| prefix::blocks(&self.model, &input.bytes)).collect()
    }

    pub(crate) fn body(&self) -> Bytes {
        #[derive(Serialize)]
        struct List<'a> {
            object: &'static str,
            data: Vec<Item>,
            model: &'a str,
            usage: Usage,
        }
        #[derive(Serialize)]
        struct Item {
            object: &'static str,
            index: usize,
            embedding: Vector,
        }
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Vector {
            Floats(Vec<f32>),
            Base64(String),
        }
        #[derive(Serialize)]
        struct Usage {
            prompt_tokens: u64,
            total_tokens: u64,
        }
        let item = |(index, input): (usize, &Prompt)| {
            let floats = vector(&self.model, &input.bytes, self.dimensions);
            let embedding = if self.base64 {
                let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
                Vector::Base64(base64::encode(&bytes))
            } else {
                Vector::Floats(floats)
            };
            Item { object: "embedding", index, embedding }
        };
        let data = self.inputs.iter().enumerate().map(item).collect();
        let usage = Usage { prompt_tokens: self.tokens, total_tokens: self.tokens };
        wire::json(&List { object: "list", data, model: &self.model, usage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one_and_differ() {
        let a = embedding("m", "a", 64);
        let norm: f32 = a.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5);
        assert_eq!(a, embedding("m", "a", 64));
        assert_ne!(a, embedding("m", "b", 64));
    }
}
