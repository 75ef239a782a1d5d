//! The machine that a measurement or a run has.

use flawtune_kernels::dispatch;
use serde::Serialize;

/// Processor and instruction set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// What the processor calls itself; `null` where the system does not say.
    pub cpu: Option<String>,
    /// Architecture the program was built for.
    pub architecture: &'static str,
    /// Operating system.
    pub system: &'static str,
    /// Kernels in use, see `FLAWTUNE_KERNELS`.
    pub kernels: String,
    /// Logical processors that the process may use.
    pub processors: usize,
    /// Caches of the first processor, such as `L2 1024K`; empty where the system does not say.
    pub caches: Vec<String>,
}

impl Machine {
    /// This machine, as far as the system tells.
    pub fn here() -> Self {
        Self {
            cpu: field("/proc/cpuinfo", "model name"),
            architecture: std::env::consts::ARCH,
            system: std::env::consts::OS,
            kernels: dispatch::isa().map_or_else(|e| e.to_string(), |isa| isa.to_string()),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            caches: caches(),
        }
    }
}

/// Memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// Most that was resident at once, in MiB; `null` where the system does not say.
    pub peak_resident_mib: Option<f64>,
}

impl Memory {
    /// So far.
    pub fn here() -> Self {
        let kib = field("/proc/self/status", "VmHWM").and_then(|v| {
            v.split_whitespace()
                .next()
                .and_then(|n| n.parse::<f64>().ok())
        });
        Self {
            peak_resident_mib: kib.map(|k| k / 1024.0),
        }
    }
}

/// The first value of `key` in a file of `key: value` lines.
pub fn field(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == key))?;
    Some(line.1.trim().to_owned())
}

fn caches() -> Vec<String> {
    let read = |index: usize, name: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
        std::fs::read_to_string(path)
            .ok()
            .map(|t| t.trim().to_owned())
    };
    (0..8)
        .map_while(|i| Some((read(i, "level")?, read(i, "type")?, read(i, "size")?)))
        .filter(|(_, kind, _)| kind != "Instruction")
        .map(|(level, _, size)| format!("L{level} {size}"))
        .collect()
}
