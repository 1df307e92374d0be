//! forebay-autoscale
