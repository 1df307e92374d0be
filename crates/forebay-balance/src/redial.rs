/// An error that may hand back the request, because it provably was not processed.
pub trait Undispatched<Req> {
    /// The request; `None` if the endpoint may have processed any of it.
    fn take_request(&mut self) -> Option<Req>;

    /// Whether the endpoint is no more than busy, which counts as overload and not as an error. Default: no.
    fn is_busy(&self) -> bool {
        false
    }
}

/// Whether a failed request may be sent to another endpoint: the second parameter of a [`Balance`](crate::Balance).
pub trait RedialPolicy<E, Req> {
    /// The request, if it may go elsewhere.
    fn again(error: &mut E) -> Option<Req>;

    /// Whether the endpoint that failed is no more than busy, for what is known.
    fn is_busy(error: &E) -> bool {
        let _ = error;
        false
    }
}

/// A failed request is never sent again.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRedial;

/// A request that provably was not processed goes to another endpoint, twice at most; the error says so by
/// [`Undispatched`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Redial;

impl<E, Req> RedialPolicy<E, Req> for NoRedial {
    fn again(_: &mut E) -> Option<Req> {
        None
    }
}

impl<E: Undispatched<Req>, Req> RedialPolicy<E, Req> for Redial {
    fn again(error: &mut E) -> Option<Req> {
        error.take_request()
    }

    fn is_busy(error: &E) -> bool {
        error.is_busy()
    }
}

/// Which of the two it is: [`NoRedial`] or [`Redial`].
pub trait RedialMode: Default + sealed::Sealed {}

impl RedialMode for NoRedial {}
impl RedialMode for Redial {}

mod sealed {
    #[allow(unnameable_types)] // that is the point
    pub trait Sealed {}
    impl Sealed for super::NoRedial {}
    impl Sealed for super::Redial {}
}
