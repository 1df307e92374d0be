//! The dependency rule: layer crates see `forebay-core` and never each other; what is light stays light.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, as it runs this test");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

#[test]
fn layers_depend_on_core_and_never_on_each_other() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps"])).expect("JSON");
    let mut layers = 0;
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let manifest = package["manifest_path"].as_str().expect("a path");
        if name == "forebay" || !manifest.contains("/crates/") {
            continue;
        }
        layers += 1;
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let other = dependency["name"].as_str().expect("a name");
            let ours = other.starts_with("forebay") && other != "forebay-core" && other != name;
            assert!(!ours, "{name} depends on {other}: layers cooperate through forebay-core only");
        }
    }
    assert_eq!(layers, 6, "core and five layers");
}

#[test]
fn a_light_layer_stays_light() {
    let tree = cargo(&["tree", "-e", "normal", "-p", "forebay-priority", "--prefix", "none"]);
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(crates.len() <= 40, "forebay-priority has grown to {} crates: {crates:?}", crates.len());
}

#[test]
fn nothing_builds_openssl_or_aws_lc() {
    let tree = cargo(&["tree", "--workspace", "--all-features", "--prefix", "none"]);
    for heavy in ["aws-lc-sys", "openssl-sys", "openssl ", "native-tls", "bincode"] {
        assert!(!tree.lines().any(|line| line.starts_with(heavy)), "{heavy} is in the tree");
    }
}
