//! Endpoints that come and go.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Weak;

use forebay_core::{BoxError, ConfigError};
use futures_core::Stream;

use crate::endpoint::{Endpoint, EndpointId};

/// One endpoint more, other, or less.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change<S> {
    /// A new endpoint, or another state of the one of its name.
    Insert(Endpoint<S>),
    /// It is gone: it gets no more requests, those that it has go on.
    Remove(EndpointId),
}

/// A source of endpoints.
pub(crate) type Source<S> = Pin<Box<dyn Stream<Item = Result<Change<S>, BoxError>> + Send>>;

/// Boxes a stream, its errors too.
pub(crate) fn source<S, E: Into<BoxError>>(
    stream: impl Stream<Item = Result<Change<S>, E>> + Send + 'static,
) -> Source<S> {
    Box::pin(Boxed { stream })
}

pin_project_lite::pin_project! {
    struct Boxed<T> {
        #[pin]
        stream: T,
    }
}

impl<S, E: Into<BoxError>, T: Stream<Item = Result<Change<S>, E>>> Stream for Boxed<T> {
    type Item = Result<Change<S>, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.project().stream.poll_next(cx).map(|item| item.map(|change| change.map_err(Into::into)))
    }
}

/// Does what a source says until it ends or nobody has the balancer any more. An error, or an endpoint that cannot be
/// used, changes nothing; when the source ends, the last endpoints stay.
pub(crate) async fn follow<S, T: Send + Sync>(
    mut source: Source<S>,
    balancer: Weak<T>,
    apply: impl Fn(&T, Change<S>) -> Result<(), ConfigError> + Send,
) {
    while let Some(change) = poll_fn(|cx| source.as_mut().poll_next(cx)).await {
        let Some(balancer) = balancer.upgrade() else { return };
        match change {
            Ok(change) => {
                if let Err(error) = apply(&balancer, change) {
                    tracing::warn!(%error, "an endpoint that was discovered cannot be used");
                }
            }
            Err(error) => tracing::warn!(%error, "discovery failed, the endpoints stay as they are"),
        }
    }
    tracing::info!("discovery has ended, the endpoints stay as they are");
}

/// Endpoints of a tower `Discover`.
#[cfg(feature = "tower")]
pub(crate) mod of_tower {
    use std::fmt::Display;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use forebay_core::BoxError;
    use futures_core::Stream;
    use tower::discover::{Change as Tower, Discover};

    use super::{Change, Endpoint, EndpointId};

    pin_project_lite::pin_project! {
        pub(crate) struct OfTower<D> {
            #[pin]
            pub(crate) discover: D,
        }
    }

    impl<D: Discover> Stream for OfTower<D>
    where
        D::Key: Display,
        D::Error: Into<BoxError>,
    {
        type Item = Result<Change<D::Service>, BoxError>;

        fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.project().discover.poll_discover(cx).map(|change| {
                Some(change?.map_err(Into::into).map(|change| match change {
                    Tower::Insert(key, service) => Change::Insert(Endpoint::with_service(key.to_string(), service)),
                    Tower::Remove(key) => Change::Remove(EndpointId::new(key.to_string())),
                }))
            })
        }
    }
}
