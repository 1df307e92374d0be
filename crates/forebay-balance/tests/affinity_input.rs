//! The affinity layer finds the same keys wherever a body is cut, none in what is no JSON, and changes no byte.

mod affinity_kit;

use affinity_kit::{chat, json, kit, prompts, sessions};
use bytes::Bytes;
use forebay_balance::affinity::PrefixBlocks;
use forebay_core::{AffinityKey, Principal};
use http_body_util::Full;
use proptest::prelude::*;
use serde_json::Value;

#[tokio::test]
async fn r39_finds_the_same_wherever_the_body_is_cut() {
    let kit = kit(sessions().prompt());
    let body = r#"{"x":{"user":"no"},"messages":[{"content":"é\n"}],"us\u0065r":"\ud83d\ude00é","session_id":"s"}"#;
    let whole = kit.text(body).await;
    let plain = kit.text(r#"{"messages":[],"user":"😀é"}"#).await;
    assert!(whole.key.is_some() && whole.key == plain.key);
    for cut in 0..=body.len() {
        let (one, two) = body.as_bytes().split_at(cut);
        let got = kit.frames(&[one, two]).await;
        assert_eq!((got.key, got.data.as_slice()), (whole.key, body.as_bytes()), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
    assert_eq!(kit.frames(&bytes).await.key, whole.key);
}

#[tokio::test]
async fn the_first_usable_field_of_the_body_wins() {
    let kit = kit(sessions());
    let user = kit.text(r#"{"user":"7"}"#).await.key;
    assert!(user.is_some());
    for body in [
        r#"{"user":"7","session_id":"s"}"#,
        r#"{"session_id":"","user":7}"#,
        r#"{"session_id":null,"prompt_cache_key":["k"],"user":"7"}"#,
        r#"{"session_id":{"id":"x"},"user":"7"}"#,
        r#"{"user":"7","user":"8"}"#,
        r#" {"a":[[[{}]]],"user":"7" and then something that nobody has looked at"#,
    ] {
        assert_eq!(kit.text(body).await.key, user, "{body}");
    }
    for body in [r#"{"user":"8"}"#, r#"{"session_id":"7"}"#, r#"{"prompt_cache_key":"7"}"#] {
        let key = kit.text(body).await.key;
        assert!(key.is_some() && key != user, "{body}");
    }
}

#[tokio::test]
async fn tenants_share_no_keys_and_no_blocks() {
    let kit = kit(sessions().prompt());
    let mut all = Vec::new();
    for body in [r#"{"messages":[],"user":"7"}"#.to_owned(), chat(3, "")] {
        for principal in [None, Some("a"), Some("b")] {
            let mut request = json(Full::<Bytes>::from(body.clone()));
            if let Some(principal) = principal {
                request.extensions_mut().insert(Principal::from_bytes(principal));
            }
            let got = kit.send(request).await;
            all.push(got.key.unwrap().0);
            all.extend(got.blocks.iter().flat_map(PrefixBlocks::hashes).filter(|&&hash| hash != got.key.unwrap().0));
        }
    }
    let mut distinct = all.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!((all.len(), distinct.len()), (3 + 3 * 3, 3 + 3 * 3));
}

#[tokio::test]
async fn r40_a_prompt_gives_its_first_two_blocks_even_if_it_never_ends_within_the_bound() {
    let kit = kit(prompts());
    let three = kit.text(&chat(3, "")).await;
    let blocks = three.blocks.unwrap();
    assert_eq!((blocks.hashes().len(), three.key), (3, Some(AffinityKey(blocks.hashes()[1]))));
    for tail in ["other", "\\n"] {
        let got = kit.text(&chat(2, tail)).await;
        assert_eq!(got.key, three.key, "the same two blocks, and then {tail}");
    }
    let long = kit.text(&chat(200, "")).await;
    assert_eq!((long.key, long.blocks.unwrap().hashes().len()), (three.key, 31), "64 KiB with the head");
    let text = chat(200, "");
    let cut: Vec<&[u8]> = text.as_bytes().chunks(1460).collect();
    let got = kit.frames(&cut).await;
    assert_eq!((got.key, got.data.as_slice()), (three.key, text.as_bytes()));

    let one = kit.text(&chat(1, "")).await;
    assert_eq!((one.key, one.blocks.map(|blocks| blocks.hashes().len())), (None, Some(1)), "everybody's system prompt");
    assert!(kit.text(&chat(0, "")).await.blocks.is_none());
}

#[tokio::test]
async fn prompts_of_all_shapes() {
    let kit = kit(prompts());
    let text = "x".repeat(5000);
    let mut keys = Vec::new();
    for body in [
        format!(r#"{{"prompt":"{text}"}}"#),
        format!(r#"{{"prompt":["{}","{}"]}}"#, &text[..2500], &text[2500..]),
        format!(r#"{{"input":[{{"type":"text","text":"{text}"}}],"messages":["no"]}}"#),
        format!(r#"{{"prompt":[{}1]}}"#, "123,".repeat(2000)),
    ] {
        keys.push(kit.text(&body).await.key.unwrap());
    }
    assert_eq!(keys[0], kit.text(&format!(r#"{{"input":"{text}"}}"#)).await.key.unwrap());
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 4);
}

#[tokio::test]
async fn a_field_goes_before_the_prompt_and_is_looked_for_behind_it() {
    let kit = kit(sessions().prompt());
    let chat = chat(3, "");
    let prompt = kit.text(&chat).await;
    let user = kit.text(r#"{"user":"u"}"#).await;
    assert!(user.key.is_some() && user.key != prompt.key);
    let before = chat.replace("\"model\"", "\"user\":\"u\",\"model\"");
    let behind = chat.replace("\"stream\"", "\"user\":\"u\",\"stream\"");
    for body in [before, behind] {
        let got = kit.text(&body).await;
        assert_eq!((got.key, got.blocks), (user.key, prompt.blocks.clone()));
    }
}

#[tokio::test]
async fn bad_bodies_pass_as_they_are_without_a_key() {
    let kit = kit(sessions().prompt());
    let bad: [&[u8]; 12] = [
        b"hello",
        b"[{\"user\":\"u\"}]",
        b"\"user\"",
        b"\xef\xbb\xbf{\"user\":\"u\"}",
        b"{\"user\":\"u",
        b"{\"user\":\"u\\",
        b"{\"user\":7",
        b"{\"user\":\"\xff\"}",
        b"{\"user\":\"\\ud800\"}",
        b"{\"a\":1 \"user\":\"u\"}",
        b"\x1f\x8b\x08\x00",
        b"{\"a\":\"b\"",
    ];
    for body in bad {
        let got = kit.frames(&[body]).await;
        assert_eq!((got.key, got.blocks.is_some(), got.data.as_slice()), (None, false, body), "{body:?}");
    }
    let deep = format!("{}{}", "{\"a\":[".repeat(100_000), "\"user\"");
    assert_eq!(kit.text(&deep).await.key, None);
    let late = format!(r#"{{"x":"{}","user":"u"}}"#, "y".repeat(64 << 10));
    let got = kit.text(&late).await;
    assert_eq!((got.key, got.data.as_slice()), (None, late.as_bytes()), "beyond the bound");
    let half = format!(r#"{{"user":"{}"#, "u".repeat(70_000));
    assert_eq!(kit.text(&half).await.key, None, "no half of a value is a key");
    let empty: Vec<&[u8]> = vec![b""; 70_000];
    assert_eq!(kit.frames(&empty).await.key, None, "empty frames are bounded, too");
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let kit = kit(sessions());
    for (kind, coding, keyed) in [
        ("application/json", "identity", true),
        ("Application/JSON", "", true),
        ("application/vnd.api+json;x=y", "", true),
        ("application/json", "gzip", false),
        ("text/json", "", false),
        ("application/jsonl", "", false),
        ("multipart/form-data", "", false),
        ("", "", false),
    ] {
        let mut request = json(Full::<Bytes>::from(r#"{"user":"u"}"#));
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        request.headers_mut().insert("content-encoding", coding.parse().unwrap());
        assert_eq!(kit.send(request).await.key.is_some(), keyed, "{kind} {coding}");
    }
    let mut request = json(Full::<Bytes>::from(r#"{"user":"u"}"#));
    request.headers_mut().remove("content-type");
    assert_eq!(kit.send(request).await.key, None);
}

/// The text that a plain reader finds, a string or number each.
fn texts(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Number(number) => out.push(number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, out)),
        Value::Object(members) => members.values().for_each(|value| texts(value, out)),
        Value::Null | Value::Bool(_) => {}
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("user".to_owned()), Just("session_id".to_owned()), Just("messages".to_owned()), ".{0,4}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from),
        ".{0,3000}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let object = prop::collection::vec((name(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            object.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

proptest! {
    #[test]
    fn no_body_is_changed(body in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0..200_usize, 0..4)) {

        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let frames: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
        let got = run(kit(sessions().prompt().max_peek(100)).frames(&frames));
        prop_assert_eq!(got.data, body);
    }

    #[test]
    fn finds_what_serde_json_finds(
        members in prop::collection::vec((name(), value()), 0..6), pretty in any::<bool>(), cut in any::<prop::sample::Index>(),
    ) {
        let object = Value::Object(members.into_iter().collect());
        let body = if pretty { format!("{object:#}") } else { object.to_string() };
        let members = object.as_object().unwrap();
        let usable = |value: &&Value| value.is_number() || value.as_str().is_some_and(|text| !text.is_empty());
        let named = |name: &&String| ["session_id", "user"].contains(&name.as_str());
        let mut fields = members.iter().filter(|(name, value)| named(name) && usable(value));

        // The same, with nothing around it: there the naive reader has nothing left to read wrongly.
        let alone = match (fields.next(), members.get("messages")) {
            (Some((name, value)), _) => serde_json::json!({name: value}),
            (None, Some(prompt)) => {
                let mut all = Vec::new();
                texts(prompt, &mut all);
                serde_json::json!({"messages": all})
            }
            (None, None) => serde_json::json!({}),
        };
        let kit = kit(sessions().prompt().max_peek(1 << 20));
        let (one, two) = body.as_bytes().split_at(cut.index(body.len() + 1));
        prop_assert_eq!(run(kit.frames(&[one, two])).key, run(kit.text(&alone.to_string())).key, "{}", body);
    }

    #[test]
    fn escapes_make_no_difference(value in ".{1,40}", cut in any::<prop::sample::Index>()) {
        let escaped: String = value.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let (escaped, plain) = (format!(r#"{{"user":"{escaped}"}}"#), serde_json::json!({"user": value}).to_string());
        let (kit, (one, two)) = (kit(sessions()), escaped.as_bytes().split_at(cut.index(escaped.len())));
        let key = run(kit.frames(&[one, two])).key;
        prop_assert!(key.is_some());
        prop_assert_eq!(key, run(kit.text(&plain)).key);
    }
}
