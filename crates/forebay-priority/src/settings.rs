//! What was decided at build and by users' own code: who is how urgent, how much a request costs, by when it must be
//! answered. None of it runs under a lock.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use forebay_core::{Class, Deadline, Principal, RequestHead};
use http::{HeaderName, HeaderValue, Request};
use tokio::time::Instant;

use crate::admission::Seats;
use crate::classify::{Classified, Classify, Trust};
use crate::config::{ClassConfig, ReleaseOn};
use crate::deadline;
use crate::policy::nanos;

pub(crate) type Predicate = Box<dyn Fn(&RequestHead<'_>) -> bool + Send + Sync>;
pub(crate) type Cost = Box<dyn Fn(&RequestHead<'_>) -> Seats + Send + Sync>;
type Tenant = Box<dyn Fn(&RequestHead<'_>, &RandomState) -> Option<u64> + Send + Sync>;

pub(crate) struct Settings {
    pub(crate) classify: Option<Box<dyn Classify>>,
    pub(crate) trust: Trust,
    pub(crate) exempt: Option<Predicate>,
    pub(crate) cost: Option<Cost>,
    pub(crate) fair_by: Option<Tenant>,
    pub(crate) deadline_header: Option<HeaderName>,
    pub(crate) forward_deadline: Option<HeaderName>,
    pub(crate) release: ReleaseOn,
    pub(crate) expected_head: Duration,
    pub(crate) stall: Option<Duration>,
    pub(crate) min_read_rate: u32,
    /// The key of the tenants' hash, so that nobody can choose whom to share a queue with.
    pub(crate) hasher: RandomState,
}

/// A user's key, hashed under ours.
pub(crate) fn tenant_by<K: Hash>(key: impl Fn(&RequestHead<'_>) -> Option<K> + Send + Sync + 'static) -> Tenant {
    Box::new(move |head, hasher| key(head).map(|key| hasher.hash_one(key)))
}

impl Settings {
    /// Sets what the request lacks of `Class`, `Principal` and `Deadline`, and puts the class in the wish header; see
    /// [`PriorityHandle::mark`](crate::PriorityHandle::mark). `timeouts` are those of all classes, in order.
    ///
    /// `keeping` returns the least urgent class that keeps a promised time.
    pub(crate) fn mark<B>(
        &self,
        request: &mut Request<B>,
        timeouts: &Timeouts,
        keeping: impl Fn(Duration) -> Option<Class>,
    ) -> (Class, Option<Deadline>) {
        let (class, sla) = match request.extensions().get::<Class>() {
            Some(class) => (*class, None),
            None => self.mark_class(request, keeping),
        };
        let answer = timeouts.answer(class);
        if request.headers().is_empty() && answer.is_none() && sla.is_none() {
            return (class, request.extensions().get::<Deadline>().copied());
        }
        let asked = deadline::of_headers(request.headers(), self.deadline_header.as_ref());
        let mut deadline = request.extensions().get::<Deadline>().copied();
        if let Some(timeout) = [asked, answer, sla].into_iter().flatten().min() {
            let ours = Deadline::after(Instant::now().into_std(), timeout);
            let least = deadline.map_or(ours, |known| known.min(ours));
            request.extensions_mut().insert(least);
            deadline = Some(least);
        }
        if let Some(name) = self.classify.as_ref().and_then(|classify| classify.wish_header())
            && request.headers().contains_key(name)
        {
            let name = name.clone();
            request.headers_mut().insert(name, HeaderValue::from_static(class.as_str()));
        }
        (class, deadline)
    }

    fn mark_class<B>(
        &self,
        request: &mut Request<B>,
        keeping: impl Fn(Duration) -> Option<Class>,
    ) -> (Class, Option<Duration>) {
        let head = RequestHead::from(&*request);
        let classified = self.classify(&head);
        let class = self.class(&head, &classified, keeping);
        request.extensions_mut().insert(class);
        if let Some(principal) = classified.principal
            && request.extensions().get::<Principal>().is_none()
        {
            request.extensions_mut().insert(principal);
        }
        (class, classified.sla)
    }

    fn classify(&self, head: &RequestHead<'_>) -> Classified {
        self.classify.as_ref().map_or_else(|| Class::default().into(), |classify| classify.classify(head))
    }

    /// The less urgent of the ceiling and of what keeps the promise by the waits as they are predicted now; of that and the wish the less urgent, or whichever
    /// the wish says if it is trusted.
    fn class(
        &self,
        head: &RequestHead<'_>,
        classified: &Classified,
        keeping: impl Fn(Duration) -> Option<Class>,
    ) -> Class {
        let promised = classified.sla.and_then(keeping);
        let class = promised.map_or(classified.ceiling, |promised| promised.max(classified.ceiling));
        match classified.wish {
            Some(wish) if classified.trusted || self.trust.trusts(head) => wish,
            Some(wish) => class.max(wish),
            None => class,
        }
    }

    pub(crate) fn tenant(&self, head: &RequestHead<'_>) -> Option<u64> {
        match &self.fair_by {
            Some(fair_by) => fair_by(head, &self.hasher),
            None => head.extensions.get::<Principal>().map(|principal| self.tenant_of(principal)),
        }
    }

    pub(crate) fn tenant_of(&self, principal: &Principal) -> u64 {
        self.hasher.hash_one(principal.as_bytes())
    }

    #[inline]
    pub(crate) fn is_exempt<B>(&self, request: &Request<B>) -> bool {
        self.exempt.as_ref().is_some_and(|exempt| exempt(&RequestHead::from(request)))
    }

    /// Tells the service inside how much time is left, in whole milliseconds, rounded down.
    pub(crate) fn forward<B>(&self, request: &mut Request<B>, deadline: Deadline) {
        if let Some(name) = &self.forward_deadline {
            let left = deadline.remaining(Instant::now().into_std()).as_millis();
            request.headers_mut().insert(name.clone(), u64::try_from(left).unwrap_or(u64::MAX).into());
        }
    }
}

/// The timeouts of all classes, as they are now, apart from the scheduler's lock.
#[derive(Debug)]
pub(crate) struct Timeouts {
    rows: Box<[Row]>,
}

/// Nanoseconds each; [`NONE`]: no such limit.
#[derive(Debug)]
struct Row {
    answer: AtomicU64,
    hold: AtomicU64,
}

const NONE: u64 = u64::MAX;

impl Timeouts {
    pub(crate) fn new<'a>(classes: impl ExactSizeIterator<Item = &'a ClassConfig>) -> Self {
        let row = || Row { answer: AtomicU64::new(NONE), hold: AtomicU64::new(NONE) };
        let timeouts = Self { rows: (0..classes.len()).map(|_| row()).collect() };
        classes.enumerate().for_each(|(row, class)| timeouts.set(row, class));
        timeouts
    }

    pub(crate) fn set(&self, row: usize, class: &ClassConfig) {
        let of = |time: Option<Duration>| time.map_or(NONE, nanos);
        let row = &self.rows[row];
        row.answer.store(of(class.answer_timeout), Relaxed);
        row.hold.store(of(class.max_hold), Relaxed);
    }

    /// The row of a class: one beyond the configured ones counts as the last.
    pub(crate) fn index(&self, class: Class) -> usize {
        class.index().min(self.rows.len() - 1) // at least one class: checked at build
    }

    fn of(time: &AtomicU64) -> Option<Duration> {
        Some(time.load(Relaxed)).filter(|&nanos| nanos != NONE).map(Duration::from_nanos)
    }

    fn answer(&self, class: Class) -> Option<Duration> {
        Self::of(&self.rows[self.index(class)].answer)
    }

    pub(crate) fn hold(&self, class: Class) -> Option<Duration> {
        Self::of(&self.rows[self.index(class)].hold)
    }

    pub(crate) const fn len(&self) -> usize {
        self.rows.len()
    }
}
