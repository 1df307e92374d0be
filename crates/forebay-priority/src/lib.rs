//! forebay-priority
