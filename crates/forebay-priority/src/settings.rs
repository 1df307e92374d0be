//! What was decided at build and by users' own code: who is how urgent, how much a request costs, by when it must be
//! answered. None of it runs under a lock.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use forebay_core::{Class, Deadline, Principal, RequestHead};
use http::{HeaderName, HeaderValue, Request};
use tokio::time::Instant;

use crate::admission::Seats;
use crate::classify::{Classified, Classify, Trust};
use crate::config::{ClassConfig, ReleaseOn};
use crate::deadline;

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
    /// The key of the tenants' hash, so that nobody can choose whom to share a queue with.
    pub(crate) hasher: RandomState,
}

/// A user's key, hashed under ours.
pub(crate) fn tenant_by<K: Hash>(key: impl Fn(&RequestHead<'_>) -> Option<K> + Send + Sync + 'static) -> Tenant {
    Box::new(move |head, hasher| key(head).map(|key| hasher.hash_one(key)))
}

impl Settings {
    /// Sets what the request lacks of `Class`, `Principal` and `Deadline`, and puts the class in the wish header; see
    /// [`PriorityHandle::mark`](crate::PriorityHandle::mark). `rules` gives the timeouts of all classes, in order.
    pub(crate) fn mark<B>(&self, request: &mut Request<B>, rules: &Rules) -> Class {
        let head = RequestHead::from(&*request);
        let (class, sla) = match head.extensions.get::<Class>() {
            Some(class) => (*class, None),
            None => {
                let classified = self.classify(&head);
                let class = self.class(&head, &classified, rules);
                request.extensions_mut().insert(class);
                if let Some(principal) = classified.principal
                    && request.extensions().get::<Principal>().is_none()
                {
                    request.extensions_mut().insert(principal);
                }
                (class, classified.sla)
            }
        };
        let asked = deadline::of_headers(request.headers(), self.deadline_header.as_ref());
        let timeout = [asked, rules.row(class).answer_timeout, sla].into_iter().flatten().min();
        if let Some(timeout) = timeout {
            let deadline = Deadline::after(Instant::now().into_std(), timeout);
            let known = request.extensions().get::<Deadline>().copied();
            request.extensions_mut().insert(known.map_or(deadline, |known| known.min(deadline)));
        }
        if let Some(name) = self.classify.as_ref().and_then(|classify| classify.wish_header())
            && request.headers().contains_key(name)
        {
            let name = name.clone();
            request.headers_mut().insert(name, HeaderValue::from_static(class.as_str()));
        }
        class
    }

    fn classify(&self, head: &RequestHead<'_>) -> Classified {
        self.classify.as_ref().map_or_else(|| Class::default().into(), |classify| classify.classify(head))
    }

    /// The less urgent of the ceiling and of what keeps the promise; of that and the wish the less urgent, or whichever
    /// the wish says if it is trusted.
    fn class(&self, head: &RequestHead<'_>, classified: &Classified, rules: &Rules) -> Class {
        let keeps = |class: &Row| classified.sla.is_some_and(|sla| class.queue_timeout + self.expected_head <= sla);
        let promised = rules.rows.iter().rposition(keeps).map_or(classified.ceiling, |row| Class::new(row as u8));
        let class = classified.ceiling.max(promised);
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

    pub(crate) fn is_exempt(&self, head: &RequestHead<'_>) -> bool {
        self.exempt.as_ref().is_some_and(|exempt| exempt(head))
    }

    /// Tells the service inside how much time is left, in whole milliseconds, rounded down.
    pub(crate) fn forward<B>(&self, request: &mut Request<B>, deadline: Deadline) {
        if let Some(name) = &self.forward_deadline {
            let left = deadline.remaining(Instant::now().into_std()).as_millis();
            request.headers_mut().insert(name.clone(), u64::try_from(left).unwrap_or(u64::MAX).into());
        }
    }
}

/// The timeouts of all classes, as they are now.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) queue_timeout: Duration,
    pub(crate) answer_timeout: Option<Duration>,
    pub(crate) max_hold: Option<Duration>,
}

impl Rules {
    pub(crate) fn new<'a>(classes: impl IntoIterator<Item = &'a ClassConfig>) -> Self {
        let row = |class: &ClassConfig| Row {
            queue_timeout: class.queue_timeout,
            answer_timeout: class.answer_timeout,
            max_hold: class.max_hold,
        };
        Self { rows: classes.into_iter().map(row).collect() }
    }

    /// The row of a class: one beyond the configured ones counts as the last.
    pub(crate) fn index(&self, class: Class) -> usize {
        class.index().min(self.rows.len() - 1) // at least one class: checked at build
    }

    pub(crate) fn row(&self, class: Class) -> &Row {
        &self.rows[self.index(class)]
    }

    pub(crate) const fn len(&self) -> usize {
        self.rows.len()
    }
}
