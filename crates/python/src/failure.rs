//! Errors of the library as exceptions.

use std::error::Error;
use std::io;

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyPermissionError, PyValueError};

/// `OSError` and its kinds where a file or a folder failed, `ValueError` for any other wrong input; the text is the library's, with
/// what to do about it in a line that begins with `hint:`.
pub(crate) fn exception(error: &(dyn Error + 'static)) -> PyErr {
    let text = error.to_string();
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(failed) = error.downcast_ref::<io::Error>() {
            return match failed.kind() {
                io::ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
                io::ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
                _ => PyOSError::new_err(text),
            };
        }
        at = error.source();
    }
    PyValueError::new_err(text)
}
