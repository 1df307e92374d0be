use std::sync::OnceLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;

/// Asks for a report in this format; vLLM sends none unasked.
const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");

const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// The load reports that come with the answers of an endpoint, where somebody listens to them.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    last: OnceLock<watch::Sender<HeaderValue>>,
}

impl Reports {
    /// From now on they are asked for, and told here.
    pub(crate) fn listen(&self) -> watch::Receiver<HeaderValue> {
        self.last.get_or_init(|| watch::Sender::new(HeaderValue::from_static(""))).subscribe()
    }

    /// Asks for one with this request, unless the client does. True: it was us.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) -> bool {
        let asks = self.last.get().is_some() && !headers.contains_key(&FORMAT);
        if asks {
            headers.insert(FORMAT, HeaderValue::from_static("TEXT"));
        }
        asks
    }

    /// Takes the question back: a request goes to another endpoint as it came.
    pub(crate) fn take_back(headers: &mut HeaderMap) {
        headers.remove(&FORMAT);
    }

    /// Hears the report of an answer; one that we asked for is not the client's.
    pub(crate) fn hear(&self, asked: bool, headers: &mut HeaderMap) {
        if let (Some(last), Some(report)) = (self.last.get(), headers.get(&REPORT)) {
            last.send_replace(report.clone());
            if asked {
                headers.remove(&REPORT);
            }
        }
    }
}
