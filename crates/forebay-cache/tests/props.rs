//! The canonical form against `serde_json` values: equal values, however written, give equal texts; others never do.

use forebay_cache::canon::canonical;
use proptest::prelude::*;
use serde_json::{Map, Value};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a-c\"\\\\\n\u{1}é\u{fffd}😀]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c\"é😀\u{fffd}]{0,2}", inner, 0..4)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// Writes a value in an unusual way: members turned round, spaces, every character escaped, numbers with an exponent.
fn odd(value: &Value) -> String {
    let text = |text: &str| text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
    match value {
        Value::Array(items) => format!("[ {} ]", items.iter().map(odd).collect::<Vec<_>>().join("\t,")),
        Value::Object(members) => {
            let members = members.iter().rev().map(|(name, value)| format!("\"{}\" :\n{}", text(name), odd(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(" , "))
        }
        Value::String(string) => format!("\"{}\"", text(string)),
        Value::Number(number) => format!("{number}.00e+0"),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn equal_values_have_equal_forms(a in value()) {
        let form = canonical(a.to_string().as_bytes(), &[]).unwrap();
        let other = canonical(odd(&a).as_bytes(), &[]).unwrap();
        prop_assert_eq!(form.text(), other.text());
        let again = canonical(form.text().as_bytes(), &[]).unwrap();
        prop_assert_eq!(form.text(), again.text());
    }

    #[test]
    fn different_values_have_different_forms(a in value(), b in value()) {
        let form = |value: &Value| canonical(value.to_string().as_bytes(), &[]).unwrap().text().to_owned();
        prop_assert_eq!(a == b, form(&a) == form(&b));
    }

    #[test]
    fn nothing_panics_and_only_json_has_a_form(text in "[\\[\\]{}:,\"\\\\u0-9eE+.a-f \n-]{0,12}") {
        if canonical(text.as_bytes(), &[]).is_ok() {
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
        }
    }
}

#[test]
fn numbers_are_exact() {
    let form = |text: &str| canonical(text.as_bytes(), &[]).map(|form| form.text().to_owned());
    for (a, b) in [("1", "10e-1"), ("-0", "0.0e5"), ("1200", "1.2E+3"), ("0.010", "1e-2"), ("1e1000000", "10e999999")] {
        assert_eq!(form(a), form(b));
    }
    assert_ne!(form("0.1"), form("0.10000000000000000001"));
    for broken in ["01", "1.", ".1", "+1", "1e", "-", "1e1000001", "1e99999999999999999999"] {
        assert!(form(broken).is_err(), "{broken}");
    }
}
