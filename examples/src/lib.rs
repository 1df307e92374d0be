//! One short program per layer, each usable as a starting point: see the `*.rs` files beside this package's manifest.
