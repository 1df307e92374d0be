//! What the benchmarks of forebay-priority share: a backend, callers, and the stacks that stand before it.

mod backend;
mod callers;
mod draw;
mod echo;
pub mod fleets;
mod frames;
pub mod hold;
mod least;
mod random;
mod stacks;

pub use backend::{Backend, HOLD, Hold, SEATS, Spent};
pub use callers::{Load, PATIENCE, Tally, offer};
pub use draw::{Line, draw};
pub use echo::{Echo, classed};
pub use frames::{Frames, Live};
pub use least::{Least, LeastFuture, Place};
pub use random::Random;
pub use stacks::{Clock, Entrance, Stack, overload_stacks};
