//! forebay-model-server
