//! The extension module `flawtune._flawtune`: what the Python package calls. It turns arguments into the library's own types, lets go
//! of the interpreter while the library works, and turns errors into exceptions; what is pleasant about Python is written in Python.

// what the interpreter hands over is taken by value
#![allow(clippy::needless_pass_by_value)]

mod detector;
mod failure;
mod images;
mod interrupt;

use std::path::PathBuf;
use std::sync::Once;

use flawtune::workflow::{self, BackboneOptions, FeaturesRequest, Source};
use pyo3::prelude::*;

/// Images a forward pass where tokens are written.
const BATCH: usize = 8;

/// One pool for everything: a thread a core, as the binary has; hyper-threads do not help dense arithmetic.
fn start_threads() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let pool = rayon::ThreadPoolBuilder::new().thread_name(|i| format!("flawtune-{i}"));
        let asked = std::env::var_os("RAYON_NUM_THREADS").is_some();
        let pool = if asked {
            pool
        } else {
            pool.num_threads(num_cpus::get_physical().max(1))
        };
        // only a pool that somebody else made stands in the way, and that one does as well
        let _ = pool.build_global();
    });
}

/// Writes tokens of the images at `paths` to the safetensors file `output`.
#[pyfunction]
fn features(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    output: PathBuf,
    backbone: detector::BackboneArguments,
    on_event: Py<PyAny>,
) -> PyResult<()> {
    let request = FeaturesRequest {
        source: Source::Pictures(paths),
        backbone: backbone.set()?.over(BackboneOptions::default()),
        cache: None,
        batch_size: BATCH,
        skip_bad_images: false,
        output,
    };
    interrupt::run(py, &on_event, |on_event| {
        workflow::features(&request, on_event)
    })?;
    Ok(())
}

/// What the Python package is made of.
#[pymodule]
mod _flawtune {
    #[pymodule_export]
    use super::detector::Detector;
    #[pymodule_export]
    use super::detector::fit;
    #[pymodule_export]
    use super::features;
    #[pymodule_export]
    use super::images::png;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
