use crate::{Measured, Server, Target};

/// A proxy that is measured, or the name of one that is not installed.
#[derive(Debug)]
pub struct Proxy {
    /// What it is called in tables and figures.
    pub name: &'static str,
    /// Where it listens; `None`: it is not installed.
    pub target: Option<Target>,
    _server: Option<Server>,
}

impl Proxy {
    /// A process of its own, which ends with this.
    #[must_use]
    pub fn process(name: &'static str, server: Option<Server>) -> Self {
        let target = server.as_ref().map(|server| Target { address: server.address.clone(), pid: server.pid() });
        Self { name, target, _server: server }
    }

    /// Something that listens in this process.
    #[must_use]
    pub fn here(name: &'static str, address: String) -> Self {
        Self { name, target: Some(Target { address, pid: std::process::id() }), _server: None }
    }
}

/// What each makes of a load in all `rounds`, in turns: each round begins with another. The load knows its round.
pub async fn in_turns(
    proxies: &[Proxy],
    rounds: usize,
    load: impl AsyncFn(usize, &Target) -> Measured,
) -> Vec<Option<Measured>> {
    let mut sums: Vec<Option<Measured>> = proxies.iter().map(|_| None).collect();
    for round in 0..rounds {
        for turn in 0..proxies.len() {
            let which = (turn + round) % proxies.len();
            let Some(target) = &proxies[which].target else { continue };
            let measured = load(round, target).await;
            match &mut sums[which] {
                Some(sum) => sum.add(&measured),
                empty => *empty = Some(measured),
            }
        }
    }
    sums
}
