//! The configuration reads from text and back.

use std::time::Duration;

use forebay_balance::{HttpCheck, OnFull, Outlier, Pin, Policy, SlowStart};

#[test]
fn r54_what_is_left_out_has_its_default_and_what_is_unknown_is_named() {
    let outlier: Outlier = serde_json::from_str(r#"{"consecutive_errors":3,"base":"2s"}"#).expect("valid");
    assert_eq!(
        (outlier.consecutive_errors, outlier.base, outlier.max),
        (3, Duration::from_secs(2), Duration::from_secs(300))
    );
    let error = serde_json::from_str::<Outlier>(r#"{"consecutive":3}"#).expect_err("no such field");
    assert!(error.to_string().contains("consecutive"), "{error}");
    let slow: SlowStart = serde_json::from_str(r#"{"window":"1m"}"#).expect("valid");
    assert_eq!(slow, SlowStart::new(Duration::from_secs(60)));
    let wait: OnFull = serde_json::from_str(r#"{"wait":{"len":8,"timeout":"250ms"}}"#).expect("valid");
    assert_eq!(wait, OnFull::Wait { len: 8, timeout: Duration::from_millis(250) });
    assert_eq!(serde_json::from_str::<OnFull>("\"reject\"").expect("valid"), OnFull::Reject);
    assert_eq!(serde_json::from_str::<Policy>("\"round_robin\"").expect("valid"), Policy::RoundRobin);
    let check: HttpCheck = serde_json::from_str(r#"{"path":"/up","interval":"1s"}"#).expect("valid");
    assert_eq!(check, HttpCheck::new("/up").interval(Duration::from_secs(1)));
}

#[test]
fn r54_it_reads_back_as_it_was_written() {
    let outlier = Outlier::default();
    let text = serde_json::to_string(&outlier).expect("writes");
    assert_eq!(serde_json::from_str::<Outlier>(&text).expect("reads"), outlier);
    let pin = Pin::to_group().linger(Duration::from_secs(5));
    let text = serde_json::to_string(&pin).expect("writes");
    assert_eq!(serde_json::from_str::<Pin>(&text).expect("reads"), pin);
}
