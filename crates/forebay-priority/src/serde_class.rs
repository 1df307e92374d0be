//! A class as its name, `p0` to `p15`.

use forebay_core::Class;
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
pub(crate) fn serialize<S: Serializer>(class: &Class, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class.as_str())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Class, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
