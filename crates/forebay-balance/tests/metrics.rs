//! What the recorder is told: each exchange once, and gauges that return to zero.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_balance::probe::Verdict;
use forebay_balance::{Balance, Endpoint, Fleet, OnFull};
use forebay_core::{CapacitySignal as _, Class, Outcome};
use http::{Request, Response};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{ServiceExt as _, service_fn};

/// Names with their labels, and counts or gauges.
fn numbers(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let text = |(key, _, _, value): (metrics_util::CompositeKey, _, _, DebugValue)| {
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = key.key().name().trim_start_matches("forebay_balance_");
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        (format!("{name}{{{}}}", labels.join(",")), value)
    };
    snapshotter.snapshot().into_vec().into_iter().map(text).collect()
}

#[test]
fn r54_each_exchange_counts_once_and_gauges_return_to_zero() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        forebay_balance::metrics::describe();
        let service = service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new(axum::body::Body::from("x")))
        });
        let (balance, handle) = Balance::builder()
            .endpoint(Endpoint::with_service("a", service).max_concurrency(2))
            .on_full(OnFull::Reject)
            .build_with_handle()
            .expect("valid");
        let fleet: Fleet<_> = balance.fleet();
        let (one, two) = (fleet.pick(Class::P0).expect("open"), fleet.pick(Class::P0).expect("open"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let refused = runtime.block_on(balance.clone().oneshot(Request::new(()))).expect("infallible");
        assert_eq!(refused.status(), 429);
        handle.record();
        let now = numbers(&snapshotter);
        assert_eq!(now["in_flight_requests{endpoint=a}"], 2.0);
        assert_eq!(now["load_requests{endpoint=a}"], 2.0);
        assert_eq!(now["places{pool=default,state=open}"], 0.0);
        assert_eq!(now["places{pool=default,state=used}"], 2.0);
        assert!(!now.contains_key("probe_age_seconds{endpoint=a}"), "nobody has asked it");
        assert_eq!(now["refused_total{reason=at-capacity}"], 1.0);
        one.finish(Outcome::Success);
        drop(two);
        let place = handle.capacity().try_reserve(Class::P0).expect("open");
        handle.record();
        let then = numbers(&snapshotter);
        // This recorder starts gauges at zero again with each look: two less than at the first.
        let in_flight = 2.0 + then["in_flight_requests{endpoint=a}"];
        let places = |state: &str| then[&format!("places{{pool=default,state={state}}}")];
        assert_eq!((places("open"), places("reserved"), places("used")), (1.0, 1.0, 0.0));
        drop(place);
        drop(runtime.block_on(balance.oneshot(Request::new(()))));
        handle.record();
        let then = numbers(&snapshotter);
        assert_eq!(in_flight + then["in_flight_requests{endpoint=a}"], 0.0);
        assert_eq!(then["load_requests{endpoint=a}"], 0.0);
        assert_eq!(then["available_ratio{pool=default}"], 1.0);
        assert_eq!(then["weight_ratio{endpoint=a}"], 1.0);
    });
}

#[tokio::test(start_paused = true)]
async fn r54_the_age_of_a_probe_is_said_until_its_endpoint_is_gone() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _local = metrics::set_default_local_recorder(&recorder);
    let builder =
        Balance::builder().endpoint(Endpoint::with_service("a", ())).endpoint(Endpoint::with_service("b", ()));
    let (balance, handle) = builder.build_with_handle().expect("valid");
    assert!(handle.report("a", Some(5), Verdict::Factor(1.0), Duration::from_secs(60)));
    tokio::time::advance(Duration::from_secs(7)).await;
    handle.record();
    let now = numbers(&snapshotter);
    assert_eq!((now["probe_age_seconds{endpoint=a}"], now["load_requests{endpoint=a}"]), (7.0, 5.0));
    assert!(!now.contains_key("probe_age_seconds{endpoint=b}"));
    assert!(balance.remove("a") && balance.remove("b"));
    handle.record();
    let then = numbers(&snapshotter);
    assert_eq!((then["probe_age_seconds{endpoint=a}"], then["load_requests{endpoint=a}"]), (0.0, 0.0));
    assert!(!then.contains_key("probe_age_seconds{endpoint=b}"));
}

#[test]
fn r54_labels_are_those_of_endpoints_that_are_there() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let endpoint = |generation: usize, i: usize| Endpoint::with_service(format!("{generation}-{i}"), ()).weight(2);
        let (balance, handle) = Balance::<()>::builder().endpoint(endpoint(0, 0)).build_with_handle().expect("valid");
        for generation in 0..3 {
            balance.replace([]).expect("valid");
            handle.record();
            balance.replace((0..258).map(|i| endpoint(generation, i))).expect("valid");
            assert!(handle.report(&format!("{generation}-257"), Some(3), Verdict::Factor(0.5), Duration::MAX / 4));
            handle.record();
            let now = numbers(&snapshotter);
            let of_now = |name: &&String| name.starts_with(&format!("in_flight_requests{{endpoint={generation}-"));
            assert_eq!(now.keys().filter(of_now).count(), 256);
            let other = |name: &str| now[&format!("{name}{{endpoint=other}}")];
            assert_eq!((other("load_requests"), other("weight_ratio")), (3.0, 0.75), "two of them");
        }
        balance.replace([]).expect("valid");
        handle.record();
        let now = numbers(&snapshotter);
        balance.insert(endpoint(9, 9)).expect("valid");
        handle.record();
        assert_eq!((now["load_requests{endpoint=other}"], now["weight_ratio{endpoint=other}"]), (0.0, 0.0));
        assert_eq!(numbers(&snapshotter)["weight_ratio{endpoint=9-9}"], 1.0);
    });
}

#[test]
fn labels_are_bounded() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let endpoints = (0..1000).map(|i| Endpoint::with_service(i.to_string(), ()));
        let builder = endpoints.fold(Balance::<()>::builder(), forebay_balance::BalanceBuilder::endpoint);
        let (balance, handle) = builder.build_with_handle().expect("valid");
        handle.record();
        drop(balance);
    });
    let names = numbers(&snapshotter);
    assert_eq!(names.keys().filter(|name| name.starts_with("in_flight_requests")).count(), 257);
    assert!(names.contains_key("load_requests{endpoint=other}"));
}
