//! Maps and overlays of images, as files.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use flawtune::bundle::MapScale;
use flawtune::report::overlay::{self, Scale, Style};
use flawtune::score::map::{write_npy, write_tiff};
use flawtune::workflow::{Predicted, WorkflowError};
use image::RgbImage;
use image::imageops::thumbnail;

use crate::args::MapFormatArg;

/// Where maps and overlays go.
pub(in crate::commands) struct Maps<'a> {
    pub(in crate::commands) folder: &'a Path,
    pub(in crate::commands) format: MapFormatArg,
    pub(in crate::commands) scale: &'a MapScale,
    /// The one input, where it is a folder: maps lie below `folder` as images lie below it.
    pub(in crate::commands) root: Option<PathBuf>,
}

impl Maps<'_> {
    /// Writes `<image>.tiff` or `.npy`, and `<image>.overlay.png`.
    pub(in crate::commands) fn write(&self, p: &Predicted) -> Result<(), WorkflowError> {
        self.write_as(&p.path, p)
    }

    /// As [`Self::write`], as of an image at `path`.
    pub(in crate::commands) fn write_as(
        &self,
        path: &Path,
        p: &Predicted,
    ) -> Result<(), WorkflowError> {
        let (Some(map), Some(picture)) = (&p.prediction.map, &p.picture) else {
            return Ok(());
        };
        let place = self.place(path);
        let folder = place.parent().unwrap_or(self.folder);
        std::fs::create_dir_all(folder).map_err(|source| WorkflowError::Io {
            path: folder.to_owned(),
            source,
            hint: "choose a folder that can be written with --maps",
        })?;
        let with = |ending: &str| {
            let mut name = place.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        match self.format {
            MapFormatArg::Tiff => write_tiff(map, &with(".tiff"))?,
            MapFormatArg::Npy => write_npy(map, &with(".npy"))?,
        }
        let (width, height) = (picture.width() as u32, picture.height() as u32);
        let Some(mut picture) = RgbImage::from_raw(width, height, picture.pixels().to_vec()) else {
            return Ok(());
        };
        let (from, to) = (
            (height as usize, width as usize),
            (map.height(), map.width()),
        );
        if from != to {
            picture = thumbnail(&picture, to.1 as u32, to.0 as u32);
        }
        let scale = Scale {
            low: self.scale.low,
            high: self.scale.high,
        };
        let region = p.prediction.regions.first().map(|r| r.scaled(from, to));
        let drawn = overlay::overlay(
            &picture,
            map,
            scale,
            Some(self.scale.threshold),
            region.as_ref(),
            Style::default(),
        )?;
        Ok(overlay::write_png(&drawn, &with(".overlay.png"))?)
    }

    /// The place of an image's maps.
    fn place(&self, path: &Path) -> PathBuf {
        place_below(self.folder, self.root.as_deref(), path)
    }
}

/// The place of an image below `folder`: by its path in the folder that was named, or by the path it was given by.
pub(in crate::commands) fn place_below(folder: &Path, root: Option<&Path>, path: &Path) -> PathBuf {
    let inside = root
        .and_then(|root| path.strip_prefix(root).ok())
        .unwrap_or(path);
    let parts = inside.components().filter_map(|c| match c {
        Component::Normal(part) => Some(short(part)),
        Component::ParentDir => Some("__".into()),
        _ => None,
    });
    folder.join(parts.collect::<PathBuf>())
}

/// Bytes that a name may have, so that there is room for an ending: 255 are the most in nearly every file system.
const LONGEST: usize = 220;

/// A name, or if it is too long its first part and a number that stands for all of it.
fn short(name: &OsStr) -> OsString {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let name = name.to_string_lossy();
    // FNV-1a
    let number = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut first = String::new();
    for c in name.chars() {
        if first.len() + c.len_utf8() > LONGEST - 17 {
            break;
        }
        first.push(c);
    }
    format!("{first}~{number:016x}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_has_a_place_below_the_folder() {
        let scale = MapScale {
            sigma: 4.0,
            threshold: 0.5,
            low: 0.0,
            high: 1.0,
            good_peaks: Vec::new(),
        };
        let maps = Maps {
            folder: Path::new("maps"),
            format: MapFormatArg::Npy,
            scale: &scale,
            root: Some(PathBuf::from("in/parts")),
        };
        let place = |path: &str| maps.place(Path::new(path));
        assert_eq!(place("in/parts/a/1.png"), Path::new("maps/a/1.png"));
        assert_eq!(place("x/1.png"), Path::new("maps/x/1.png"));
        assert_eq!(place("/x/1.png"), Path::new("maps/x/1.png"));
        assert_eq!(place("../1.png"), Path::new("maps/__/1.png"));
        let long = place(&format!("{}1.png", "ä".repeat(125)));
        let other = place(&format!("{}2.png", "ä".repeat(125)));
        assert!(
            long.as_os_str().len() <= 5 + LONGEST && long != other,
            "{long:?}"
        );
    }
}
