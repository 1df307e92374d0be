//! Bodies that wrap other bodies: one that carries a guard, one a layer hands inward, one a layer may answer with.

mod guarded;
mod request;
mod response;

pub use guarded::{BodyGuard, Guarded};
pub use request::{Never, ReqBody};
pub use response::ResBody;
