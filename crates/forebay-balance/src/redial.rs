/// An error that may hand back the request, because it provably was not processed.
///
/// Only a [`Balance`](crate::Balance) with [`Redial`] asks for it; `Balance::builder()` makes one that sends nothing again:
///
/// ```compile_fail,E0277
/// use forebay_balance::{Balance, Endpoint, Redial};
/// use tower::Service;
///
/// let service = tower::service_fn(|_: http::Request<()>| async {
///     Err::<http::Response<String>, _>(std::io::Error::other("an error that hands nothing back"))
/// });
/// let endpoint = Endpoint::with_service("a", service);
/// let mut balance = Balance::<_, Redial>::builder_with_redial().endpoint(endpoint).build().unwrap();
/// Service::call(&mut balance, http::Request::new(()));
/// ```
#[diagnostic::on_unimplemented(
    note = "`Redial` needs errors that may hand the request back; `Balance::builder()` sends nothing again and needs none"
)]
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
