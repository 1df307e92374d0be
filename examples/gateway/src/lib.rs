//! forebay-gateway
