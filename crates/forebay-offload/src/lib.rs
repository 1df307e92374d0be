//! forebay-offload
