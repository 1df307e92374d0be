//! The pure core: no I/O, no clock; `now` is unix time in milliseconds.

pub(crate) mod complete;
pub(crate) mod freshness;
pub(crate) mod key;
pub(crate) mod request;
