//! forebay-examples
