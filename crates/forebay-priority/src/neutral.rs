use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use forebay_core::{Outcome, Rejection};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::admission::{Acquire, Admission, Ask};
use crate::permit::Permit;

/// Why an [`AdmissionService`] has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriorityError<E> {
    /// It was refused: the service inside never saw it.
    #[error(transparent)]
    Rejected(Rejection),
    /// The service inside failed.
    #[error(transparent)]
    Inner(E),
}

type AskOf<R> = Arc<dyn Fn(&R) -> Ask + Send + Sync>;

/// A service of any protocol behind the queues of an [`Admission`]: its seats are held until its future has ended.
///
/// ```
/// use forebay_core::Class;
/// use forebay_priority::{AdmissionService, Ask, PriorityLayer};
/// use tower::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (_, handle) = PriorityLayer::builder().build_with_handle()?;
/// let square = service_fn(|n: u64| async move { Ok::<_, std::io::Error>(n * n) });
/// let service = AdmissionService::new(square, handle.admission(), |n: &u64| {
///     Ask::new(if *n < 100 { Class::P0 } else { Class::P3 })
/// });
/// assert_eq!(service.oneshot(7).await?, 49);
/// # Ok(())
/// # }
/// ```
pub struct AdmissionService<S, R> {
    inner: S,
    admission: Admission,
    ask: AskOf<R>,
}

impl<S: Clone, R> Clone for AdmissionService<S, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), admission: self.admission.clone(), ask: Arc::clone(&self.ask) }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for AdmissionService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmissionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, R> AdmissionService<S, R> {
    /// Puts `inner` behind `admission`; `ask` says what a request needs.
    pub fn new(inner: S, admission: Admission, ask: impl Fn(&R) -> Ask + Send + Sync + 'static) -> Self {
        Self { inner, admission, ask: Arc::new(ask) }
    }
}

impl<S, R> Service<R> for AdmissionService<S, R>
where
    S: Service<R> + Clone,
{
    type Response = S::Response;
    type Error = PriorityError<S::Error>;
    type Future = AdmissionFuture<S, R>;

    /// Always ready: the wait is in the future.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let acquire = self.admission.acquire((self.ask)(&request));
        AdmissionFuture {
            step: Step::Waiting { acquire },
            inner: self.inner.clone(),
            request: Some(request),
            permit: None,
        }
    }
}

pin_project! {
    /// The future of an [`AdmissionService`].
    pub struct AdmissionFuture<S, R>
    where
        S: Service<R>,
    {
        // Dropped before the permit: the work is over before its seat is free.
        #[pin]
        step: Step<S::Future>,
        inner: S,
        request: Option<R>,
        permit: Option<Permit>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F> {
        Waiting { #[pin] acquire: Acquire },
        Seated,
        Running { #[pin] future: F },
        Done,
    }
}

impl<S: Service<R>, R> fmt::Debug for AdmissionFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmissionFuture").finish_non_exhaustive()
    }
}

impl<S: Service<R>, R> Future for AdmissionFuture<S, R> {
    type Output = Result<S::Response, PriorityError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = loop {
            match this.step.as_mut().project() {
                StepProj::Waiting { acquire } => match ready!(acquire.poll(cx)) {
                    // Waiting => Seated.
                    Ok(permit) => {
                        *this.permit = Some(permit);
                        this.step.set(Step::Seated);
                    }
                    Err(why) => break Err(PriorityError::Rejected(why)),
                },
                StepProj::Seated => {
                    if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                        break Err(PriorityError::Inner(error));
                    }
                    let request = this.request.take().expect("taken by the call only");
                    // Seated => Running: the very instance that was polled ready.
                    this.step.set(Step::Running { future: this.inner.call(request) });
                }
                StepProj::Running { future } => break ready!(future.poll(cx)).map_err(PriorityError::Inner),
                StepProj::Done => panic!("AdmissionFuture polled after it was done"),
            }
        };
        this.step.set(Step::Done);
        if let Some(mut permit) = this.permit.take() {
            if result.is_ok() {
                permit.first_output();
            }
            permit.end(if result.is_ok() { Outcome::Success } else { Outcome::Error });
        }
        Poll::Ready(result)
    }
}
