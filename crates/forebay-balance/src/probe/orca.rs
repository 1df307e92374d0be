//! Load reports that come with an answer: [ORCA], of which each answer's head may carry one.
//!
//! [ORCA]: https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md

use serde::Deserialize;

use super::{LoadReport, json::Plain};

/// The longest report that is read, in bytes.
const MAX_REPORT_BYTES: usize = 64 << 10;

/// What a report says that we use, each under the names by which servers know it: those of vLLM; Triton has
/// `kv_cache_utilization`.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Named {
    num_requests_running: Plain,
    num_requests_waiting: Plain,
    #[serde(alias = "kv_cache_utilization")]
    kv_cache_usage_perc: Plain,
}

/// The report as JSON: protobuf's mapping has both spellings.
#[derive(Deserialize)]
struct Report {
    #[serde(alias = "namedMetrics")]
    named_metrics: Named,
}

/// The report in a field `endpoint-load-metrics`: `TEXT a=1, named_metrics.b=2`, also without that prefix, or `JSON {..}`.
/// `None`: it is neither, or nothing in it is known.
pub(crate) fn read(field: &[u8]) -> Option<LoadReport> {
    let field = str::from_utf8(field).ok().filter(|field| field.len() <= MAX_REPORT_BYTES)?.trim_ascii();
    let named = match field.split_once(' ') {
        Some(("JSON", json)) => serde_json::from_str::<Report>(json).ok()?.named_metrics,
        Some(("TEXT", text)) => read_text(text)?,
        _ => read_text(field)?,
    };
    let report = LoadReport {
        running: named.num_requests_running.count(),
        waiting: named.num_requests_waiting.count(),
        kv_used: named.kv_cache_usage_perc.ratio(),
        ..LoadReport::default()
    };
    (report != LoadReport::default()).then_some(report)
}

/// Of a report with a name twice nothing is believed, as in JSON.
fn read_text(text: &str) -> Option<Named> {
    let mut named = Named::default();
    for (name, value) in text.split(',').filter_map(|metric| metric.split_once('=')) {
        let metric = match name.trim_ascii().strip_prefix("named_metrics.") {
            Some("num_requests_running") => &mut named.num_requests_running,
            Some("num_requests_waiting") => &mut named.num_requests_waiting,
            Some("kv_cache_usage_perc" | "kv_cache_utilization") => &mut named.kv_cache_usage_perc,
            _ => continue,
        };
        if *metric != Plain::Other {
            return None;
        }
        *metric = Plain::Number(value.trim_ascii().parse().unwrap_or(f64::NAN));
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn says(field: &str) -> Option<(Option<u32>, Option<u32>, Option<f32>)> {
        read(field.as_bytes()).map(|report| (report.running, report.waiting, report.kv_used))
    }

    #[test]
    fn r23_text_with_and_without_its_prefix_and_json_say_the_same() {
        let all = Some((Some(7), Some(3), Some(0.4)));
        let text = "named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=3.0, cpu_utilization=0.3, \
                    named_metrics.num_requests_running=7";
        assert_eq!(says(&format!("TEXT {text}")), all);
        assert_eq!(says(text), all);
        let json = r#"{"cpu_utilization": 0.3, "named_metrics": {"kv_cache_usage_perc": 0.4, "num_requests_waiting": 3.0,
            "num_requests_running": 7, "other": [1, {}]}}"#;
        assert_eq!(says(&format!("JSON {json}")), all);
        assert_eq!(says(&format!("JSON {}", json.replace("named_metrics", "namedMetrics"))), all);
        assert_eq!(says("TEXT named_metrics.kv_cache_utilization=0.5"), Some((None, None, Some(0.5))));
    }

    #[test]
    fn r23_what_is_missing_bad_or_cannot_be_true_is_unknown() {
        for field in [
            "",
            "TEXT",
            "JSON",
            "JSON {",
            "JSON null",
            r#"JSON {"named_metrics": null}"#,
            r#"JSON {"named_metrics": {"num_requests_waiting": 1, "num_requests_waiting": 0}}"#,
            r#"JSON {"named_metrics": {"num_requests_waiting": NaN}}"#,
            r#"JSON {"named_metrics": {"num_requests_waiting": "3"}}"#,
            "BIN CgQIABAA",
            "TEXT cpu=0.3,mem_utilization=0.5",
            "TEXT num_requests_waiting=0",
            "TEXT named_metrics.num_requests_waiting",
            "TEXT named_metrics.num_requests_waiting=1, named_metrics.num_requests_waiting=0",
            "TEXT named_metrics.num_requests_waiting=x, named_metrics.num_requests_waiting=0",
        ] {
            assert_eq!(says(field), None, "{field}");
        }
        for value in ["NaN", "inf", "-inf", "-1", "1e7", "", "x", "0x1"] {
            let field =
                format!("TEXT named_metrics.num_requests_waiting={value}, named_metrics.kv_cache_usage_perc=0.1");
            assert_eq!(says(&field), Some((None, None, Some(0.1))), "{value}");
            assert_eq!(says(&format!("TEXT named_metrics.kv_cache_usage_perc={value}")), None, "{value}");
        }
        assert_eq!(read(b"TEXT named_metrics.num_requests_waiting=\xff"), None);
    }

    #[test]
    fn length_is_bounded() {
        let mut field = "TEXT named_metrics.num_requests_waiting=1,".to_owned();
        field.push_str(&"x".repeat(MAX_REPORT_BYTES - field.len()));
        assert_eq!(says(&field), Some((None, Some(1), None)));
        field.push('x');
        assert_eq!(says(&field), None);
    }

    proptest! {
        #[test]
        fn anything_may_be_in_it(
            prefix in prop::sample::select(&["", "TEXT ", "JSON ", "JSON {\"named_metrics\":{"][..]), rest in ".{0,100}",
        ) {
            let _ = read(format!("{prefix}{rest}").as_bytes());
        }
    }
}
