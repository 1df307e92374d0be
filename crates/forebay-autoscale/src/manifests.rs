//! Kubernetes manifests as text (feature `manifests`).
//!
//! [`seed_hpa`](Generator::seed_hpa) scales on CPU and the length of the queue, 50 a replica. **It is a poor signal for
//! GPU services:** with an empty queue the autoscaler computes `ceil(0 / 50)` and goes to `minReplicas` whatever the
//! load, unless CPU holds it up, which says little about a GPU. It is here to start from and to compare with. Prefer
//! [`demand_hpa`](Generator::demand_hpa): queued *and* in flight, over what a replica should serve at once.
//!
//! Both read an external metric that must be the total over all gateways, hence `AverageValue`; with Prometheus, an
//! adapter serves it as a `sum`. Neither sets `spec.replicas` anywhere.
//!
//! ```
//! use forebay_autoscale::{Capacity, ScalePolicy, manifests::Generator};
//!
//! let policy = ScalePolicy::builder().capacity(Capacity::slots(8)).build()?;
//! let yaml = Generator::new("model-server").namespace("prod").demand_hpa(&policy)?;
//! assert!(yaml.contains("averageValue: \"5600m\"")); // 8 seats at 0.70
//! # Ok::<_, forebay_core::ConfigError>(())
//! ```

use std::fmt::Write as _;

use forebay_core::ConfigError;

use crate::ScalePolicy;

/// Writes HorizontalPodAutoscalers (`autoscaling/v2`) for one Deployment.
#[derive(Debug, Clone)]
#[must_use]
pub struct Generator {
    deployment: String,
    namespace: Option<String>,
}

impl Generator {
    /// For the Deployment of this name; the HPA gets the same.
    pub fn new(deployment: impl Into<String>) -> Self {
        Self { deployment: deployment.into(), namespace: None }
    }

    /// The namespace; without it, that of whoever applies the text.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The seed's HPA, exactly: 3 to 20 replicas, CPU at 70 %, a queue of 50 a replica, in by 1 pod per 300 s.
    ///
    /// # Errors
    ///
    /// Names that Kubernetes would refuse.
    pub fn seed_hpa(&self) -> Result<String, ConfigError> {
        let mut yaml = self.head(3, 20)?;
        yaml.push_str(concat!(
            "    - type: Resource\n      resource:\n        name: cpu\n        target:\n",
            "          type: Utilization\n          averageUtilization: 70\n",
        ));
        external(&mut yaml, "forebay_autoscale_queued_requests", "50");
        yaml.push_str(concat!(
            "  behavior:\n    scaleDown:\n      policies:\n",
            "        - type: Pods\n          value: 1\n          periodSeconds: 300\n",
        ));
        Ok(yaml)
    }

    /// An HPA on demand: `AverageValue` = capacity · utilisation, bounds and rate limits of the policy.
    ///
    /// # Errors
    ///
    /// Names that Kubernetes would refuse, or a policy out of its ranges.
    pub fn demand_hpa(&self, policy: &ScalePolicy) -> Result<String, ConfigError> {
        let problems = policy.problems();
        let head = self.head(policy.min.max(1), policy.max);
        ConfigError::check(
            head.as_ref().err().map_or(&[][..], ConfigError::problems).iter().cloned().chain(problems).collect(),
        )?;
        let mut yaml = head?;
        // At least a thousandth: Kubernetes refuses a target of 0.
        let milli = (f64::from(policy.capacity.seats()) * policy.utilisation * 1000.0).round().max(1.0) as u64;
        let quantity = if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") };
        external(&mut yaml, "forebay_autoscale_demand_requests", &quantity);
        let (up, down) = (policy.up, policy.down);
        yaml.push_str("  behavior:\n    scaleUp:\n      stabilizationWindowSeconds: 0\n      selectPolicy: Max\n      policies:\n");
        for (kind, value) in [("Pods", up.pods), ("Percent", up.percent)] {
            if value > 0 {
                rate(&mut yaml, kind, value, up.period.as_secs());
            }
        }
        let window = down.window.as_secs();
        let _ = write!(yaml, "    scaleDown:\n      stabilizationWindowSeconds: {window}\n      policies:\n");
        rate(&mut yaml, "Pods", down.pods, down.period.as_secs());
        Ok(yaml)
    }

    fn head(&self, min: u32, max: u32) -> Result<String, ConfigError> {
        let mut problems = Vec::new();
        for (field, name) in [("deployment", Some(&self.deployment)), ("namespace", self.namespace.as_ref())] {
            if let Some(name) = name.filter(|name| !is_label(name)) {
                problems
                    .push(format!("{field} is {name:?}: 1 to 63 of a-z, 0-9 and '-', no '-' at the ends (DNS-1123)"));
            }
        }
        ConfigError::check(problems)?;
        let name = &self.deployment;
        // Quoted: a label of digits would else be a number, `null` nothing and `on` a boolean.
        let namespace = self.namespace.as_ref().map_or_else(String::new, |space| format!("  namespace: \"{space}\"\n"));
        Ok(format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: \"{name}\"\n{namespace}spec:\n  \
             scaleTargetRef:\n    apiVersion: apps/v1\n    kind: Deployment\n    name: \"{name}\"\n  \
             minReplicas: {min}\n  maxReplicas: {max}\n  metrics:\n"
        ))
    }
}

fn external(yaml: &mut String, metric: &str, average: &str) {
    let _ = write!(
        yaml,
        "    - type: External\n      external:\n        metric:\n          name: {metric}\n          selector:\n            \
         matchLabels:\n              pool: default\n        target:\n          type: AverageValue\n          \
         averageValue: \"{average}\"\n"
    );
}

fn rate(yaml: &mut String, kind: &str, value: u32, seconds: u64) {
    let _ = write!(yaml, "        - type: {kind}\n          value: {value}\n          periodSeconds: {seconds}\n");
}

/// A label of RFC 1123: what both names may be.
fn is_label(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().copied().is_some_and(fine)
        && bytes.last().copied().is_some_and(fine)
        && bytes.iter().all(|byte| fine(*byte) || *byte == b'-')
}
