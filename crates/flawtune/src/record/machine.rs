//! What a run ran on.

use serde::{Deserialize, Serialize};

use crate::machine::{Machine, field};

/// The machine, as far as the system tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Operating system.
    pub os: String,
    /// Architecture the program was built for.
    pub arch: String,
    /// What the processor calls itself.
    pub cpu: Option<String>,
    /// Physical cores.
    pub physical_cores: usize,
    /// Memory in all.
    pub memory_bytes: Option<u64>,
    /// Instruction set of the kernels in use, see `FLAWTUNE_KERNELS`. No result depends on it.
    pub kernels: String,
}

impl MachineRecord {
    /// This machine.
    pub fn here() -> Self {
        let machine = Machine::here();
        Self {
            os: machine.system.to_owned(),
            arch: machine.architecture.to_owned(),
            cpu: machine.cpu,
            physical_cores: num_cpus::get_physical(),
            memory_bytes: kibibytes("/proc/meminfo", "MemTotal"),
            kernels: machine.kernels,
        }
    }
}

/// Most memory that this process has had resident so far; `None` where the system does not say.
pub fn peak_memory_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM")
}

/// A value such as `1234 kB`, in bytes.
fn kibibytes(path: &str, key: &str) -> Option<u64> {
    let value = field(path, key)?;
    let number: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_memory_in_bytes() {
        let (all, peak) = (
            MachineRecord::here().memory_bytes.unwrap(),
            peak_memory_bytes().unwrap(),
        );
        assert!(peak > 1 << 20 && peak < all, "{peak} of {all}");
        assert_eq!(all % 1024, 0);
    }
}
