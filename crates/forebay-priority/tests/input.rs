//! Bad input: header values of every kind, huge keys, floods of tenants, impossible configurations. Nothing panics, nobody
//! outside rises, memory stays flat.

mod common;

use std::time::Duration;

use common::{ask, assert_idle, config, house, reason, request};
use forebay_core::{Class, Deadline, Principal, Reason};
use forebay_priority::{ByHeader, Cap, ClassConfig, Limit, PriorityConfig, PriorityLayer, QueueLength, Seats};
use http::{HeaderValue, Request};
use proptest::prelude::*;
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};

#[tokio::test]
async fn r12_no_header_value_raises_a_class_or_reaches_the_service_inside() {
    let classify = ByHeader::new("x-priority").default_class(Class::P2);
    let (_, handle) = PriorityLayer::builder().classify(classify).build_with_handle().expect("valid");
    let long = "p3".repeat(4096);
    for (values, class) in [
        (vec!["p0"], Class::P2),
        (vec!["p3"], Class::P3),
        (vec!["p15"], Class::new(15)),
        (vec![""], Class::P2),
        (vec![&long], Class::P2),
        (vec!["p3", "p3"], Class::P3),
        (vec!["p3", "p0"], Class::P2),
        (vec!["p0,p3"], Class::P2),
        (vec!["-1"], Class::P2),
        (vec!["999"], Class::P2),
        (vec!["1e9"], Class::P2),
        (vec!["NaN"], Class::P2),
        (vec!["18446744073709551615"], Class::P2),
        (vec!["p\u{f6}3"], Class::P2),
    ] {
        let mut request = Request::new(());
        for value in &values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("allowed in HTTP");
            request.headers_mut().append("x-priority", value);
        }
        handle.mark(&mut request);
        assert_eq!(request.extensions().get::<Class>(), Some(&class), "{values:?}");
        let inside: Vec<_> = request.headers().get_all("x-priority").iter().collect();
        assert_eq!(inside, [class.as_str()]);
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_header_are_survived(wish in prop::collection::vec(0x20..=0xff_u8, 0..40),
                                            timeout in "\\PC{0,20}", grpc in "[0-9]{0,10}[a-zA-Z]{0,2}") {
        let builder = PriorityLayer::builder().classify(ByHeader::new("x-priority")).deadline_header("x-timeout-ms");
        let (_, handle) = builder.build_with_handle().expect("valid");
        let mut request = Request::new(());
        for (name, value) in [("x-priority", &wish[..]), ("x-timeout-ms", timeout.as_bytes()), ("grpc-timeout", grpc.as_bytes())] {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                request.headers_mut().insert(name, value);
            }
        }
        handle.mark(&mut request);
        prop_assert!(*request.extensions().get::<Class>().expect("marked") >= Class::P2);
    }
}

#[tokio::test(start_paused = true)]
async fn r25_a_million_tenants_and_a_key_of_a_megabyte_leave_memory_flat() {
    let (service, handle) = house(config(1, 4));
    let held = ask(&service, Class::P0).await;
    let size = || {
        let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
    };
    let visit = async |tenant: &[u8]| {
        let mut request = request(Class::P2);
        request.extensions_mut().insert(Principal::from_bytes(tenant));
        let mut exchange = tokio_test::task::spawn(service.clone().oneshot(request));
        let _ = exchange.poll(); // queued; then it leaves
    };
    visit(&vec![b'a'; 1 << 20]).await;
    for tenant in 0..10_000_u64 {
        visit(&tenant.to_le_bytes()).await;
    }
    let before = size();
    for tenant in 0..1_000_000_u64 {
        visit(&tenant.to_le_bytes()).await;
    }
    let grown = size().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for a million tenants");
    drop(held);
    assert_idle(&handle);
}

#[test]
fn impossible_configurations_are_one_error_that_lists_them_all() {
    let classes = |count: usize| (0..count).map(|i| ClassConfig::new(format!("c{i}"), Duration::ZERO)).collect();
    let of = |config: PriorityConfig| PriorityLayer::builder().config(config).build().map(drop);
    assert!(of(PriorityConfig::four_class(1).classes(classes(0))).is_err());
    assert!(of(PriorityConfig::four_class(1).classes(classes(16))).is_ok());
    assert!(of(PriorityConfig::four_class(1).classes(classes(17))).is_err());
    let mut bad = PriorityConfig::four_class(2_000_000).limit(Limit::Sum);
    bad.classes[0].name = "P1".into();
    bad.classes[0].reserved = f64::NAN;
    bad.classes[1].headroom = f64::INFINITY;
    bad.classes[2].max_in_flight = Cap::Share(-0.1);
    let builder = PriorityLayer::builder().config(bad).classify(ByHeader::new("no header")).deadline_header("");
    let error = builder.forward_deadline("also none").build().expect_err("ten problems");
    let text = error.to_string();
    for named in [
        "\"no header\"",
        "deadline_header",
        "forward_deadline",
        "reserved",
        "headroom",
        "max_in_flight",
        "limit Sum",
        "name",
    ] {
        assert!(text.contains(named), "{named} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn r3_a_queue_of_zero_sheds_at_once_and_timeouts_may_be_zero_or_endless() {
    let mut patient = config(1, 0);
    patient.stall = None;
    let (service, handle) = house(patient);
    let held = ask(&service, Class::P2).await;
    assert_eq!(reason(&ask(&service, Class::P2).await), Reason::QueueFull);
    handle
        .update_class(Class::P2, |class| {
            class.queue = QueueLength::Fixed(4);
            class.queue_timeout = Duration::ZERO;
        })
        .expect("valid");
    assert_eq!(reason(&ask(&service, Class::P2).await), Reason::QueueTimeout);
    handle.update_class(Class::P2, |class| class.queue_timeout = Duration::MAX).expect("valid");
    let mut waits = tokio_test::task::spawn(ask(&service, Class::P2));
    assert!(waits.poll().is_pending());
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(!waits.is_woken(), "an hour is nothing");
    drop(held);
    assert_eq!(waits.await.status(), 200);
    assert_idle(&handle);
}

#[tokio::test(start_paused = true)]
async fn extreme_deadlines_and_costs_are_survived() {
    let cost = |_: &forebay_core::RequestHead<'_>| Seats::new(u32::MAX);
    let (layer, handle) = PriorityLayer::builder().config(config(3, 4)).cost(cost).build_with_handle().expect("valid");
    let service = layer.layer(common::OneFrame);
    let now = Instant::now().into_std();
    for deadline in [Deadline::after(now, Duration::MAX), Deadline::after(now, Duration::from_secs(600))] {
        let mut request = request(Class::new(200));
        request.extensions_mut().insert(deadline);
        let response = service.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200);
        assert_eq!(handle.snapshot().classes[3].in_flight, 3, "a class beyond the last is the last, and has all seats");
    }
    assert_idle(&handle);
}
