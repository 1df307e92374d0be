//! Metrics pages as servers print them give the values that a person reads, bad ones give errors or nothing, and how a
//! page is cut into chunks makes no difference.
//!
//! Many cases: `PROPTEST_CASES=1000000 cargo test --release -p forebay-balance --test input`

mod mutate;

use forebay_balance::probe::{
    GpuReport, LoadReport, MAX_BYTES, MAX_LINE_BYTES, ParseError, Parser, Preset, Sample, Sink,
};
use mutate::{damaged, damages, pieces};
use proptest::prelude::*;
use proptest::sample::Index;

macro_rules! page {
    ($name:literal) => {
        include_bytes!(concat!("data/metrics/", $name)).as_slice()
    };
}

const H100_IDLE: &[u8] = page!("nvidia_gpu_exporter_h100-80gb-hbm3__590.48.01__idle.prom");
const H100_LOAD: &[u8] = page!("nvidia_gpu_exporter_h100-80gb-hbm3__590.48.01__load.prom");
const L40S_LOAD: &[u8] = page!("nvidia_gpu_exporter_l40s__595.80__load.prom");
const DCGM: &[u8] = page!("dcgm_mig_and_blanks.prom");
const PAGES: [&[u8]; 12] = [
    H100_IDLE,
    H100_LOAD,
    L40S_LOAD,
    DCGM,
    page!("dcgm_readme.prom"),
    page!("llamacpp_llmaz_fixture.prom"),
    page!("llamacpp_totals_only.prom"),
    page!("sglang_nod-ai.prom"),
    page!("tgi_braces.prom"),
    page!("triton_base_readme.prom"),
    page!("triton_summary_doc.prom"),
    page!("vllm_datadog_excerpt.prom"),
];

const MIB: u64 = 1 << 20;

/// Everything that a page says, as text, since NaN equals nothing.
#[derive(Debug, Default)]
struct All(Vec<String>);

impl Sink for All {
    fn wants(&self, _: &str) -> bool {
        true
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        self.0.push(format!("{} {:?} {:?}", sample.name, sample.labels, sample.value));
    }
}

fn samples(page: &[u8]) -> Result<Vec<String>, ParseError> {
    cut(page, page.len().max(1))
}

fn cut(page: &[u8], size: usize) -> Result<Vec<String>, ParseError> {
    let mut parser = Parser::new(All::default());
    page.chunks(size).try_for_each(|chunk| parser.push(chunk))?;
    Ok(parser.finish()?.0)
}

/// What a page says, and that a preset for everything reads the same.
fn read(preset: &Preset, page: &[u8]) -> LoadReport {
    let report = preset.read(page).expect("metrics");
    assert_eq!(Preset::auto().read(page), Ok(report.clone()));
    report
}

fn vllm(text: &str) -> LoadReport {
    Preset::vllm().read(text.as_bytes()).expect("metrics")
}

fn load(running: Option<u32>, waiting: Option<u32>, kv_used: Option<f32>) -> LoadReport {
    let mut report = LoadReport::default();
    (report.running, report.waiting, report.kv_used) = (running, waiting, kv_used);
    report
}

#[test]
fn model_servers() {
    let idle = load(Some(0), Some(0), Some(0.0));
    assert_eq!(read(&Preset::vllm(), page!("vllm_datadog_excerpt.prom")), idle, "with the old and the new name");
    assert_eq!(read(&Preset::sglang(), page!("sglang_nod-ai.prom")), idle);
    assert_eq!(read(&Preset::tgi(), page!("tgi_braces.prom")), load(Some(2), Some(4), None));
    assert_eq!(read(&Preset::llama_cpp(), page!("llamacpp_llmaz_fixture.prom")), load(Some(20), Some(0), None));
    assert_eq!(read(&Preset::llama_cpp(), page!("llamacpp_totals_only.prom")), LoadReport::default(), "not idle");
    assert_eq!(read(&Preset::triton(), page!("triton_base_readme.prom")), load(None, Some(0), None));
    assert_eq!(read(&Preset::triton(), page!("triton_summary_doc.prom")), LoadReport::default());
    assert_eq!(load(Some(2), Some(4), None).requests(), Some(6));
    assert_eq!(load(Some(2), None, None).requests(), None);
}

#[test]
fn nvidia_gpu_exporter() {
    let gpu = |page| {
        let report = read(&Preset::nvidia_gpu_exporter(), page);
        assert_eq!((report.running, report.waiting, report.kv_used), (None, None, None));
        assert_eq!(report.gpus.len(), 1);
        assert_eq!(report.processes, report.gpus[0].processes);
        report.gpus.into_iter().next().expect("one")
    };
    let mut expected = GpuReport::default();
    expected.uuid = Some("00000000-0000-0000-0000-000000000000".into());
    expected.index = Some(0);
    expected.name = Some("NVIDIA H100 80GB HBM3".into());
    expected.memory_used = Some(20_780_679_168);
    expected.memory_free = Some(64_238_911_488);
    expected.memory_total = Some(85_520_809_984);
    expected.row_remap_failure = Some(false);
    expected.uncorrectable_ecc = Some(0);
    expected.processes = Some(3);
    assert_eq!(gpu(H100_LOAD), expected);
    assert_eq!(expected.free_ratio(), Some(64_238_911_488_f32 / 85_520_809_984_f32));

    expected.memory_used = Some(0);
    expected.memory_free = Some(85_019_590_656);
    expected.processes = Some(0);
    assert_eq!(gpu(H100_IDLE), expected, "no process is known to run");

    expected.name = Some("NVIDIA L40S".into());
    expected.memory_used = Some(1_294_991_360);
    expected.memory_free = Some(46_373_273_600);
    expected.memory_total = Some(48_305_799_168);
    expected.processes = Some(2);
    assert_eq!(gpu(L40S_LOAD), expected);
}

#[test]
fn processes_are_unknown_where_they_could_not_be_counted() {
    let read = |page: &str| Preset::nvidia_gpu_exporter().read(page.as_bytes()).expect("metrics").processes;
    assert_eq!(read("nvidia_smi_compute_app_info{pid=\"1\",uuid=\"a\"} 1\n"), Some(1), "the rows alone");
    assert_eq!(read("nvidia_smi_compute_app_info{pid=\"1\",uuid=\"a\"} 0\n"), None);
    assert_eq!(read("nvidia_smi_memory_used_bytes{uuid=\"a\"} 0\n"), None);
    assert_eq!(
        read("nvidia_smi_compute_apps{uuid=\"a\"} 0\nnvidia_smi_compute_apps_last_collect_success 0\n"),
        None,
        "the exporter says that its count is old"
    );
    assert_eq!(read("nvidia_smi_compute_apps{uuid=\"a\"} 1\nnvidia_smi_compute_apps{uuid=\"b\"} 2\n"), Some(3));
}

#[test]
fn dcgm() {
    let readme = page!("dcgm_readme.prom");
    assert_eq!(read(&Preset::dcgm(), readme), LoadReport::default(), "clocks and temperatures say nothing to us");
    let label = r#"[("gpu", "0"), ("UUID", "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52")]"#;
    let expected = [
        format!("DCGM_FI_DEV_SM_CLOCK {label} 139.0"),
        format!("DCGM_FI_DEV_MEM_CLOCK {label} 405.0"),
        format!("DCGM_FI_DEV_MEMORY_TEMP {label} 9.223372036854776e18"),
    ];
    assert_eq!(samples(readme).expect("metrics"), expected, "around the lines of dots");

    let gpus = read(&Preset::dcgm(), DCGM).gpus;
    assert_eq!(gpus.len(), 4, "two GPUs and two MIG instances of a third");
    assert_eq!(gpus[0].uuid.as_deref(), Some("GPU-11111111-aaaa-bbbb-cccc-000000000001"));
    assert_eq!((gpus[0].index, gpus[0].name.as_deref()), (Some(0), Some("Tesla V100-SXM2-32GB")));
    assert_eq!((gpus[0].memory_free, gpus[0].memory_used), (Some(30_000 * MIB), Some(2510 * MIB)));
    assert_eq!((gpus[0].xid, gpus[0].row_remap_failure, gpus[0].uncorrectable_ecc), (Some(79), None, None));
    assert_eq!((gpus[0].memory_total, gpus[0].processes), (None, None));

    assert_eq!((gpus[1].memory_free, gpus[1].memory_used, gpus[1].free_ratio()), (None, None, None), "blanks");
    assert_eq!((gpus[1].xid, gpus[1].row_remap_failure, gpus[1].uncorrectable_ecc), (Some(0), Some(true), Some(5)));

    assert_eq!((gpus[2].mig.as_deref(), gpus[2].mig_profile.as_deref()), (Some("1"), Some("3g.20gb")));
    assert_eq!((gpus[2].memory_free, gpus[2].memory_used), (Some(19_000 * MIB), Some(968 * MIB)));
    assert_eq!((gpus[3].mig.as_deref(), gpus[3].memory_free), (Some("2"), Some(100 * MIB)));
    assert_eq!(gpus[3].free_ratio(), Some(100.0 / 19_968.0));
    assert_eq!(read(&Preset::dcgm(), DCGM).least_free(), gpus[3].free_ratio());

    // Before it was dcgm-exporter.
    let old = Preset::dcgm().read(b"dcgm_fb_used{gpu=\"1\",device=\"nvidia1\"} 4401.0\ndcgm_fb_free{gpu=\"1\"} 11\n");
    let gpu = &old.expect("metrics").gpus[0];
    assert_eq!((gpu.index, gpu.memory_used, gpu.memory_free), (Some(1), Some(4401 * MIB), Some(11 * MIB)));
}

#[test]
fn the_llm_backend_of_triton() {
    let page = b"nv_inference_pending_request_count{model=\"tensorrt_llm\",version=\"1\"} 2
nv_trt_llm_request_metrics{model=\"tensorrt_llm\",request_type=\"waiting\",version=\"1\"} 3
nv_trt_llm_request_metrics{model=\"tensorrt_llm\",request_type=\"context\",version=\"1\"} 1
nv_trt_llm_request_metrics{model=\"tensorrt_llm\",request_type=\"scheduled\",version=\"1\"} 4
nv_trt_llm_request_metrics{model=\"tensorrt_llm\",request_type=\"max\",version=\"1\"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"used\",model=\"tensorrt_llm\",version=\"1\"} 88
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\",model=\"tensorrt_llm\",version=\"1\"} 0.25
nv_gpu_memory_total_bytes{gpu_uuid=\"GPU-a\"} 1000
nv_gpu_memory_used_bytes{gpu_uuid=\"GPU-a\"} 750
";
    let report = read(&Preset::triton(), page);
    assert_eq!((report.running, report.waiting, report.kv_used), (Some(4), Some(5), Some(0.25)));
    assert_eq!(report.least_free(), Some(0.25));
    let page = b"trtllm_num_requests_running 3.0\ntrtllm_num_requests_waiting 1.0\ntrtllm_kv_cache_utilization 0.5\n";
    assert_eq!(read(&Preset::tensorrt_llm(), page), load(Some(3), Some(1), Some(0.5)));
}

#[test]
fn engines_add_up_and_ratios_take_the_maximum() {
    let page = r#"vllm:num_requests_running{engine="0",model_name="m"} 3
vllm:num_requests_running{engine="1",model_name="m"} 4
vllm:num_requests_waiting{engine="0",model_name="m"} 0
vllm:num_requests_waiting{engine="1",model_name="m"} 1
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
"#;
    assert_eq!(vllm(page), load(Some(7), Some(1), Some(0.75)));
    assert_eq!(vllm(&page.replace("} 4", "} NaN")), load(None, Some(1), Some(0.75)), "a part of the sum is unknown");
    assert_eq!(vllm(&page.replace("0.75", "NaN")), load(Some(7), Some(1), Some(0.25)));
}

#[test]
fn ranks_and_priorities_of_sglang_count_once() {
    let read = |page: &str| Preset::sglang().read(page.as_bytes()).expect("metrics");
    let ranks = r#"sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 4.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="1"} 4.0
sglang:num_queue_reqs{model_name="m",priority=""} 3.0
sglang:num_queue_reqs{model_name="m",priority="0"} 1.0
sglang:num_queue_reqs{model_name="m",priority="5"} 2.0
"#;
    assert_eq!(read(ranks), load(Some(4), Some(3), None));
    let data_parallel = r#"sglang:num_running_reqs{dp_rank="0",tp_rank="0"} 1
sglang:num_running_reqs{dp_rank="1",tp_rank="1"} 2
sglang:num_running_reqs{} 3
"#;
    assert_eq!(read(data_parallel).running, Some(3));
}

#[test]
fn what_cannot_be_true_is_unknown() {
    let running = |value: &str| vllm(&format!("# EOF\nvllm:num_requests_running {value}\n")).running;
    for bad in ["NaN", "-1", "+Inf", "-Inf", "1000001", "1e300", "9223372036854775794", "x", "", "0x10"] {
        assert_eq!(running(bad), None, "{bad:?}");
    }
    for (good, count) in [("0", 0), ("-0.0", 0), ("3.0", 3), ("1e+06", 1_000_000), ("1.2E1", 12), ("0.5", 1)] {
        assert_eq!(running(good), Some(count), "{good:?}");
    }
    let kv_used = |value: &str| vllm(&format!("vllm:kv_cache_usage_perc {value}\n")).kv_used;
    for bad in ["NaN", "-1", "+Inf", "1.01", "-0.01", "45"] {
        assert_eq!(kv_used(bad), None, "{bad:?}");
    }
    for (good, ratio) in [("1.0000001", 1.0), ("-1e-9", 0.0), ("0.5", 0.5), ("9.5e-1", 0.95)] {
        assert_eq!(kv_used(good), Some(ratio), "{good:?}");
    }
    let gpu = |name: &str, value: &str| {
        let report = Preset::auto().read(format!("{name}{{gpu=\"0\"}} {value}\n").as_bytes()).expect("metrics");
        report.gpus.into_iter().next().expect("a device, whatever is known about it")
    };
    for bad in ["NaN", "-1", "+Inf", "16777217", "2147483632", "9223372036854775794", "140737488355328"] {
        assert_eq!(gpu("DCGM_FI_DEV_FB_FREE", bad).memory_free, None, "{bad:?}");
        assert_eq!(gpu("DCGM_FI_DEV_FB_USED", bad).memory_used, None, "{bad:?}");
        assert_eq!(gpu("DCGM_FI_DEV_XID_ERRORS", bad).xid, None, "{bad:?}");
        assert_eq!(gpu("DCGM_FI_DEV_ROW_REMAP_FAILURE", bad).row_remap_failure, None, "{bad:?}");
    }
    assert_eq!(gpu("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "2147483632").uncorrectable_ecc, None);
    assert_eq!(gpu("DCGM_FI_DEV_FB_FREE", "16777216").memory_free, Some(1 << 44));
    assert_eq!(gpu("DCGM_FI_DEV_XID_ERRORS", "1.5").xid, None);
}

#[test]
fn the_same_series_twice_is_one() {
    let page = "vllm:num_requests_running{model_name=\"m\"} 3\nvllm:num_requests_running{model_name=\"m\"} 5\n";
    assert_eq!(vllm(page).running, Some(5));
    assert_eq!(vllm(&page.replace('5', "-1")).running, None);
    assert_eq!(samples(page.as_bytes()).expect("metrics").len(), 2, "the parser leaves it to the reader");
    let page = b"DCGM_FI_DEV_FB_FREE{gpu=\"0\",pod=\"a\"} 7\nDCGM_FI_DEV_FB_FREE{gpu=\"0\",pod=\"b\"} 6\n";
    let gpus = Preset::dcgm().read(page).expect("metrics").gpus;
    assert_eq!((gpus.len(), gpus[0].memory_free), (1, Some(6 * MIB)), "a GPU shared by two pods");
}

#[test]
fn selectors_choose_among_what_a_shared_exporter_says() {
    let gpus = |preset: Preset| -> Vec<_> {
        let gpus = preset.read(DCGM).expect("metrics").gpus;
        gpus.iter().map(|gpu| (gpu.index.expect("known"), gpu.mig.clone().unwrap_or_default())).collect()
    };
    let device = |index, mig: &str| (index, mig.to_owned());
    assert_eq!(gpus(Preset::dcgm().select("gpu", "1")), [device(1, "")]);
    assert_eq!(gpus(Preset::dcgm().select("gpu", "1").select("gpu", "0")), [device(0, ""), device(1, "")]);
    assert_eq!(gpus(Preset::dcgm().select("gpu", "2")), [device(2, "1"), device(2, "2")]);
    assert_eq!(gpus(Preset::dcgm().select("gpu", "2").select("GPU_I_ID", "2")), [device(2, "2")]);
    assert_eq!(gpus(Preset::dcgm().select("pod", "llm-1")), [device(2, "1")]);
    assert_eq!(gpus(Preset::dcgm().select("namespace", "ml")), [device(0, ""), device(2, "1"), device(2, "2")]);
    assert_eq!(gpus(Preset::dcgm().select("pod", "else")), []);
    for uuid in ["GPU-11111111-aaaa-bbbb-cccc-000000000002", "11111111-aaaa-bbbb-cccc-000000000002"] {
        assert_eq!(gpus(Preset::dcgm().select("UUID", uuid)), [device(1, "")]);
    }
    assert_eq!(gpus(Preset::dcgm().select("model", "any")).len(), 4, "which is about requests");

    let exported = b"DCGM_FI_DEV_FB_FREE{gpu=\"0\",pod=\"exporter-x\",exported_pod=\"llm-0\"} 7\n";
    assert_eq!(Preset::dcgm().select("pod", "llm-0").read(exported).expect("metrics").gpus.len(), 1);
    assert_eq!(Preset::dcgm().select("pod", "exporter-x").read(exported).expect("metrics").gpus.len(), 0);

    // By index, though only one row says which UUID has which.
    let report = Preset::nvidia_gpu_exporter().select("gpu", "0").read(H100_LOAD).expect("metrics");
    assert_eq!((report.gpus.len(), report.processes), (1, Some(3)));
    let report = Preset::nvidia_gpu_exporter().select("gpu", "1").read(H100_LOAD).expect("metrics");
    assert_eq!(report, LoadReport::default());

    let page = b"vllm:num_requests_running{model_name=\"a\"} 1\nvllm:num_requests_running{model_name=\"b\"} 2
vllm:num_requests_waiting 7\nnv_inference_pending_request_count{model=\"a\"} 4\n";
    let report = Preset::auto().select("model", "a").read(page).expect("metrics");
    assert_eq!((report.running, report.waiting), (Some(1), Some(4)), "a row that names no model may be of another");
}

#[test]
fn the_format_in_all_its_forms() {
    let read = |page: &str| samples(page.as_bytes()).expect("metrics");
    assert_eq!(read("a 1"), ["a [] 1.0"], "no end of the last line");
    assert_eq!(read("a 1\r\n# EOF\r\nb:c 2\r\n"), ["a [] 1.0", "b:c [] 2.0"]);
    assert_eq!(read("a 1 1712345678000\nb 2 1712345678.5\nc 3 -5\n"), ["a [] 1.0", "b [] 2.0", "c [] 3.0"]);
    assert_eq!(
        read("a_bucket{le=\"1\"} 5 # {trace_id=\"x y\"} 0.67 1712345678\nb 1 2 # {} 3\n"),
        [r#"a_bucket [("le", "1")] 5.0"#, "b [] 1.0"]
    );
    assert_eq!(read("a{} 1\na{ } 1\na {b=\"c\",} 1\n"), ["a [] 1.0", "a [] 1.0", r#"a [("b", "c")] 1.0"#]);
    assert_eq!(read("a{ b = \"c\" , d = \"e\" } 1\n"), [r#"a [("b", "c"), ("d", "e")] 1.0"#]);
    assert_eq!(read("  a\t 1  \n"), ["a [] 1.0"]);
    assert_eq!(read("a NaN\na +Inf\na -Inf\na 1e-3\na .5\n").len(), 5);
    assert_eq!(
        read("a{p=\"C:\\\\x\",q=\"say \\\"}\\\" \\n\",r=\"\\d\",s=\"{'m': 'p'}\",t=\"é,\"} 1\n"),
        [r#"a [("p", "C:\\x"), ("q", "say \"}\" \n"), ("r", "\\d"), ("s", "{'m': 'p'}"), ("t", "é,")] 1.0"#]
    );
    let junk = "...\n\n}\n{\n1a 1\na\na{\na{b\na{b=\na{b=\"c\na{b=\"c\\\na{b=\"c\"\na{b=\"c\"}\na{=\"c\"} 1\na{b=c} 1\na b\na 1 b\n\
                a 1 2 3\na1\n{\"a.b\",c=\"d\"} 1\na{b=\"c\"x 1\n";
    assert_eq!(read(&format!("{junk}z 1\n")), ["z [] 1.0"]);
    assert_eq!(samples(b"\xff\xfe 1\na{b=\"\xff\"} 1\nz 1\n").expect("metrics"), ["z [] 1.0"], "not UTF-8");
}

#[test]
fn a_page_that_is_no_metrics_is_an_error_that_says_so() {
    assert_eq!(samples(b""), Ok(vec![]));
    assert_eq!(samples(b" \r\n\n"), Ok(vec![]));
    assert_eq!(samples(b"# EOF\n"), Ok(vec![]));
    assert_eq!(samples(b"\n <!DOCTYPE html>\n<html><body>a 1\n"), Err(ParseError::Html));
    assert_eq!(samples(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), Err(ParseError::Compressed));
    assert_eq!(samples(b"\x0a\x03a_b\x12\x00\x18\x01"), Err(ParseError::Binary));
    assert_eq!(samples(b"a 1\nb\x00 2\n"), Err(ParseError::Binary));
    assert_eq!(samples(b"{\"error\": \"not found\"}\n"), Err(ParseError::NotMetrics));
    assert_eq!(samples(b"404 page not found\n"), Err(ParseError::NotMetrics));
    assert_eq!(Preset::vllm().read(b"Not Found"), Err(ParseError::NotMetrics), "though no name is wanted");
    assert_eq!(Preset::vllm().read(b"up 1"), Ok(LoadReport::default()));
    assert_eq!(ParseError::TooLarge.to_string(), "the page is longer than 4194304 bytes");
}

#[test]
fn an_error_stays() {
    let mut parser = Parser::new(All::default());
    assert_eq!(parser.push(b"<html>"), Err(ParseError::Html));
    assert_eq!(parser.push(b"\na 1\n"), Err(ParseError::Html));
    assert_eq!(parser.finish().map(|all| all.0), Err(ParseError::Html));
}

#[test]
fn length_is_bounded() {
    let line = b"vllm:num_requests_running 1\n";
    let mut page = line.repeat(MAX_BYTES / line.len());
    page.resize(MAX_BYTES, b'\n');
    assert_eq!(Preset::vllm().read(&page).expect("as long as may be").running, Some(1));
    page.push(b'\n');
    assert_eq!(Preset::vllm().read(&page), Err(ParseError::TooLarge));
    assert_eq!(Preset::vllm().read(&vec![b'x'; 16 << 20]), Err(ParseError::TooLarge), "all in one line");
    let mut reader = Preset::vllm().reader();
    let pushed = (0..256).take_while(|_| reader.push(&[b'x'; 64 << 10]).is_ok()).count();
    assert_eq!(pushed, 64, "16 MiB are not even asked for");

    for (length, count) in [(MAX_LINE_BYTES, 2), (MAX_LINE_BYTES + 1, 1)] {
        let mut page = b"a{b=\"".to_vec();
        page.resize(length - 4, b'x');
        page.extend(b"\"} 1\nz 1");
        for size in [1, 1000, MAX_LINE_BYTES, page.len()] {
            assert_eq!(cut(&page, size).expect("metrics").len(), count, "{length} in chunks of {size}");
        }
    }
}

#[test]
fn real_pages_cut_anywhere_say_the_same() {
    for page in PAGES {
        let whole = samples(page).expect("metrics");
        for size in [1, 2, 7, 64, 1000] {
            assert_eq!(cut(page, size).as_ref(), Ok(&whole));
        }
    }
}

/// Bytes that have a chance to mean something.
fn almost_metrics() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("vllm:num_requests_running".to_owned()),
        Just("DCGM_FI_DEV_FB_FREE".to_owned()),
        Just("gpu=\"0\"".to_owned()),
        Just("\r\n".to_owned()),
        Just("\\\"".to_owned()),
        "[ {}=\",\\\\#\n:a_0.é-]{1,4}",
        "[0-9.eE+-]{1,6}",
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes())
}

/// What has meaning in a page.
const WORDS: &[&str] = &[
    "\n",
    "\r\n",
    "#",
    "# EOF\n",
    "{",
    "}",
    "\"",
    "\\",
    ",",
    "=",
    " ",
    "NaN",
    "+Inf",
    "-1",
    "1e308",
    "18446744073709551616",
    "\0",
    "<",
    "\u{1f}\u{8b}",
    "é",
    "vllm:num_requests_running",
    "gpu=\"",
    "GPU_I_ID=\"",
    "DCGM_FI_DEV_FB_FREE{",
    "pid=\"1\"",
];

fn agree(page: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let (mut parser, mut reader) = (Parser::new(All::default()), Preset::auto().reader());
    for chunk in pieces(page, cuts) {
        prop_assert_eq!(reader.push(chunk), parser.push(chunk));
    }
    prop_assert_eq!(parser.finish().map(|all| all.0), samples(page));
    prop_assert_eq!(reader.finish(), Preset::auto().read(page));
    Ok(())
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..10)
}

proptest! {
    #[test]
    fn chunks_make_no_difference(page in almost_metrics(), cuts in cuts()) {
        agree(&page, &cuts)?;
    }

    #[test]
    fn random_bytes_never_panic(page in prop::collection::vec(any::<u8>(), 0..500), cuts in cuts()) {
        agree(&page, &cuts)?;
    }

    #[test]
    fn a_damaged_page_never_panics(page in prop::sample::select(&PAGES[..]), damages in damages(WORDS), cuts in cuts()) {
        agree(&damaged(page, &damages), &cuts)?;
    }

    /// A row says nothing beyond its line, whatever damage was done there.
    #[test]
    fn damage_reaches_no_further_than_its_line(
        page in prop::sample::select(&PAGES[..]), row in any::<Index>(), damages in damages(&["{", "\"", "\\", "#", "}"]),
    ) {
        let lines: Vec<&[u8]> = page.split(|byte| *byte == b'\n').collect();
        let row = 1 + row.index(lines.len() - 1); // where a page begins says what it is
        let mut bad = damaged(lines[row], &damages);
        bad.retain(|byte| !matches!(byte, b'\n' | b'\0'));
        let join = |rows: &[&[u8]]| rows.join(&b'\n');
        let (before, after) = (samples(&join(&lines[..row])), samples(&[b"# \n", &*join(&lines[row + 1..])].concat()));
        let all = samples(&join(&[&lines[..row], &[&bad], &lines[row + 1..]].concat()));
        let alone = samples(&[b"# \n", &*bad].concat());
        if let (Ok(before), Ok(after), Ok(all), Ok(alone)) = (before, after, all, alone) {
            prop_assert_eq!([before, alone, after].concat(), all);
        }
    }
}
