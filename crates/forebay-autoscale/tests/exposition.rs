//! What a scrape sees: the exact text, the format that was asked for, a bounded set of labels, decisions once they exist.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_autoscale::{AutoscaleHandle, AutoscaleLayer, Capacity, DemandSignal, Early, Format, ScaleReason, Take};
use forebay_core::{Class, Outcome, Reason, ReplicaState};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

fn build() -> AutoscaleHandle {
    AutoscaleLayer::builder().capacity(Capacity::slots(8)).build_with_handle().unwrap().1
}

/// The lines with one of these beginnings after the prefix, without it.
fn lines(text: &str, starts: &[&str]) -> Vec<String> {
    let own = text.lines().filter_map(|line| line.strip_prefix("forebay_autoscale_"));
    own.filter(|line| starts.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn the_text_is_exact() {
    let handle = build();
    let signal = handle.signal();
    let mut hit = signal.arrive(Class::P0, 1);
    hit.early(Early::Hit);
    hit.start();
    tokio::time::advance(Duration::from_millis(1500)).await;
    hit.finish(Outcome::Success);
    signal.arrive(Class::new(7), 1).shed(Reason::QueueFull);
    let _waits = signal.arrive(Class::P0, 1);

    let text = handle.render(Format::Text);
    assert!(text.starts_with(
        "# HELP forebay_autoscale_demand_requests Seats wanted at this gateway: queued and in flight.\n\
         # TYPE forebay_autoscale_demand_requests gauge\n\
         forebay_autoscale_demand_requests{pool=\"default\",class=\"P0\"} 1\n\
         forebay_autoscale_demand_requests{pool=\"default\",class=\"P1\"} 0\n"
    ));
    assert_eq!(lines(&text, &["queued_requests"]).len(), 5, "P0 to P3, and P7 as it was seen");
    assert_eq!(
        lines(&text, &["cluster", "shed", "early_requests_total{pool=\"default\",class=\"P0\"", "target", "ready"]),
        [
            "cluster_demand_requests{pool=\"default\"} 1",
            "early_requests_total{pool=\"default\",class=\"P0\",kind=\"hit\"} 1",
            "early_requests_total{pool=\"default\",class=\"P0\",kind=\"deferred\"} 0",
            "shed_requests_total{pool=\"default\",class=\"P7\",reason=\"queue-full\"} 1",
        ],
        "and nothing that is unknown"
    );
    let histogram = lines(&text, &["request_duration_seconds"]);
    let of_p0: Vec<_> = histogram.iter().filter(|line| line.contains("P0")).map(String::as_str).collect();
    assert_eq!(of_p0[4], "request_duration_seconds_bucket{class=\"P0\",outcome=\"success\",le=\"1\"} 0");
    assert_eq!(of_p0[5], "request_duration_seconds_bucket{class=\"P0\",outcome=\"success\",le=\"2.5\"} 1");
    assert_eq!(
        of_p0[13..],
        [
            "request_duration_seconds_bucket{class=\"P0\",outcome=\"success\",le=\"+Inf\"} 1",
            "request_duration_seconds_sum{class=\"P0\",outcome=\"success\"} 1.5",
            "request_duration_seconds_count{class=\"P0\",outcome=\"success\"} 1",
        ]
    );

    let open = handle.render(Format::OpenMetrics);
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("# TYPE forebay_autoscale_shed_requests counter\n"));
    assert!(open.contains("le=\"1.0\"") && open.contains("forebay_autoscale_shed_requests_total{"));
}

#[test]
fn every_family_is_described_and_labels_are_bounded() {
    let handle = build();
    let count = |handle: &AutoscaleHandle| handle.render(Format::Text).lines().count();
    for _ in 0..2 {
        for index in 0..=u8::MAX {
            let ticket = handle.signal().arrive(Class::new(index), 1);
            ticket.shed(if index % 2 == 0 { Reason::Evicted } else { Reason::KeyMismatch });
        }
    }
    let most = count(&handle);
    handle.signal().arrive(Class::new(200), 1).shed(Reason::KeyMismatch);
    assert_eq!(count(&handle), most);
    for format in [Format::Text, Format::OpenMetrics] {
        let text = handle.render(format);
        let described = |mark: &str| -> BTreeSet<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
            lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        let (help, kinds) = (described("# HELP "), described("# TYPE "));
        assert_eq!(help, kinds);
        assert_eq!(help.len(), 12);
        let mut samples = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let family = family.strip_suffix("_total").filter(|_| format == Format::OpenMetrics).unwrap_or(family);
            assert!(help.contains(family), "{line}");
            assert!(samples.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
        }
    }
}

#[tokio::test]
async fn accept_and_method_are_obeyed() {
    let service = build().metrics_service();
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                      text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
    for (accept, kind) in [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain, application/openmetrics-text;q=0.5", "text/plain"),
        ("application/openmetrics-text; version=\"9.0.0\"", "text/plain"),
        ("application/openmetrics-text;q=0", "text/plain"),
        ("application/openmetrics-text", "application/openmetrics-text"),
        (prometheus, "application/openmetrics-text"),
    ] {
        let get = Request::get("/metrics").header(header::ACCEPT, accept).body(()).unwrap();
        let response = service.clone().oneshot(get).await.unwrap();
        assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with(kind), "{accept}");
        let length: usize = response.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), length);
    }
    let head = service.clone().oneshot(Request::head("/metrics").body(()).unwrap()).await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_ne!(head.headers()[header::CONTENT_LENGTH], "0");
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
    let post = service.oneshot(Request::post("/metrics").body(()).unwrap()).await.unwrap();
    assert_eq!(
        (post.status(), &post.headers()[header::ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn sources_are_summed_and_decided_on_each_second() {
    let (queue, jobs) = (DemandSignal::new(), DemandSignal::new());
    let (_layer, handle) = AutoscaleLayer::builder()
        .source("priority", queue.clone(), Take::All)
        .source("offload", jobs.clone(), Take::Queued)
        .replicas(|pool| (pool == "default").then_some(ReplicaState { ready: 3, starting: 1, current: 4 }))
        .capacity(Capacity::slots(8))
        .build_with_handle()
        .unwrap();
    let mut decisions = handle.decision();
    assert_eq!(decisions.borrow_and_update().reason, ScaleReason::Initial);
    let _own = handle.signal().arrive(Class::P0, 1000); // no demand, as there are sources
    let _waits = queue.arrive(Class::P0, 50);
    let mut started = jobs.arrive(Class::P3, 40);
    started.start(); // counted by priority, not here
    let _stored = jobs.arrive(Class::P3, 6);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(handle.run(async { drop(stopped.await) }));
    decisions.changed().await.unwrap();
    let decision = *decisions.borrow_and_update();
    assert_eq!((decision.target, decision.desired), (10, Some(8)), "56 / 5.6, and up by the larger of 4 and 100 %");
    drop(_waits);
    decisions.changed().await.unwrap();
    assert_eq!((decisions.borrow().target, decisions.borrow().desired), (3, Some(8)), "the highest of 300 s counts");
    let text = handle.render(Format::Text);
    let all = ["target", "desired", "ready", "starting"].map(|name| lines(&text, &[name]).concat());
    assert_eq!(all.map(|line| line.rsplit_once(' ').unwrap().1.to_owned()), ["3", "8", "3", "1"]);
    stop.send(()).unwrap();
    running.await.unwrap();
}

#[test]
fn a_builder_names_every_problem() {
    let source = DemandSignal::new;
    let error = AutoscaleLayer::builder()
        .source("a", source(), Take::All)
        .source("a", source(), Take::InFlight)
        .build()
        .unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");
    assert!(error.to_string().contains("in-flight comes from a, a"));
}
