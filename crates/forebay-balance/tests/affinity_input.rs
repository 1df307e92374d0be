//! The affinity layer finds the same keys wherever a body is cut, none in what is no JSON, and changes no byte.
//!
//! Many cases: `PROPTEST_CASES=1000000 cargo test --release -p forebay-balance --test affinity_input`

mod affinity_kit;
mod mutate;

use affinity_kit::{chat, json, kit, prompts, sessions};
use bytes::Bytes;
use forebay_balance::affinity::PrefixBlocks;
use forebay_core::{AffinityKey, Principal};
use http_body_util::Full;
use mutate::{damaged, damages, pieces};
use proptest::prelude::*;
use proptest::sample::Index;
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

/// What has meaning in a body.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ":",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "é",
    "\u{feff}",
    "null",
    "true",
    "-1e5",
    "\n",
    "\0",
    "\"user\":",
    "\"session_id\":\"s\",",
    "\"messages\":[",
];

/// Bodies as clients send them.
fn body() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(chat(0, "short")),
        Just(chat(3, "é\\n\\u00e9\\ud83d\\ude00")),
        Just(chat(2, "").replace("\"stream\"", "\"user\":\"u-1\",\"stream\"")),
        Just(format!(r#"{{"model":"m","prompt":["{}",[1,2,3]],"session_id":17,"n":1.5e0}}"#, "x".repeat(3000))),
        Just(
            r#" {"input":"a","metadata":{"user":"no"},"prompt_cache_key":"k","user":null,"stop":["\n",true]} "#
                .to_owned()
        ),
    ]
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..6)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

proptest! {
    #[test]
    fn no_body_is_changed(body in prop::collection::vec(any::<u8>(), 0..200), cuts in cuts()) {
        let got = run(kit(sessions().prompt().max_peek(100)).frames(&pieces(&body, &cuts)));
        prop_assert_eq!(got.data, body);
    }

    #[test]
    fn a_damaged_body_says_the_same_wherever_it_is_cut(
        body in body(), damages in damages(WORDS), cuts in cuts(), max_peek in prop_oneof![1..5000_usize, Just(64 << 10)],
    ) {
        let body = damaged(body.as_bytes(), &damages);
        let kit = kit(sessions().prompt().max_peek(max_peek));
        let (whole, cut) = (run(kit.frames(&pieces(&body, &[]))), run(kit.frames(&pieces(&body, &cuts))));
        prop_assert_eq!((whole.key, whole.blocks), (cut.key, cut.blocks));
        prop_assert_eq!((&whole.data, &cut.data), (&body, &body));
    }

    /// What lies beyond the bound is not looked at.
    #[test]
    fn nothing_is_read_beyond_the_bound(
        body in body(), damages in damages(WORDS), tails in prop::array::uniform2(prop::collection::vec(any::<u8>(), 1..9)),
        cuts in cuts(),
    ) {
        let mut body = damaged(body.as_bytes(), &damages);
        body.push(b'}'); // so that there is a bound
        let kit = kit(sessions().prompt().max_peek(body.len()));
        let [one, other] = tails.map(|tail| run(kit.frames(&pieces(&[&*body, &tail].concat(), &cuts))));
        prop_assert_eq!((one.key, one.blocks), (other.key, other.blocks));
    }

    #[test]
    fn finds_what_serde_json_finds(
        members in prop::collection::vec((name(), value()), 0..6), pretty in any::<bool>(), cut in any::<Index>(),
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
    fn escapes_make_no_difference(value in ".{1,40}", cut in any::<Index>()) {
        let escaped: String = value.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let (escaped, plain) = (format!(r#"{{"user":"{escaped}"}}"#), serde_json::json!({"user": value}).to_string());
        let (kit, (one, two)) = (kit(sessions()), escaped.as_bytes().split_at(cut.index(escaped.len())));
        let key = run(kit.frames(&[one, two])).key;
        prop_assert!(key.is_some());
        prop_assert_eq!(key, run(kit.text(&plain)).key);
    }
}
