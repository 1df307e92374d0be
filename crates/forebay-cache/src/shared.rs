//! What all clones of a layer share, and what is done with it: look up, record, store, invalidate.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_core::{Principal, Rejection, RequestHead};
use http::header::{HeaderMap, HeaderName};
use http::{StatusCode, response};
use tokio::time::Instant;

use crate::canon::canonical;
use crate::config::SKIPPED;
use crate::entry::{Answer, Entry, Frames, Index, Kind, kept_fields};
use crate::policy::complete::{self, Shape};
use crate::policy::freshness::{self, Directives, Freshness};
use crate::policy::key::{Key, Keyer};
use crate::policy::request::{content_length, media_type};
use crate::{CacheSnapshot, Forward, JsonRoute, Memory};

/// The most frames of a stored body: what a frame costs beside its bytes is bounded too.
const MAX_FRAMES: usize = 1 << 16;

/// Wall clock = anchor + monotonic time, which tests can pause.
#[derive(Debug)]
struct Clock {
    wall: u64,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { wall: wall.as_millis() as u64, start: Instant::now() }
    }

    fn now(&self) -> u64 {
        self.wall + self.start.elapsed().as_millis() as u64
    }
}

pub(crate) struct Shared<M> {
    pub(crate) name: String,
    pub(crate) routes: Vec<JsonRoute>,
    keyer: Keyer,
    memory: M,
    max_entry: usize,
    clock: Clock,
    enabled: AtomicBool,
    nonce: AtomicU64,
    /// Moved by each invalidation, by the first byte of the key: a fill that began before it is not stored.
    epochs: [AtomicU64; 256],
    pub(crate) counts: Counts,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) bypassed: AtomicU64,
    stored: AtomicU64,
}

impl<M> fmt::Debug for Shared<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// One request that may be answered: where its answer is, or would be.
pub(crate) struct Fill {
    primary: Key,
    partition: Key,
    request: HeaderMap,
    control: Directives,
    /// `None`: GET.
    route: Option<(Shape, Duration)>,
    owned: bool,
    head_only: bool,
    epoch: u64,
    sent: u64,
}

impl fmt::Debug for Fill {
    /// Without the request fields: there are credentials among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").field("primary", &self.primary).finish_non_exhaustive()
    }
}

/// What a look finds.
#[derive(Debug)]
pub(crate) enum Found {
    Hit { entry: Arc<Entry>, now: u64, head_only: bool },
    Miss { fill: Box<Fill>, why: Forward },
    OnlyIfCached,
}

/// An answer on its way.
#[derive(Debug)]
pub(crate) struct Recording {
    fill: Box<Fill>,
    headers: HeaderMap,
    freshness: Freshness,
    names: Vec<HeaderName>,
    length: Option<u64>,
    events: bool,
    frames: Vec<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
}

impl Recording {
    /// Takes a frame; `false`: it is more than may be stored.
    pub(crate) fn push(&mut self, frame: &Bytes, max_entry: usize) -> bool {
        self.bytes = self.bytes.saturating_add(frame.len());
        if !frame.is_empty() {
            self.frames.push(frame.clone());
        }
        self.bytes <= max_entry && self.frames.len() <= MAX_FRAMES
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }
}

/// What bodies, guards and handles need of [`Shared`], whatever its memory.
pub(crate) trait Control: fmt::Debug + Send + Sync {
    fn snapshot(&self) -> CacheSnapshot;
    fn purge_all(&self);
    fn set_enabled(&self, enabled: bool);
    fn max_entry(&self) -> usize;
    fn store(&self, recording: Recording);
    fn invalidate(&self, resource: &Key);
}

impl<M: Memory> Shared<M> {
    pub(crate) fn new(name: String, secret: &[u8], memory: M, max_entry: usize, routes: Vec<JsonRoute>) -> Self {
        Self {
            name,
            routes,
            keyer: Keyer::new(secret),
            memory,
            max_entry,
            clock: Clock::new(),
            enabled: AtomicBool::new(true),
            nonce: AtomicU64::new(0),
            epochs: [const { AtomicU64::new(0) }; 256],
            counts: Counts::default(),
        }
    }

    pub(crate) fn enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    fn epoch(&self, key: &Key) -> &AtomicU64 {
        &self.epochs[usize::from(key.as_bytes()[0])]
    }

    pub(crate) fn resource(&self, head: &RequestHead<'_>) -> Option<Key> {
        self.keyer.resource(head)
    }

    /// Looks up a GET or HEAD. `None`: bypass.
    pub(crate) fn find_get(&self, head: &RequestHead<'_>) -> Option<Found> {
        let primary = self.keyer.resource(head)?;
        let partition = self.keyer.partition(head, false);
        Some(self.find(primary, partition, head, None))
    }

    /// Looks up a question. `None`: bypass.
    pub(crate) fn find_json(&self, head: &RequestHead<'_>, route: &JsonRoute, body: &[u8]) -> Option<Found> {
        let always = route.sampled || route.shape == Shape::Embeddings;
        // Most chat names neither: then it is not worth to be parsed. A name written with escapes is missed, and passes.
        if !(always
            || std::str::from_utf8(body).is_ok_and(|text| text.contains("temperature\"") || text.contains("seed\"")))
        {
            return None;
        }
        let question = canonical(body, &SKIPPED).ok().filter(|question| question.is_object())?;
        let number =
            |name| question.get(name).filter(|text| text.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
        let seeded = number("seed").is_some_and(|seed| !seed.contains("e-"));
        if !(always || number("temperature") == Some("0") || seeded) {
            return None;
        }
        let partition = self.keyer.partition(head, true);
        let primary = self.keyer.question(&self.keyer.resource(head)?, &partition, head, question.text());
        Some(self.find(primary, partition, head, Some((route.shape, route.fresh_for))))
    }

    /// Two looks into the memory at most.
    fn find(&self, primary: Key, partition: Key, head: &RequestHead<'_>, route: Option<(Shape, Duration)>) -> Found {
        let control = Directives::of_request(head.headers);
        let (now, head_only) = (self.clock.now(), head.method == http::Method::HEAD);
        let why = if control.no_store || control.no_cache {
            Forward::Request
        } else {
            match self.look(&primary, &partition, head.headers) {
                Err(why) => why,
                Ok(entry) => match &entry.kind {
                    Kind::Answer(answer) if answer.freshness.left(now) == 0 => Forward::Stale,
                    Kind::Answer(answer) if control.takes(answer.freshness.age(now), answer.freshness.lifetime) => {
                        return Found::Hit { entry, now, head_only };
                    }
                    _ => Forward::Request,
                },
            }
        };
        if control.only_if_cached {
            return Found::OnlyIfCached;
        }
        let owned = head.extensions.get::<Principal>().is_some()
            || head.headers.contains_key("authorization")
            || head.headers.contains_key("x-api-key");
        let (request, epoch) = (head.headers.clone(), self.epoch(&primary).load(SeqCst));
        let fill = Fill { primary, partition, request, control, route, owned, head_only, epoch, sent: now };
        Found::Miss { fill: Box::new(fill), why }
    }

    fn look(&self, primary: &Key, partition: &Key, headers: &HeaderMap) -> Result<Arc<Entry>, Forward> {
        let entry = self.memory.get(primary).ok_or(Forward::UriMiss)?;
        let Kind::Index(index) = &entry.kind else { return Ok(entry) };
        let key = self.keyer.variant(primary, index.nonce, partition, &index.names, headers);
        let answer = self.memory.get(&key).filter(|entry| matches!(entry.kind, Kind::Answer(_)));
        // Without request fields to vary on, only the partition can differ.
        answer.ok_or(if index.names.is_empty() { Forward::UriMiss } else { Forward::VaryMiss })
    }

    /// Begins to record, if this answer may be stored.
    pub(crate) fn record(&self, fill: Box<Fill>, parts: &response::Parts) -> Option<Recording> {
        let (headers, received) = (&parts.headers, self.clock.now());
        let refused = parts.status != StatusCode::OK || parts.extensions.get::<Rejection>().is_some();
        if refused || fill.head_only || fill.control.no_store || !self.enabled() {
            return None;
        }
        let media = media_type(headers);
        let freshness = match fill.route {
            None => freshness::of_get(&fill.request, headers, fill.sent, received)?,
            Some((shape, fresh_for)) => {
                let events = media == "text/event-stream" && shape == Shape::Choices;
                if headers.contains_key("content-encoding") || !(events || media == "application/json") {
                    return None; // nobody could see whether it is complete
                }
                freshness::of_json(headers, fresh_for, fill.owned, received)?
            }
        };
        let length = match headers.contains_key("content-length") {
            true => Some(content_length(headers)?),
            false => None,
        };
        if length.is_some_and(|length| length > self.max_entry as u64) {
            return None;
        }
        Some(Recording {
            names: freshness::vary(headers)?,
            headers: kept_fields(headers, received),
            fill,
            freshness,
            length,
            events: media == "text/event-stream",
            frames: Vec::new(),
            bytes: 0,
            trailers: None,
        })
    }
}

impl<M: Memory> Control for Shared<M> {
    fn snapshot(&self) -> CacheSnapshot {
        CacheSnapshot {
            hits: self.counts.hits.load(Relaxed),
            misses: self.counts.misses.load(Relaxed),
            bypassed: self.counts.bypassed.load(Relaxed),
            stored: self.counts.stored.load(Relaxed),
            entries: self.memory.entries(),
            bytes: self.memory.bytes(),
        }
    }

    fn purge_all(&self) {
        for epoch in &self.epochs {
            epoch.fetch_add(1, SeqCst);
        }
        self.memory.clear();
    }

    fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }

    fn max_entry(&self) -> usize {
        self.max_entry
    }

    fn store(&self, recording: Recording) {
        let Recording { fill, headers, freshness, names, length, events, frames, bytes, trailers } = recording;
        let frames = Frames::new(&frames);
        let whole = length.is_none_or(|length| length == bytes as u64)
            && match fill.route {
                None => true,
                Some(_) if events => complete::events(&frames.body),
                Some((shape, _)) => complete::json(shape, &frames.body),
            };
        let (now, epoch) = (self.clock.now(), self.epoch(&fill.primary));
        let keep = Duration::from_millis(freshness.left(now));
        if !whole || keep.is_zero() || !self.enabled() || epoch.load(SeqCst) != fill.epoch {
            return;
        }
        let answer = Entry { kind: Kind::Answer(Box::new(Answer { headers, frames, trailers, freshness })) };
        let mut key = fill.primary;
        if fill.route.is_none() || !names.is_empty() {
            let index = self.index(&fill.primary, names, now, now.saturating_add(freshness.left(now)));
            let Some(Index { nonce, names, until }) = index else { return };
            key = self.keyer.variant(&fill.primary, nonce, &fill.partition, &names, &fill.request);
            let left = Duration::from_millis(until.saturating_sub(now));
            let index = Entry { kind: Kind::Index(Index { nonce, names, until }) };
            self.memory.put(fill.primary, Arc::new(index), left);
        }
        self.memory.put(key, Arc::new(answer), keep);
        if epoch.load(SeqCst) == fill.epoch {
            self.counts.stored.fetch_add(1, Relaxed);
        } else {
            self.memory.remove(&fill.primary); // an invalidation came between, and saw nothing to drop
            self.memory.remove(&key);
        }
    }

    fn invalidate(&self, resource: &Key) {
        self.epoch(resource).fetch_add(1, SeqCst); // first: see the end of `store`
        self.memory.remove(resource);
    }
}

impl<M: Memory> Shared<M> {
    /// The index with these names: the one there, unless it lacks some; then a new one, with the names of both.
    fn index(&self, primary: &Key, mut names: Vec<HeaderName>, now: u64, until: u64) -> Option<Index> {
        let known = self.memory.get(primary);
        let known = known.as_ref().and_then(|entry| match &entry.kind {
            Kind::Index(index) if index.until > now => Some(index),
            _ => None,
        });
        if let Some(known) = known {
            if names.iter().all(|name| known.names.contains(name)) {
                let (nonce, names) = (known.nonce, known.names.clone());
                return Some(Index { nonce, names, until: until.max(known.until) });
            }
            names.extend(known.names.iter().cloned());
        }
        let nonce = self.nonce.fetch_add(1, Relaxed);
        Some(Index { nonce, names: freshness::normal(names)?, until })
    }
}

/// Invalidates a resource when it goes, unless it is known that nothing changed. A request that was cut off may have
/// changed it all the same.
#[derive(Debug)]
pub(crate) struct Invalidation {
    control: Arc<dyn Control>,
    resource: Option<Key>,
}

impl Invalidation {
    pub(crate) fn new(control: Arc<dyn Control>, resource: Key) -> Self {
        Self { control, resource: Some(resource) }
    }

    pub(crate) fn nothing_changed(mut self) {
        self.resource = None;
    }
}

impl Drop for Invalidation {
    fn drop(&mut self) {
        if let Some(resource) = &self.resource {
            self.control.invalidate(resource);
        }
    }
}
