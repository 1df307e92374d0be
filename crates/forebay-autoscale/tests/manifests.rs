//! The text of both autoscalers, and what they refuse to write.

use forebay_autoscale::manifests::Generator;
use forebay_autoscale::{Capacity, ScalePolicy};

const HEAD: &str = r#"apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: "model-server"
  namespace: "prod"
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: "model-server"
  minReplicas: 3
  maxReplicas: 20
  metrics:
"#;

const SEED: &str = r#"    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 70
    - type: External
      external:
        metric:
          name: forebay_autoscale_queued_requests
          selector:
            matchLabels:
              pool: default
        target:
          type: AverageValue
          averageValue: "50"
  behavior:
    scaleDown:
      policies:
        - type: Pods
          value: 1
          periodSeconds: 300
"#;

const DEMAND: &str = r#"    - type: External
      external:
        metric:
          name: forebay_autoscale_demand_requests
          selector:
            matchLabels:
              pool: default
        target:
          type: AverageValue
          averageValue: "5600m"
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
      selectPolicy: Max
      policies:
        - type: Pods
          value: 4
          periodSeconds: 15
        - type: Percent
          value: 100
          periodSeconds: 15
    scaleDown:
      stabilizationWindowSeconds: 300
      policies:
        - type: Pods
          value: 1
          periodSeconds: 300
"#;

#[test]
fn both_autoscalers_read_as_they_should() {
    let generator = Generator::new("model-server").namespace("prod");
    assert_eq!(generator.seed_hpa().unwrap(), format!("{HEAD}{SEED}"));
    let policy = ScalePolicy::builder().capacity(Capacity::slots(8)).build().unwrap();
    assert_eq!(generator.demand_hpa(&policy).unwrap(), format!("{HEAD}{DEMAND}"));
    let whole = ScalePolicy::builder().capacity(Capacity::slots(10)).build().unwrap();
    assert!(generator.demand_hpa(&whole).unwrap().contains("averageValue: \"7\"\n"));
}

#[test]
fn names_that_kubernetes_refuses_are_refused() {
    let long = "a".repeat(64);
    for bad in ["", "-a", "a-", "A", "a.b", "a b", "a\"b", "a\nb", "ä", long.as_str()] {
        assert!(Generator::new(bad).seed_hpa().is_err(), "{bad:?}");
        assert!(Generator::new("a").namespace(bad).demand_hpa(&ScalePolicy::default()).is_err(), "{bad:?}");
    }
    assert!(Generator::new("1").namespace(&long[1..]).seed_hpa().is_ok());
    let mut policy = ScalePolicy::default();
    policy.utilisation = f64::NAN;
    let error = Generator::new("A").namespace("B").demand_hpa(&policy).unwrap_err();
    assert_eq!(error.problems().len(), 3, "all at once: {error}");
}
