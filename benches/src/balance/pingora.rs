//! Pingora's choice of a backend, in builds with `--cfg forebay_pingora`.

/// Chooses once among so many backends, of the weights 3, 2, 1; `None`: this build is without pingora.
///
/// It is round robin by weight with a look at health: pingora has no choice by load ("TODO: least conn"), and
/// counts nothing that would have to be released.
///
/// # Panics
///
/// Pingora takes none of the backends.
#[must_use]
#[cfg(forebay_pingora)]
pub fn pingora_choice(endpoints: usize) -> Option<Box<dyn FnMut()>> {
    use std::collections::BTreeSet;

    use pingora_load_balancing::discovery::Static;
    use pingora_load_balancing::selection::RoundRobin;
    use pingora_load_balancing::{Backend, Backends, LoadBalancer};

    let backend = |i: usize| Backend::new_with_weight(&format!("10.0.{}.{}:80", i / 256, i % 256), [3, 2, 1][i % 3]);
    let backends: BTreeSet<Backend> = (0..endpoints).map(|i| backend(i).expect("an address")).collect();
    let balancer = LoadBalancer::<RoundRobin>::from_backends(Backends::new(Static::new(backends)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(balancer.update()).expect("a fixed list");
    Some(Box::new(move || {
        std::hint::black_box(balancer.select(b"", 256).expect("all are healthy"));
    }))
}

#[cfg(not(forebay_pingora))]
#[expect(missing_docs, reason = "above")]
#[must_use]
pub fn pingora_choice(_: usize) -> Option<Box<dyn FnMut()>> {
    None
}
