//! What people and dashboards read: the names of all numbers, the errors of a configuration, the warnings.
#![cfg(feature = "metrics")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{OneFrame, config, request};
use forebay_core::{Class, RequestHead};
use forebay_priority::{Cap, Limit, PriorityConfig, PriorityLayer, QueueLength, metrics};
use http::Request;
use http_body_util::BodyExt as _;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio_test::assert_pending;
use tokio_test::task::spawn;
use tower::{Layer as _, ServiceExt as _};

#[test]
fn r23_the_names_labels_and_units_of_all_numbers() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    ::metrics::with_local_recorder(&recorder, || {
        metrics::describe();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("tokio");
        runtime.block_on(async {
            let exempt = |head: &RequestHead<'_>| head.uri.path() == "/healthz";
            let builder = PriorityLayer::builder().config(config(1, 1)).exempt(exempt);
            let service = builder.build().expect("valid").layer(OneFrame);
            let ask = |request| service.clone().oneshot(request);
            ask(Request::get("/healthz").body(()).expect("valid")).await.expect("exempt");
            let held = ask(request(Class::P1)).await.expect("admitted");
            let mut queued = spawn(ask(request(Class::P1)));
            assert_pending!(queued.poll());
            drop(ask(request(Class::P1)).await.expect("refused"));
            drop(queued); // cancelled
            held.into_body().collect().await.expect("a body");
        });
    });
    let lines: BTreeSet<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, unit, help, value)| {
            let kind = match value {
                DebugValue::Counter(_) => "counter",
                DebugValue::Gauge(_) => "gauge",
                DebugValue::Histogram(_) => "histogram",
            };
            let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let unit = unit.map(|unit| unit.as_canonical_label()).unwrap_or_default();
            let help = help.as_deref().unwrap_or_default().to_owned();
            format!("{kind} {}{{{}}} [{unit}] {help}", key.key().name(), labels.join(","))
        })
        .collect();
    insta::assert_snapshot!(lines.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_problem_of_a_configuration_is_named_with_its_range() {
    let mut config = PriorityConfig::four_class(1).limit(Limit::Fixed(usize::MAX));
    config.classes[1].name = config.classes[0].name.clone();
    config.classes[0].max_in_flight = Cap::Seats(0);
    config.classes[1].max_in_flight = Cap::Share(f64::NAN);
    config.classes[2].reserved = 0.6;
    config.classes[2].headroom = -1.0;
    config.classes[3].queue = QueueLength::Fixed(usize::MAX);
    config.classes[3].queue_timeout = Duration::MAX;
    let error = PriorityLayer::builder().config(config).build().expect_err("nothing of it is legal");
    insta::assert_snapshot!(error);
}

#[test]
fn r6_warnings_say_what_is_wrong_and_what_to_do() {
    let warnings = |config: PriorityConfig| {
        let (_, handle) = PriorityLayer::builder().config(config).build_with_handle().expect("legal, if unwise");
        handle.warnings().into_iter().map(|warning| warning.to_string()).collect::<Vec<_>>()
    };
    let long = warnings(PriorityConfig::reference_table());
    let mut seldom = PriorityConfig::four_class(1).expected_hold(Duration::from_secs(60));
    seldom.classes.iter_mut().for_each(|class| class.patience_seats = 0);
    let seldom = warnings(seldom);
    insta::assert_snapshot!([long, seldom].concat().join("\n"));
}
