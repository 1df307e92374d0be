//! What people and dashboards read: the names of all numbers, and the errors of a configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_balance::probe::Verdict;
use forebay_balance::{Balance, Endpoint, HttpCheck, OnFull};
use forebay_core::{Class, Outcome};
use http::{Request, Response};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{ServiceExt as _, service_fn};

#[test]
fn r54_the_names_labels_and_units_of_all_numbers() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        forebay_balance::metrics::describe();
        let service = service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(axum::body::Body::from("x")))
        });
        let (balance, handle) = Balance::builder()
            .endpoint(Endpoint::with_service("a", service).max_concurrency(1))
            .on_full(OnFull::Reject)
            .build_with_handle()
            .expect("valid");
        let pick = balance.fleet().pick(Class::P0).expect("open");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        drop(runtime.block_on(balance.oneshot(Request::new(()))).expect("refused"));
        pick.finish(Outcome::Success);
        runtime.block_on(async {
            assert!(handle.report("a", Some(5), Verdict::Factor(1.0), Duration::from_secs(60)));
            assert!(handle.eject("a", Duration::from_secs(60)));
        });
        handle.record();
    });
    let line = |(key, unit, help, value): (metrics_util::CompositeKey, Option<metrics::Unit>, _, DebugValue)| {
        let kind = match value {
            DebugValue::Counter(_) => "counter",
            DebugValue::Gauge(_) => "gauge",
            DebugValue::Histogram(_) => "histogram",
        };
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let unit = unit.map(|unit| unit.as_canonical_label()).unwrap_or_default();
        let help: Option<metrics::SharedString> = help;
        let help = help.as_deref().unwrap_or_default().to_owned();
        format!("{kind} {}{{{}}} [{unit}] {help}", key.key().name(), labels.join(","))
    };
    let lines: BTreeSet<_> = snapshotter.snapshot().into_vec().into_iter().map(line).collect();
    insta::assert_snapshot!(lines.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_problem_of_a_configuration_is_named_with_its_range() {
    let error = Balance::http()
        .endpoint(Endpoint::new("ftp://a"))
        .endpoint(Endpoint::new("http://user:secret@b:80/?q"))
        .endpoint(Endpoint::new("http://c:8000").weight(0))
        .endpoint(Endpoint::new("http://d:8000").max_concurrency(0).gpu("abacus"))
        .endpoint(Endpoint::new("http://d:8000"))
        .health(HttpCheck::new("no slash").interval(Duration::ZERO))
        .ready_timeout(Duration::ZERO)
        .build()
        .expect_err("nothing of it is legal");
    insta::assert_snapshot!(error.problems().join("\n"));
}
