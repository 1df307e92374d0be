//! The rules slow and close an endpoint where their signals say so, with hysteresis, and never for want of a signal.

use std::time::{Duration, Instant};

use forebay_balance::probe::{
    CloseCause, GpuFault, GpuFaultRule, GpuMemoryRule, GpuReport, KvCacheRule, LoadReport, Rule, Verdict,
};

const OPEN: Verdict = Verdict::Factor(1.0);

#[expect(clippy::disallowed_methods, reason = "only differences count")]
fn now() -> Instant {
    Instant::now()
}

fn gpu(index: u32, change: impl FnOnce(&mut GpuReport)) -> LoadReport {
    let mut gpu = GpuReport::default();
    gpu.index = Some(index);
    change(&mut gpu);
    let mut report = LoadReport::default();
    report.gpus.push(gpu);
    report
}

fn free(per_mille: u64) -> LoadReport {
    gpu(0, |gpu| (gpu.memory_free, gpu.memory_total) = (Some(per_mille * 10), Some(10_000)))
}

#[test]
fn memory() {
    let closed = Verdict::Close(CloseCause::GpuMemory);
    let tight = Verdict::Factor(0.5);
    let (mut rule, now) = (GpuMemoryRule::new(), now());
    let steps = [
        (100, OPEN),
        (20, OPEN),
        (19, tight),
        (29, tight), // until a point higher
        (30, OPEN),
        (4, tight),
        (4, tight),
        (6, tight), // not running
        (4, tight),
        (4, tight),
        (4, closed),
        (14, closed),
        (15, tight),
        (29, tight),
        (3, tight),
        (3, tight),
        (0, closed),
        (200, OPEN),
    ];
    for (step, (per_mille, expected)) in steps.into_iter().enumerate() {
        assert_eq!(rule.judge(&free(per_mille), now), expected, "step {step}: {per_mille} per mille free");
    }
}

#[test]
fn the_worst_gpu_counts_and_an_unknown_one_does_not() {
    let (mut rule, now) = (GpuMemoryRule::new(), now());
    let mut report = free(500);
    report.gpus.extend(free(1).gpus);
    report.gpus.push(GpuReport::default());
    assert_eq!(rule.judge(&report, now), Verdict::Factor(0.5));
    rule.judge(&report, now);
    assert_eq!(rule.judge(&report, now), Verdict::Close(CloseCause::GpuMemory));
    assert_eq!(rule.judge(&LoadReport::default(), now), OPEN, "nothing is known");
    assert_eq!(rule.judge(&report, now), Verdict::Factor(0.5), "the three begin anew");
}

#[test]
fn kv_cache() {
    let closed = Verdict::Close(CloseCause::KvCache);
    let (mut rule, now) = (KvCacheRule::new(), now());
    let mut judge = |kv_used, waiting| {
        let mut report = LoadReport::default();
        (report.kv_used, report.waiting) = (kv_used, waiting);
        rule.judge(&report, now)
    };
    let near = |verdict, factor: f32| matches!(verdict, Verdict::Factor(found) if (found - factor).abs() < 1e-4);
    assert_eq!(judge(Some(0.0), Some(0)), OPEN);
    assert_eq!(judge(Some(0.80), Some(9)), OPEN);
    assert!(near(judge(Some(0.85), Some(9)), 0.7));
    assert!(near(judge(Some(0.875), Some(9)), 0.55));
    assert!(near(judge(Some(0.95), Some(9)), 0.1));
    assert!(near(judge(Some(1.0), Some(0)), 0.1), "none waits for it");
    assert!(near(judge(Some(1.0), None), 0.1), "whether any waits is unknown");
    assert_eq!(judge(Some(0.96), Some(1)), closed);
    assert_eq!(judge(Some(0.92), Some(0)), closed);
    assert_eq!(judge(Some(0.90), Some(0)), closed);
    assert!(near(judge(Some(0.89), Some(5)), 0.46));
    assert_eq!(judge(Some(0.96), Some(1)), closed);
    assert_eq!(judge(None, Some(1)), OPEN);
}

fn fault(fault: GpuFault) -> Verdict {
    Verdict::Close(CloseCause::GpuFault(fault))
}

#[test]
fn only_a_change_to_a_listed_xid_is_a_fault() {
    let (mut rule, now) = (GpuFaultRule::new(), now());
    let xid = |xid| gpu(0, |gpu| gpu.xid = xid);
    assert_eq!(rule.judge(&xid(Some(79)), now), OPEN, "who knows how old it is");
    assert_eq!(rule.judge(&xid(Some(79)), now), OPEN);
    assert_eq!(rule.judge(&xid(Some(31)), now), OPEN, "a fault of the application");
    assert_eq!(rule.judge(&xid(None), now), OPEN);
    assert_eq!(rule.judge(&xid(Some(31)), now), OPEN);
    assert_eq!(rule.judge(&xid(Some(79)), now), fault(GpuFault::Xid(79)));
    assert_eq!(rule.judge(&xid(Some(0)), now), fault(GpuFault::Xid(79)), "until it is cleared");
    assert_eq!(rule.judge(&LoadReport::default(), now), fault(GpuFault::Xid(79)));
    rule.clear();
    assert_eq!(rule.judge(&xid(Some(0)), now), OPEN);
    for listed in [48, 64, 74, 79, 95, 119] {
        let mut rule = GpuFaultRule::new();
        rule.judge(&xid(Some(0)), now);
        assert_eq!(rule.judge(&xid(Some(listed)), now), fault(GpuFault::Xid(listed)));
        rule.clear();
        assert_eq!(rule.judge(&xid(Some(listed)), now), OPEN, "it has been seen to");
    }
    let mut rule = GpuFaultRule::new().xids([13]);
    rule.judge(&xid(Some(0)), now);
    assert_eq!(rule.judge(&xid(Some(79)), now), OPEN);
    assert_eq!(rule.judge(&xid(Some(13)), now), fault(GpuFault::Xid(13)));
}

#[test]
fn rows_and_ecc() {
    let (mut rule, now) = (GpuFaultRule::new(), now());
    let ecc = |errors| gpu(0, |gpu| gpu.uncorrectable_ecc = errors);
    for errors in [Some(5), Some(5), None, Some(5), Some(0), Some(0)] {
        assert_eq!(rule.judge(&ecc(errors), now), OPEN, "{errors:?}: old ones, or a counter that began anew");
    }
    assert_eq!(rule.judge(&ecc(Some(1)), now), fault(GpuFault::UncorrectableEcc));

    let mut rule = GpuFaultRule::new();
    let rows = |failed| gpu(0, |gpu| gpu.row_remap_failure = failed);
    assert_eq!(rule.judge(&rows(Some(false)), now), OPEN);
    assert_eq!(rule.judge(&rows(Some(true)), now), fault(GpuFault::RowRemapFailure));
    rule.clear();
    assert_eq!(rule.judge(&rows(Some(true)), now), OPEN, "it is known");
    assert_eq!(rule.judge(&rows(None), now), OPEN);
    assert_eq!(rule.judge(&rows(Some(true)), now), OPEN);
    assert_eq!(GpuFaultRule::new().judge(&rows(Some(true)), now), fault(GpuFault::RowRemapFailure));
}

#[test]
fn gpus_are_told_apart_and_forgotten_in_order() {
    let (mut rule, start) = (GpuFaultRule::new(), now());
    let xid = |index, xid| gpu(index, |gpu| gpu.xid = Some(xid));
    assert_eq!(rule.judge(&xid(0, 0), start), OPEN);
    assert_eq!(rule.judge(&xid(1, 79), start), OPEN, "the first word of another GPU");
    for index in 1..257 {
        rule.judge(&xid(index, 0), start + Duration::from_secs(index.into()));
    }
    assert_eq!(rule.judge(&xid(0, 79), start + Duration::from_secs(300)), OPEN, "it was forgotten");
    assert_eq!(rule.judge(&xid(256, 79), start + Duration::from_secs(300)), fault(GpuFault::Xid(79)));
}

#[test]
fn verdicts_together() {
    let closed = Verdict::Close(CloseCause::Other("mine"));
    assert_eq!(Verdict::Factor(0.5).and(Verdict::Factor(0.5)), Verdict::Factor(0.25));
    assert_eq!(OPEN.and(closed), closed);
    assert_eq!(closed.and(OPEN), closed);
}
