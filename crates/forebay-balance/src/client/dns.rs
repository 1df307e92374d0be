use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use http::Uri;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use crate::client::url::HttpUrl;
use crate::discover::Change;
use crate::endpoint::{Endpoint, EndpointId};

/// How long a name server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most addresses of a name that are used.
const MAX_ADDRESSES: usize = 1024;

/// Each address of a DNS name is an endpoint of its own, and the name is looked up again and again: a source for
/// [`discover`](crate::BalanceBuilder::discover).
///
/// An endpoint is called `http://name:8000 at 10.0.0.1:8000`; requests to it bear the name as their host. If a look-up
/// fails, or finds nothing, the endpoints stay as they are.
#[must_use]
pub struct Dns {
    endpoint: Endpoint<HttpUrl>,
    interval: Duration,
    known: BTreeSet<SocketAddr>,
    changes: VecDeque<Change<HttpUrl>>,
    next: Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").field("endpoint", &self.endpoint).field("known", &self.known).finish_non_exhaustive()
    }
}

impl Dns {
    /// The addresses of the name in a URL such as `http://models.default.svc:8000`, looked up every 5 s.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::of(Endpoint::new(url))
    }

    /// As [`new`](Self::new); each address is an endpoint like this one, with its weight, bound and pool.
    pub fn of(endpoint: Endpoint<HttpUrl>) -> Self {
        let next = Box::pin(look_up(endpoint.service.url.clone(), Duration::ZERO));
        let (known, changes) = (BTreeSet::new(), VecDeque::new());
        Self { endpoint, interval: Duration::from_secs(5), known, changes, next }
    }

    /// How long after a look-up the next one begins. Default 5 s.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    fn id(&self, address: SocketAddr) -> EndpointId {
        EndpointId::new(format!("{} at {address}", self.endpoint.service.url))
    }

    /// From what was known to what was found.
    fn diff(&mut self, found: BTreeSet<SocketAddr>) {
        for address in found.difference(&self.known) {
            let mut endpoint = self.endpoint.clone();
            endpoint.id = self.id(*address);
            endpoint.service.connect_to = Some(*address);
            self.changes.push_back(Change::Insert(endpoint));
        }
        for address in self.known.difference(&found) {
            self.changes.push_back(Change::Remove(self.id(*address)));
        }
        self.known = found;
    }
}

impl Stream for Dns {
    type Item = Result<Change<HttpUrl>, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            let Poll::Ready(found) = self.next.as_mut().poll(cx) else { return Poll::Pending };
            self.next = Box::pin(look_up(self.endpoint.service.url.clone(), self.interval));
            match found {
                Ok(found) if !found.is_empty() => self.diff(found.into_iter().take(MAX_ADDRESSES).collect()),
                Ok(_) => {} // a name without an address is more likely a mistake than an empty fleet
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

async fn look_up(url: String, after: Duration) -> io::Result<Vec<SocketAddr>> {
    sleep(after).await;
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let host = uri.host().ok_or_else(|| io::Error::other(format!("{url:?} has no host")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let found = timeout(TIMEOUT, lookup_host((host, port))).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> BTreeSet<SocketAddr> {
        last.iter().map(|last| SocketAddr::from(([10, 0, 0, *last], 80))).collect()
    }

    #[tokio::test]
    async fn what_is_new_comes_in_and_what_is_gone_goes() {
        let mut dns = Dns::of(Endpoint::new("http://name").weight(3));
        dns.diff(addresses(&[1, 2]));
        dns.diff(addresses(&[2, 3]));
        let name = |change| match change {
            Change::Insert(endpoint) => format!("+{} {:?}", endpoint.id, endpoint.weight),
            Change::Remove(id) => format!("-{id}"),
        };
        let changes: Vec<_> = dns.changes.into_iter().map(name).collect();
        let expected = [
            "+http://name at 10.0.0.1:80 Some(3)",
            "+http://name at 10.0.0.2:80 Some(3)",
            "+http://name at 10.0.0.3:80 Some(3)",
            "-http://name at 10.0.0.1:80",
        ];
        assert_eq!(changes, expected);
    }
}
