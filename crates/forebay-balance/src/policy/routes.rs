use forebay_core::Class;

/// Where the requests of a class may go: to these pools in order, and then, as a guest, to others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    pub(crate) pools: Vec<usize>,
    pub(crate) guests: Vec<Guest>,
}

/// A pool that a class may borrow places of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) pool: usize,
    /// The most places that the class has there at once.
    pub(crate) at_most: u32,
    /// So many places stay free for those whose pool it is.
    pub(crate) keep: u64,
}

/// The routes of all classes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes(pub(crate) [Route; Class::COUNT]);

impl Routes {
    /// All classes to one pool.
    pub(crate) fn to_one_pool() -> Self {
        Self(std::array::from_fn(|_| Route { pools: vec![0], guests: Vec::new() }))
    }

    /// The first pool of a class.
    #[inline]
    pub(super) fn first(&self, class: Class) -> Option<usize> {
        self.0[class.index()].pools.first().copied()
    }

    /// The stations of a class, in order; with what it may do there as a guest.
    pub(super) fn of(&self, class: Class, at: usize) -> Option<(usize, Option<Guest>)> {
        let route = &self.0[class.index()];
        if let Some(pool) = route.pools.get(at) {
            return Some((*pool, None));
        }
        let guest = route.guests.get(at - route.pools.len())?;
        Some((guest.pool, Some(*guest)))
    }
}
