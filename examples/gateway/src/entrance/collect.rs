//! Reads the beginning of a request body before its request goes on.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forebay_core::{Reason, ReqBody};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::bounded::Bounded;
use super::budget::{Budget, Caller, Charge};
use super::fault::Fault;
use super::paced::Paced;
use crate::config::Uploads;

/// Reads request bodies, within a budget of bytes and a time.
#[derive(Debug)]
pub(crate) struct Collector {
    budget: Arc<Budget>,
    max: usize,
    pub(super) timeout: Duration,
    bytes_per_second: u64,
}

/// A request body, read in whole or in part.
pub(super) type Collected = ReqBody<Rest>;

impl Collector {
    pub(crate) fn new(settings: &Uploads, budget: Arc<Budget>) -> Self {
        Self {
            budget,
            max: usize::try_from(settings.collect_max_bytes).unwrap_or(usize::MAX),
            timeout: Duration::from_secs(settings.body_timeout_seconds),
            bytes_per_second: settings.min_bytes_per_second,
        }
    }

    /// Reads the body to its end, or as much of it as is read at once. `later` is told why the rest of it fails, if it
    /// does.
    pub(super) async fn collect(
        &self,
        mut body: Bounded,
        caller: Caller,
        until: Instant,
        later: &Arc<OnceLock<Reason>>,
    ) -> Result<Collected, Fault> {
        if body.is_end_stream() {
            return Ok(ReqBody::default());
        }
        let mut read = Read::new(Charge::new(Arc::clone(&self.budget), caller));
        let end = match timeout_at(until, read.fill(&mut body, self.max)).await {
            Ok(end) => end?,
            Err(_) => return Err(Fault::Slow),
        };
        let Read { bytes, charge } = read;
        let charge = Arc::new(charge);
        let bytes = Bytes::from_owner(Kept { bytes, _charge: Arc::clone(&charge) });
        let kind = match end {
            End::Whole => return Ok(ReqBody::buffered(bytes)),
            End::Trailers(trailers) => Kind::Trailers(Some(trailers)),
            End::More => Kind::Stream {
                body: Paced::new(body, self.timeout, self.bytes_per_second),
                _charge: charge,
                failed: Arc::clone(later),
            },
        };
        Ok(ReqBody::prefixed(bytes, Rest(kind)))
    }
}

/// Where the reading stopped.
enum End {
    Whole,
    Trailers(HeaderMap),
    More,
}

/// What has been read so far. Its charge is for the capacity, which is what it takes of the memory.
struct Read {
    bytes: Vec<u8>,
    charge: Charge,
}

impl Read {
    const fn new(charge: Charge) -> Self {
        Self { bytes: Vec::new(), charge }
    }

    async fn fill(&mut self, body: &mut Bounded, max: usize) -> Result<End, Fault> {
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let expected = length.unwrap_or(max).min(max);
        while self.bytes.len() < max && !body.is_end_stream() {
            let Some(frame) = body.frame().await else {
                self.shrink();
                return Ok(End::Whole);
            };
            match frame?.into_data() {
                Ok(data) => self.push(&data, expected)?,
                Err(frame) => {
                    self.shrink();
                    return Ok(frame.into_trailers().map_or(End::Whole, End::Trailers));
                }
            }
        }
        self.shrink();
        Ok(if body.is_end_stream() { End::Whole } else { End::More })
    }

    /// Doubles the capacity when it does not suffice, up to what is expected in all.
    fn push(&mut self, data: &[u8], expected: usize) -> Result<(), Fault> {
        let needed = self.bytes.len() + data.len();
        if needed > self.bytes.capacity() {
            let capacity = needed.max(expected.min(self.bytes.capacity() * 2));
            self.charge.set(capacity as u64)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        let _ = self.charge.set(self.bytes.len() as u64); // less always fits
    }
}

/// Bytes that are charged for as long as any part of them is in memory, in whichever layer.
struct Kept {
    bytes: Vec<u8>,
    _charge: Arc<Charge>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What comes after the bytes that were read.
#[derive(Debug)]
pub(super) struct Rest(Kind);

#[derive(Debug)]
enum Kind {
    Trailers(Option<HeaderMap>),
    Stream {
        body: Paced<Bounded>,
        /// That of the bytes before it: a layer that reads on puts both together, and then has copied them.
        _charge: Arc<Charge>,
        failed: Arc<OnceLock<Reason>>,
    },
}

impl Body for Rest {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.0 {
            Kind::Trailers(trailers) => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Kind::Stream { body, failed, .. } => {
                let frame = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(Some(Err(fault))) = &frame {
                    let _ = failed.set(fault.reason()); // the first one counts
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Trailers(trailers) => trailers.is_none(),
            Kind::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Trailers(_) => SizeHint::default(), // no exact length, which would leave no place for trailers
            Kind::Stream { body, .. } => body.size_hint(),
        }
    }
}
