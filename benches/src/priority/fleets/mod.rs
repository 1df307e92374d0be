//! Two fleets in real time: the same streams, at twice the load that fits, through the gateway, HAProxy and smg.

mod compare;
mod fleet;
mod load;
mod outcome;
mod proxies;
mod table;

pub use compare::compare;
