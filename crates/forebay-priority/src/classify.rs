//! How urgent a request may be, and how urgent it wants to be.

use std::time::Duration;

use forebay_core::{Class, Principal, RequestHead};
use http::HeaderName;

/// Says how urgent a request may be at most. Closures over a [`RequestHead`] that return a [`Class`] or a [`Classified`]
/// are classifiers too.
///
/// A panic in it reaches the caller of the service; nothing is held by then.
///
/// What is none does not compile, and the error says what would be one:
///
/// ```compile_fail,E0277
/// forebay_priority::PriorityLayer::builder().classify(forebay_core::Class::P1);
/// ```
#[diagnostic::on_unimplemented(
    note = "a classifier is a closure `|head: &RequestHead<'_>| -> Class`, a `Tiers`, a `ByHeader`, or your own \
            `impl Classify`"
)]
pub trait Classify: Send + Sync + 'static {
    /// What is known of this request.
    fn classify(&self, head: &RequestHead<'_>) -> Classified;

    /// The header in which callers say what they wish, if that is read: the service inside sees the class that holds in
    /// it, never what the caller wrote.
    fn wish_header(&self) -> Option<&HeaderName> {
        None
    }

    /// What is wrong with it, as `build` shall say.
    fn problem(&self) -> Option<String> {
        None
    }
}

impl<F, C> Classify for F
where
    F: Fn(&RequestHead<'_>) -> C + Send + Sync + 'static,
    C: Into<Classified>,
{
    fn classify(&self, head: &RequestHead<'_>) -> Classified {
        self(head).into()
    }
}

/// What a classifier knows of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Classified {
    /// The most urgent class that it may have.
    pub ceiling: Class,
    /// Within what time the answer must begin, as promised to this caller: it picks the least urgent class that can keep
    /// it, and bounds the `Deadline`.
    pub sla: Option<Duration>,
    /// The class that the caller asks for.
    pub wish: Option<Class>,
    /// Who pays, if that is known here: set where the request has no `Principal` yet.
    pub principal: Option<Principal>,
    /// Whether the wish may also raise the class above the ceiling.
    pub trusted: bool,
}

impl Classified {
    /// At most this urgent, and nothing else known.
    #[must_use]
    pub const fn new(ceiling: Class) -> Self {
        Self { ceiling, sla: None, wish: None, principal: None, trusted: false }
    }

    /// Sets [`sla`](field@Self::sla).
    #[must_use]
    pub const fn sla(mut self, sla: Duration) -> Self {
        self.sla = Some(sla);
        self
    }

    /// Sets [`wish`](field@Self::wish).
    #[must_use]
    pub const fn wish(mut self, wish: Class) -> Self {
        self.wish = Some(wish);
        self
    }

    /// Sets [`principal`](field@Self::principal).
    #[must_use]
    pub fn principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// Sets [`trusted`](field@Self::trusted).
    #[must_use]
    pub const fn trusted(mut self, trusted: bool) -> Self {
        self.trusted = trusted;
        self
    }
}

impl From<Class> for Classified {
    fn from(ceiling: Class) -> Self {
        Self::new(ceiling)
    }
}

/// Reads the class that a caller wishes from a header: `p0` to `p15`.
///
/// It may only lower the class, below a default (P2) or below what another classifier says, unless
/// [`trust`](crate::PriorityBuilder::trust) is given. A header that is no class name, or is there twice with different
/// values, is ignored.
///
/// ```
/// use forebay_core::{Class, Principal};
/// use forebay_priority::{ByHeader, PriorityLayer, Tiers};
///
/// let tiers = Tiers::new(Class::P2).member(Principal::from_bytes("acme"), Class::P0);
/// let layer = PriorityLayer::builder().classify(ByHeader::new("x-priority").within(tiers)).build();
/// assert!(layer.is_ok());
/// ```
pub struct ByHeader {
    name: Result<HeaderName, String>,
    within: Box<dyn Classify>,
}

impl std::fmt::Debug for ByHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ByHeader {
    /// Reads the header of this name; without it, a request is P2.
    #[must_use]
    pub fn new(name: impl AsRef<str>) -> Self {
        let name = HeaderName::try_from(name.as_ref()).map_err(|_| name.as_ref().to_owned());
        Self { name, within: Box::new(|_: &RequestHead<'_>| Class::default()) }
    }

    /// The class of a request without the header, and the most urgent one that the header may ask for.
    #[must_use]
    pub fn default_class(self, class: Class) -> Self {
        self.within(move |_: &RequestHead<'_>| class)
    }

    /// Lets another classifier say how urgent a request may be at most.
    #[must_use]
    pub fn within(mut self, classifier: impl Classify) -> Self {
        self.within = Box::new(classifier);
        self
    }

    fn wish(&self, head: &RequestHead<'_>) -> Option<Class> {
        let mut values = head.headers.get_all(self.name.as_ref().ok()?).iter();
        let first = values.next()?;
        if values.any(|value| value != first) {
            return None;
        }
        first.to_str().ok()?.parse().ok()
    }
}

impl Classify for ByHeader {
    fn classify(&self, head: &RequestHead<'_>) -> Classified {
        let mut classified = self.within.classify(head);
        classified.wish = self.wish(head).or(classified.wish);
        classified
    }

    fn wish_header(&self) -> Option<&HeaderName> {
        self.name.as_ref().ok()
    }

    fn problem(&self) -> Option<String> {
        let bad = self.name.as_ref().err().map(|name| format!("ByHeader is {name:?}: a header field name"));
        bad.or_else(|| self.within.problem())
    }
}

/// Whose wish may raise a class: by default nobody's.
pub struct Trust(pub(crate) Kind);

type Predicate = Box<dyn Fn(&RequestHead<'_>) -> bool + Send + Sync>;

pub(crate) enum Kind {
    LowerOnly,
    Always,
    When(Predicate),
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::LowerOnly => "Trust::lower_only()",
            Kind::Always => "Trust::always()",
            Kind::When(_) => "Trust::when(..)",
        })
    }
}

impl Trust {
    /// A wish only lowers a class, whoever has it. The default.
    #[must_use]
    pub const fn lower_only() -> Self {
        Self(Kind::LowerOnly)
    }

    /// Every wish holds: for a service that only trusted callers can reach.
    #[must_use]
    pub const fn always() -> Self {
        Self(Kind::Always)
    }

    /// The wishes of those requests hold of which `predicate` says so: by an extension that authentication has set, say.
    pub fn when(predicate: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::When(Box::new(predicate)))
    }

    pub(crate) fn trusts(&self, head: &RequestHead<'_>) -> bool {
        match &self.0 {
            Kind::LowerOnly => false,
            Kind::Always => true,
            Kind::When(predicate) => predicate(head),
        }
    }
}
