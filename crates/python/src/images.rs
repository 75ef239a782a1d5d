//! Images as Python gives them.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use flawtune::Image;
use flawtune_backbone::preprocess::{DecodeOptions, ImageError, decode, read_file};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use numpy::{PyReadonlyArray3, PyUntypedArrayMethods as _};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// An image that Python gave.
#[derive(FromPyObject)]
pub(crate) enum Given<'py> {
    /// Red, green and blue: `[height, width, 3]`.
    Pixels(PyReadonlyArray3<'py, u8>),
    /// An encoded image.
    Bytes(Bound<'py, PyBytes>),
    /// A file.
    Path(PathBuf),
}

/// The same without the interpreter.
pub(crate) enum Taken {
    Pixels(Image),
    Bytes(Vec<u8>),
    Path(PathBuf),
}

impl Given<'_> {
    /// Takes the pixels out of the interpreter's hands.
    pub(crate) fn take(self) -> PyResult<Taken> {
        Ok(match self {
            Self::Pixels(array) => {
                let &[height, width, channels] = array.shape() else {
                    return Err(PyValueError::new_err("an image has three dimensions here"));
                };
                if channels != 3 || height == 0 || width == 0 {
                    return Err(PyValueError::new_err(format!(
                        "found an array of {height}×{width}×{channels}, wanted height×width×3"
                    )));
                }
                let pixels = match array.as_slice() {
                    Ok(pixels) if array.is_c_contiguous() => pixels.to_vec(),
                    _ => array.as_array().iter().copied().collect(),
                };
                Taken::Pixels(Image::from_pixels(height, width, pixels))
            }
            Self::Bytes(bytes) => Taken::Bytes(bytes.as_bytes().to_vec()),
            Self::Path(path) => Taken::Path(path),
        })
    }
}

impl Taken {
    /// The pixels. An image without a file is called by its `position`.
    pub(crate) fn image(
        self,
        position: usize,
        decoding: &DecodeOptions,
    ) -> Result<Image, ImageError> {
        match self {
            Self::Pixels(image) => Ok(image),
            Self::Bytes(bytes) => decode(&bytes, Path::new(&format!("image {position}")), decoding),
            Self::Path(path) => decode(&read_file(&path, decoding)?, &path, decoding),
        }
    }
}

/// Pixels of 8 or 16 bits a channel.
#[derive(FromPyObject)]
enum Depth<'py> {
    Eight(PyReadonlyArray3<'py, u8>),
    Sixteen(PyReadonlyArray3<'py, u16>),
}

/// The array `[height, width, channels]` of one, three or four channels of 8 or 16 bits as a PNG.
#[pyfunction]
pub(crate) fn png<'py>(
    py: Python<'py>,
    array: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let depth: Depth<'py> = array.extract()?;
    let (shape, bytes, deep) = match &depth {
        Depth::Eight(a) => (
            a.shape(),
            a.as_array().iter().copied().collect::<Vec<u8>>(),
            false,
        ),
        // the encoder takes them as this machine stores them
        Depth::Sixteen(a) => {
            let values = a.as_array();
            let bytes = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
            (a.shape(), bytes, true)
        }
    };
    let &[height, width, channels] = shape else {
        return Err(PyValueError::new_err("an image has three dimensions here"));
    };
    let colours = match (channels, deep) {
        (1, false) => ExtendedColorType::L8,
        (3, false) => ExtendedColorType::Rgb8,
        (4, false) => ExtendedColorType::Rgba8,
        (1, true) => ExtendedColorType::L16,
        (3, true) => ExtendedColorType::Rgb16,
        (4, true) => ExtendedColorType::Rgba16,
        _ => {
            return Err(PyValueError::new_err(format!(
                "found {channels} channels, wanted 1 (grey), 3 (red, green, blue) or 4 (with alpha)"
            )));
        }
    };
    encoded(&bytes, (height, width), colours).map(|png| PyBytes::new(py, &png))
}

/// A PNG that is made fast rather than small.
pub(crate) fn encoded(
    bytes: &[u8],
    (height, width): (usize, usize),
    colours: ExtendedColorType,
) -> PyResult<Vec<u8>> {
    let mut out = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive)
        .write_image(bytes, width as u32, height as u32, colours)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(out.into_inner())
}
