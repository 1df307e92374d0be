//! What the features `serde` and `metrics` add.
#![cfg(all(feature = "serde", feature = "metrics"))]

use std::convert::Infallible;
use std::time::Duration;

use forebay_core::testing::{Scripted, Step};
use forebay_priority::{PriorityConfig, PriorityLayer, metrics};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{Layer as _, ServiceExt as _, service_fn};

#[test]
fn r23_a_configuration_is_read_with_readable_times_and_unknown_fields_are_named() {
    let text = r#"{
        "limit": {"fixed": 8}, "expected_hold": "350ms", "expected_head": "350ms",
        "classes": [
            {"name": "people", "queue_timeout": "500ms", "max_hold": "1m"},
            {"name": "batch", "queue_timeout": "10s", "reserved": 0.05, "queue": {"fixed": 9}, "order": "fifo"}
        ]
    }"#;
    let config: PriorityConfig = serde_json::from_str(text).expect("valid");
    assert_eq!(config.classes[0].max_hold, Some(Duration::from_secs(60)));
    assert_eq!(
        serde_json::from_str::<PriorityConfig>(&serde_json::to_string(&config).expect("JSON")).expect("its own"),
        config
    );
    let error = serde_json::from_str::<PriorityConfig>(&text.replace("max_hold", "max_held")).expect_err("unknown");
    assert!(error.to_string().contains("max_held"), "{error}");
    for preset in [PriorityConfig::reference_table(), PriorityConfig::four_class(7)] {
        let text = serde_json::to_string(&preset).expect("JSON");
        assert_eq!(serde_json::from_str::<PriorityConfig>(&text).expect("its own"), preset);
    }
}

#[test]
fn r23_counts_come_with_class_and_reason_and_gauges_return_to_zero() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    ::metrics::with_local_recorder(&recorder, || {
        metrics::describe();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("tokio");
        runtime.block_on(async {
            let mut config = PriorityConfig::four_class(1);
            (config.classes[2].queue_timeout, config.classes[2].patience_seats) = (Duration::from_secs(3), 0);
            let layer = PriorityLayer::builder().config(config).build().expect("a preset");
            let service = layer.layer(service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(Scripted::new([Step::Data("x".into())])))
            }));
            let held = service.clone().oneshot(Request::new(())).await.expect("infallible");
            let late = service.clone().oneshot(Request::new(())).await.expect("infallible");
            assert_eq!(late.status(), 429, "its 3 s are over");
            held.into_body().collect().await.expect("a body");
        });
    });
    let mut seen = 0;
    for (key, unit, help, value) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        assert!(name.starts_with("forebay_priority_") && unit.is_some() && help.is_some(), "{name}");
        let labels: Vec<_> = key.key().labels().map(|label| (label.key(), label.value())).collect();
        match (name.as_str(), value) {
            ("forebay_priority_shed_total", DebugValue::Counter(count)) => {
                assert_eq!((count, labels), (1, vec![("class", "P2"), ("reason", "queue-timeout")]));
                seen += 1;
            }
            ("forebay_priority_requests_total", DebugValue::Counter(count)) => {
                let one = labels.contains(&("outcome", "admitted")) || labels.contains(&("outcome", "refused"));
                assert_eq!(count, u64::from(one), "{labels:?}");
                seen += 1;
            }
            ("forebay_priority_limit_seats", DebugValue::Gauge(value)) => assert_eq!(*value, 1.0),
            (_, DebugValue::Gauge(value)) => {
                assert_eq!(*value, 0.0, "{name} returns to zero");
                seen += 1;
            }
            _ => {}
        }
    }
    assert!(seen >= 7, "{seen}");
}
