//! Prompts in all shapes of the API, as bytes to hash and tokens to count.

use serde_json::Value;

use crate::{ChatRequest, answer::prompt_tokens, error::ApiError};

/// Most prompts or inputs in one request.
const MOST: usize = 2048;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tokens: u64,
}

impl Prompt {
    fn text(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), tokens: prompt_tokens(text) }
    }

    /// Tokens, as four bytes each.
    fn tokens(field: &str, tokens: &[Value]) -> Result<Self, ApiError> {
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        for token in tokens {
            let token = token.as_u64().and_then(|token| u32::try_from(token).ok());
            let token = token.ok_or_else(|| ApiError::bad_value(field, "has a token that is not a whole number"))?;
            bytes.extend(token.to_le_bytes());
        }
        Ok(Self { bytes, tokens: tokens.len() as u64 })
    }
}

/// Reads `prompt` or `input`: a text, tokens, or an array of either.
pub(crate) fn prompts(field: &str, value: Option<&Value>) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || ApiError::bad_value(field, "must be a string, an array of strings, tokens, or arrays of tokens");
    let array = match value {
        None | Some(Value::Null) => return Err(ApiError::missing(field)),
        Some(Value::String(text)) => return Ok(vec![Prompt::text(text)]),
        Some(Value::Array(array)) => array,
        Some(_) => return Err(wrong()),
    };
    match array.first() {
        None => Err(ApiError::bad_value(field, "must not be empty")),
        Some(Value::Number(_)) => Ok(vec![Prompt::tokens(field, array)?]),
        Some(_) if array.len() > MOST => Err(ApiError::bad_value(field, "has more than 2048 entries")),
        Some(_) => {
            let each = array.iter().map(|value| match value {
                Value::String(text) => Ok(Prompt::text(text)),
                Value::Array(tokens) if !tokens.is_empty() => Prompt::tokens(field, tokens),
                _ => Err(wrong()),
            });
            each.collect()
        }
    }
}

/// Reads a conversation. A longer one begins with the bytes of the shorter, as the prefix cache needs it.
pub(crate) fn conversation(request: &ChatRequest) -> Result<Prompt, ApiError> {
    let messages = request.messages.as_deref().ok_or_else(|| ApiError::missing("messages"))?;
    if messages.is_empty() {
        return Err(ApiError::bad_value("messages", "must not be empty"));
    }
    let (mut bytes, mut characters) = (Vec::new(), 0);
    for (i, message) in messages.iter().enumerate() {
        let role = message.role.as_deref().ok_or_else(|| ApiError::missing(&format!("messages[{i}].role")))?;
        let mut push = |text: &str| {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0x1f); // the unit separator of ASCII
            characters += text.chars().count() as u64;
        };
        match &message.content {
            None | Some(Value::Null) if message.tool_calls.is_none() && role != "assistant" => {
                return Err(ApiError::missing(&format!("messages[{i}].content")));
            }
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => push(text),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match part.get("text").and_then(Value::as_str) {
                        Some(text) => push(text),
                        None => push(&part.to_string()),
                    }
                }
            }
            Some(_) => {
                let field = format!("messages[{i}].content");
                return Err(ApiError::bad_value(&field, "must be a string or an array of parts"));
            }
        }
        if let Some(calls) = &message.tool_calls {
            push(&calls.to_string());
        }
        bytes.extend_from_slice(role.as_bytes());
        bytes.push(0x1e); // the record separator
    }
    Ok(Prompt { bytes, tokens: characters.div_ceil(4).max(1) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_shape_of_prompt_is_read() {
        let tokens = |value| prompts("input", Some(&value)).map(|all| all.iter().map(|p| p.tokens).collect::<Vec<_>>());
        assert_eq!(tokens(json!("four more")).unwrap(), [3]);
        assert_eq!(tokens(json!(["a", "b"])).unwrap(), [1, 1]);
        assert_eq!(tokens(json!([5, 6, 7])).unwrap(), [3]);
        assert_eq!(tokens(json!([[5, 6], [7]])).unwrap(), [2, 1]);
        for bad in [json!(null), json!([]), json!(5), json!([1, "a"]), json!([-1]), json!([[]]), json!([{}])] {
            assert_eq!(tokens(bad).unwrap_err().param.as_deref(), Some("input"));
        }
    }

    #[test]
    fn a_longer_conversation_begins_with_the_shorter() {
        let read = |messages| {
            let request: ChatRequest = serde_json::from_value(json!({ "messages": messages })).unwrap();
            conversation(&request)
        };
        let short = read(json!([{"role": "user", "content": "ab"}])).unwrap();
        let long = read(json!([{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}])).unwrap();
        assert!(long.bytes.starts_with(&short.bytes));
        let parts = read(json!([{"role": "user", "content": [{"type": "text", "text": "ab"}]}])).unwrap();
        assert_eq!(parts, short);
        assert_eq!(read(json!([{"content": "a"}])).unwrap_err().param.as_deref(), Some("messages[0].role"));
        assert_eq!(read(json!([{"role": "user"}])).unwrap_err().param.as_deref(), Some("messages[0].content"));
    }
}
