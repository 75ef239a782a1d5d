//! Which instruction set runs: chosen once, at the first use.
//!
//! The choice is the widest that the machine has; `FLAWTUNE_KERNELS=scalar|avx2|avx512|neon` forces another.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::kernels::{self, Kernels};

/// The environment variable that forces an instruction set.
pub const VARIABLE: &str = "FLAWTUNE_KERNELS";

/// An instruction set that kernels exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Portable code, no vector instructions assumed.
    Scalar,
    /// AVX2 and FMA on x86-64.
    Avx2,
    /// AVX-512 F on x86-64.
    Avx512,
    /// NEON on aarch64.
    Neon,
}

impl Isa {
    /// Every instruction set, narrowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Neon];

    /// The name `FLAWTUNE_KERNELS` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// Those this machine can run, narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.kernels().is_some())
    }

    /// Its kernels, if this machine can run them.
    pub(crate) fn kernels(self) -> Option<&'static Kernels> {
        match self {
            Self::Scalar => Some(&kernels::SCALAR),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => (std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma"))
            .then_some(&kernels::AVX2),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f").then_some(&kernels::AVX512)
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Some(&kernels::NEON),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = UnavailableIsa;
    fn from_str(name: &str) -> Result<Self, UnavailableIsa> {
        Self::available()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| UnavailableIsa {
                wanted: name.to_owned(),
            })
    }
}

/// `FLAWTUNE_KERNELS` names an instruction set that does not exist or that this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnavailableIsa {
    /// What the variable says.
    pub wanted: String,
}

impl fmt::Display for UnavailableIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Isa::available().map(Isa::name).collect();
        write!(
            f,
            "{VARIABLE}={} cannot be used here: this machine has {}\nhint: set it to one of these or unset it",
            self.wanted,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnavailableIsa {}

fn widest() -> Isa {
    Isa::available().last().unwrap_or(Isa::Scalar)
}

fn choice() -> &'static Result<Isa, UnavailableIsa> {
    static CHOICE: OnceLock<Result<Isa, UnavailableIsa>> = OnceLock::new();
    CHOICE.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(name) if !name.is_empty() => name.parse(),
        _ => Ok(widest()),
    })
}

/// The instruction set that the kernels use.
///
/// # Errors
/// If `FLAWTUNE_KERNELS` names one that this machine lacks. Programs should call this once at start and show
/// the message; kernels called in spite of it use the widest set available.
pub fn isa() -> Result<Isa, UnavailableIsa> {
    choice().clone()
}

/// The kernels in use.
pub(crate) fn active() -> &'static Kernels {
    let isa = choice().as_ref().map_or_else(|_| widest(), |isa| *isa);
    isa.kernels().unwrap_or(&kernels::SCALAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_what_is_available() {
        let error = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(
            error.starts_with("FLAWTUNE_KERNELS=sse9 cannot be used here"),
            "{error}"
        );
        assert!(error.contains("scalar"), "{error}");
        assert_eq!("scalar".parse(), Ok(Isa::Scalar));
    }
}
