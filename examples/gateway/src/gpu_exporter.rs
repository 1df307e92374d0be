use std::collections::BTreeMap;

use forebay_balance::MetricsProbe;
use http::Uri;
use serde::{Deserialize, Serialize};

/// The exporter of the backends' GPUs: backends on a GPU that is broken or out of memory get nothing, or less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GpuExporter {
    /// Its page, with `{host}` for the host of each backend: `http://{host}:9400/metrics`.
    pub url: String,
    /// What it is: `dcgm` (the default) or `nvidia_gpu_exporter`.
    #[serde(default)]
    pub kind: GpuExporterKind,
}

/// A GPU exporter that we know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GpuExporterKind {
    /// NVIDIA's dcgm-exporter.
    #[default]
    Dcgm,
    /// nvidia_gpu_exporter.
    NvidiaGpuExporter,
}

/// Which rows of the exporter's page are about a backend: values by label.
pub(crate) type Rows = BTreeMap<String, Vec<String>>;

impl GpuExporter {
    /// What fetches its page; `None`: its URL cannot be used.
    pub(crate) fn probe(&self) -> Option<MetricsProbe> {
        let uri: Uri = self.url.replace("{host}", "host").parse().ok()?;
        let usable = matches!(uri.scheme_str(), Some("http" | "https")) && uri.path().len() > 1;
        let base = self.url.strip_suffix(uri.path()).filter(|_| usable)?; // none with a query
        let credentials = uri.authority()?.as_str().contains('@');
        (!credentials).then(|| match self.kind {
            GpuExporterKind::Dcgm => MetricsProbe::dcgm(base, uri.path()),
            GpuExporterKind::NvidiaGpuExporter => MetricsProbe::nvidia_gpu_exporter(base, uri.path()),
        })
    }

    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        if self.probe().is_none() {
            problems.push(format!(
                "balance.gpu_exporter.url is {:?}: a URL with a path, such as \"http://{{host}}:9400/metrics\"",
                self.url
            ));
        }
    }
}

/// Checks the rows of one backend; `there`: there is an exporter.
pub(crate) fn check_rows(field: &str, rows: &Rows, there: bool, problems: &mut Vec<String>) {
    if !rows.is_empty() && !there {
        problems.push(format!("{field} is set, but balance.gpu_exporter is not: set its url"));
    }
    for (label, values) in rows {
        if label.is_empty() || values.is_empty() || values.iter().any(String::is_empty) {
            problems
                .push(format!("{field}.{label} is {values:?}: a label, and at least one value, none of them empty"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_scheme_a_host_and_a_path_and_nothing_else() {
        let exporter = |url: &str| GpuExporter { url: url.into(), kind: GpuExporterKind::default() };
        for url in ["http://{host}:9400/metrics", "https://gpus/a/b", "http://[::1]:9400/metrics"] {
            assert!(exporter(url).probe().is_some(), "{url}");
        }
        for url in
            ["", "gpus", "http://{host}:9400", "http://{host}:9400/", "ftp://a/m", "http://a/m?b", "http://u@a/m"]
        {
            let mut problems = Vec::new();
            exporter(url).check(&mut problems);
            assert!(
                matches!(&problems[..], [one] if one.starts_with("balance.gpu_exporter.url is")),
                "{url} {problems:?}"
            );
        }
    }
}
