use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// The future of [`cut_after`].
    #[derive(Debug)]
    pub struct CutAfter<F> {
        left: usize,
        #[pin]
        future: Option<F>,
    }
}

/// Polls `future` at most `polls` times, then drops it: `None` means that it was cut, `Some` that it was done before.
///
/// Run an exchange with 0, 1, 2, … polls until it is done: that drops it at every point where it can be dropped.
pub const fn cut_after<F: Future>(polls: usize, future: F) -> CutAfter<F> {
    CutAfter { left: polls, future: Some(future) }
}

impl<F: Future> Future for CutAfter<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if *this.left > 0 {
            *this.left -= 1;
            let future = this.future.as_mut().as_pin_mut().expect("polled after it was done");
            if let Poll::Ready(output) = future.poll(cx) {
                this.future.set(None);
                return Poll::Ready(Some(output));
            }
            if *this.left > 0 {
                return Poll::Pending;
            }
        }
        this.future.set(None); // the cut: everything that the future held is dropped here
        Poll::Ready(None)
    }
}
