//! Whether a JSON route's answer is all there: half an answer must never be given again.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What a JSON route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `choices` that each end with `finish_reason` `stop`; as JSON or as an event stream.
    Choices,
    /// `data` with something in it.
    Embeddings,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    data: Vec<IgnoredAny>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    finish_reason: Option<String>,
}

/// Whether `body` is a complete answer. O(n), without a copy of what it says.
pub(crate) fn json(shape: Shape, body: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return false };
    let stopped = |choice: &Choice| choice.finish_reason.as_deref() == Some("stop");
    answer.error.is_none()
        && match shape {
            Shape::Choices => !answer.choices.is_empty() && answer.choices.iter().all(stopped),
            Shape::Embeddings => !answer.data.is_empty(),
        }
}

/// Whether `body` is a complete stream of events: every choice stopped, no error event, `[DONE]` at the end. O(n).
pub(crate) fn events(body: &[u8]) -> bool {
    let Ok(body) = std::str::from_utf8(body) else { return false };
    let mut stopped = BTreeMap::new();
    let (mut data, mut done) = (String::new(), false);
    for line in lines(body).chain([""]) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(value);
            }
            "event" if value == "error" => return false,
            "" if line.is_empty() && !data.is_empty() => {
                if done || !event(&data, &mut stopped, &mut done) {
                    return false; // something after the end, or an error
                }
                data.clear();
            }
            _ => {}
        }
    }
    done && !stopped.is_empty() && stopped.values().all(|&stopped| stopped)
}

fn event(data: &str, stopped: &mut BTreeMap<u64, bool>, done: &mut bool) -> bool {
    if data == "[DONE]" {
        *done = true;
        return true;
    }
    let Ok(answer) = serde_json::from_str::<Answer>(data) else { return false };
    for choice in answer.choices {
        match choice.finish_reason.as_deref() {
            Some("stop") => stopped.insert(choice.index, true),
            Some(_) => return false,
            None => stopped.insert(choice.index, false),
        };
    }
    answer.error.is_none()
}

/// Lines of an event stream end in LF, CR LF or CR.
fn lines(body: &str) -> impl Iterator<Item = &str> {
    body.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

    #[test]
    fn a_stream_is_complete_when_each_choice_stopped_and_done_came() {
        let whole = format!("{ONE}: ping\n\n{STOP}data: {{\"choices\":[],\"usage\":{{}}}}\n\ndata: [DONE]\n\n");
        assert!(events(whole.as_bytes()));
        assert!(events(whole.replace('\n', "\r\n").as_bytes()));
        assert!(events(whole.replace('\n', "\r").as_bytes()));
        for end in 0..whole.len() - "\n\n".len() {
            assert!(!events(&whole.as_bytes()[..end]), "cut at {end}");
        }
        let other = ONE.replace("\"index\":0", "\"index\":1");
        for broken in [
            format!("{ONE}{other}{STOP}data: [DONE]\n\n"),
            format!("{ONE}{}data: [DONE]\n\n", STOP.replace("stop", "length")),
            format!("{ONE}event: error\ndata: {{}}\n\n{STOP}data: [DONE]\n\n"),
            format!("{ONE}data: {{\"error\":{{\"code\":1}}}}\n\n{STOP}data: [DONE]\n\n"),
            format!("{ONE}{STOP}data: [DONE]\n\n{ONE}"),
            "data: [DONE]\n\n".to_owned(),
        ] {
            assert!(!events(broken.as_bytes()), "{broken}");
        }
    }

    #[test]
    fn json_is_complete_when_each_choice_stopped() {
        let chat = |text: &str| json(Shape::Choices, text.as_bytes());
        assert!(chat(r#"{"choices":[{"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}"#));
        assert!(!chat(r#"{"choices":[{"finish_reason":"stop"},{"finish_reason":"length"}]}"#));
        assert!(!chat(r#"{"choices":[{"finish_reason":"stop"}],"error":{}}"#));
        assert!(!chat(r#"{"choices":[{"finish_reason":"stop"}]"#));
        assert!(!chat(r#"{"choices":[]}"#));
        assert!(json(Shape::Embeddings, br#"{"data":[{"embedding":[0.5]}]}"#));
        assert!(!json(Shape::Embeddings, br#"{"error":{}}"#));
    }
}
