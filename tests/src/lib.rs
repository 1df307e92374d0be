//! Tests across crates, and with real servers and clients. The tests are in `tests/`; `tests/run` runs them all.

mod stack;

use std::path::PathBuf;
use std::process::Command;

pub use stack::Stack;

/// The folder with the SDK scripts.
#[must_use]
pub fn sdk() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk")
}

/// The official OpenAI Python SDK, running the script `check.py`.
///
/// # Panics
///
/// It is not installed: says how to install it.
#[must_use]
pub fn python_sdk() -> Command {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    assert!(python.exists(), "the OpenAI Python SDK is missing: run tests/run, which installs it into tests/.venv");
    let mut command = Command::new(python);
    command.arg(sdk().join("check.py"));
    command
}

/// The official OpenAI Node SDK, running the script `check.mjs`.
///
/// # Panics
///
/// It is not installed: says how to install it.
#[must_use]
pub fn node_sdk() -> Command {
    let installed = sdk().join("node_modules/openai").exists();
    assert!(installed, "the OpenAI Node SDK is missing: run tests/run, which installs it into tests/sdk");
    let mut command = Command::new("node");
    command.arg(sdk().join("check.mjs"));
    command
}
