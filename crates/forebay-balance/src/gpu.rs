/// The weights of GPUs by name.
///
/// A GPU is found by the longest of the names that its own contains, whatever the case: `"T4"` in `"Tesla T4"`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct GpuTable(Vec<(String, u16)>);

impl Default for GpuTable {
    fn default() -> Self {
        Self::seed()
    }
}

impl GpuTable {
    /// V100 3, T4 2, P4 1. The default.
    pub fn seed() -> Self {
        Self(Vec::new()).with("V100", 3).with("T4", 2).with("P4", 1)
    }

    /// By memory bandwidth in units of 100 GB/s, as it bounds the decoding of tokens: P4 2, T4 3, L4 3, A10 6, V100 9,
    /// L40S 9, A100-40 16, A100-80 20, H100 34, H200 48. Rounded from NVIDIA's data sheets; check them for your models.
    pub fn by_bandwidth() -> Self {
        const GBPS_100: [(&str, u16); 12] = [
            ("P4", 2),
            ("T4", 3),
            ("L4", 3),
            ("A10", 6),
            ("V100", 9),
            ("L40S", 9),
            ("A100", 16),
            ("A100-40", 16),
            ("A100-80", 20),
            ("A100-SXM4-80", 20),
            ("H100", 34),
            ("H200", 48),
        ];
        GBPS_100.into_iter().fold(Self(Vec::new()), |table, (gpu, weight)| table.with(gpu, weight))
    }

    /// Adds a GPU, or changes its weight.
    pub fn with(mut self, gpu: impl Into<String>, weight: u16) -> Self {
        let gpu = gpu.into().to_ascii_uppercase();
        self.0.retain(|(known, _)| *known != gpu);
        self.0.push((gpu, weight));
        self
    }

    /// The weight of a GPU; `None`: it is not in the table.
    #[must_use]
    pub fn weight(&self, gpu: &str) -> Option<u16> {
        let gpu = gpu.to_ascii_uppercase();
        let known = self.0.iter().filter(|(known, _)| gpu.contains(known.as_str()));
        known.max_by_key(|(known, _)| known.len()).map(|(_, weight)| *weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r14_the_longest_name_decides() {
        let table = GpuTable::seed().with("L40S", 9).with("L4", 3).with("t4", 5);
        assert_eq!(table.weight("Tesla V100-SXM2-16GB"), Some(3));
        assert_eq!(table.weight("NVIDIA L40S"), Some(9), "not that of the L4");
        assert_eq!(table.weight("tesla t4"), Some(5), "changed");
        assert_eq!(table.weight("MI300X"), None);
        assert_eq!(GpuTable::by_bandwidth().weight("NVIDIA A100-SXM4-80GB"), Some(20));
        assert_eq!(GpuTable::by_bandwidth().weight("A100-SXM4-40GB"), Some(16));
    }
}
