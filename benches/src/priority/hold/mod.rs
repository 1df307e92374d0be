//! The real layer over the grid of fleets, holds and loads that model servers have, in virtual time.

mod cell;
mod judge;
mod law;
mod picture;
mod run;

pub use cell::{Cell, Fleet, grid};
pub use judge::{Verdict, judge};
pub use law::{Arrivals, Law};
pub use picture::picture;
pub use run::{Outcome, run};
