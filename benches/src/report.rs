use serde_json::{Map, Value, json};

/// A goal, and whether the figure holds it.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// Collects figures and targets, and prints the closing line.
#[derive(Debug, Default)]
pub struct Report {
    figures: Map<String, Value>,
    targets: Vec<Value>,
}

impl Report {
    /// A figure.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// A figure with a goal, held or not.
    pub fn target(&mut self, name: &str, value: f64, goal: Goal) {
        let (text, holds) = match goal {
            Goal::AtLeast(least) => (format!(">= {least}"), value >= least),
            Goal::AtMost(most) => (format!("<= {most}"), value <= most),
        };
        println!("{name}: {value:.3} (goal {text}): {}", if holds { "holds" } else { "DOES NOT HOLD" });
        self.targets.push(json!({"name": name, "value": value, "goal": text, "holds": holds}));
    }

    /// Prints `RESULT {json}`.
    pub fn print(self) {
        println!("RESULT {}", json!({"figures": self.figures, "targets": self.targets}));
    }
}
