//! Anomaly maps as files: 32-bit float TIFF and `NumPy`'s NPY.

use std::io::{Error as IoError, Write};
use std::path::Path;

use flawtune_backbone::atomic_file::AtomicFile;
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::Gray32Float;

use super::{AnomalyMap, MapError};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Never half a map under its name.
fn replace(
    path: &Path,
    fill: impl FnOnce(&mut AtomicFile) -> Result<(), Cause>,
) -> Result<(), MapError> {
    let attempt = || -> Result<(), Cause> {
        let mut file = AtomicFile::create(path)?;
        fill(&mut file)?;
        Ok(file.commit()?)
    };
    attempt().map_err(|source| MapError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes `map` as a `NumPy` file: version 1.0, `<f4`, shape `(height, width)`, C order.
///
/// # Errors
/// [`MapError::Write`] with the path and the cause.
pub fn write_npy(map: &AnomalyMap, path: &Path) -> Result<(), MapError> {
    replace(path, |out| {
        let (height, width) = (map.height(), map.width());
        let mut header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}), }}");
        // magic, version and length take 10 bytes; data starts at a multiple of 64, after a newline
        let padding = 64 - (10 + header.len() + 1) % 64;
        header.extend(std::iter::repeat_n(' ', padding % 64));
        header.push('\n');
        out.write_all(b"\x93NUMPY\x01\x00")?;
        out.write_all(
            &u16::try_from(header.len())
                .map_err(IoError::other)?
                .to_le_bytes(),
        )?;
        out.write_all(header.as_bytes())?;
        for v in map.values() {
            out.write_all(&v.to_le_bytes())?;
        }
        Ok(())
    })
}

/// Writes `map` as an uncompressed TIFF of one 32-bit float channel.
///
/// # Errors
/// [`MapError::Write`] with the path and the cause.
pub fn write_tiff(map: &AnomalyMap, path: &Path) -> Result<(), MapError> {
    replace(path, |out| {
        let (width, height) = (u32::try_from(map.width())?, u32::try_from(map.height())?);
        TiffEncoder::new(out)?.write_image::<Gray32Float>(width, height, map.values())?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> AnomalyMap {
        AnomalyMap::new(2, 3, vec![0.0, -1.5, 1e-30, f32::MAX, 0.1, 3.0]).unwrap()
    }

    #[test]
    fn npy_is_numpys_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.npy");
        write_npy(&map(), &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // the bytes numpy 2.4 writes for the same array with numpy.save
        let header =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!(&bytes[..header.len()], header);
        assert_eq!((bytes.len(), bytes[127]), (128 + 24, b'\n'));
        assert!(bytes[header.len()..127].iter().all(|b| *b == b' '));
        let data: Vec<f32> = bytes[128..]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert_eq!(data, map().values());
    }

    #[test]
    fn tiff_reads_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.tiff");
        write_tiff(&map(), &path).unwrap();
        let mut decoder = tiff::decoder::Decoder::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(decoder.dimensions().unwrap(), (3, 2));
        assert_eq!(decoder.colortype().unwrap(), tiff::ColorType::Gray(32));
        let tiff::decoder::DecodingResult::F32(data) = decoder.read_image().unwrap() else {
            panic!("not 32-bit float");
        };
        assert_eq!(data, map().values());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_npy(&map(), Path::new("/nonexistent/folder/m.npy"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/folder/m.npy"), "{error}");
    }
}
