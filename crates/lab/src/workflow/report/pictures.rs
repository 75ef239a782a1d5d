//! Small images for the page: the tested images, and their overlays where `predict --maps` wrote some.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use flawtune_backbone::preprocess::{DecodeOptions, decode, read_file};
use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};

use super::super::WorkflowError;
use flawtune::dataset::{Dataset, Layout, Source, VisaSplit, own_outputs};
use flawtune::report::page::Picture;

/// Longest side of a thumbnail in pixels.
const SIDE: u32 = 160;
const QUALITY: u8 = 82;
const OVERLAY: &str = ".overlay.png";
/// All images of a page take at most this many bytes; those beyond are left out and counted.
pub(super) const MOST_BYTES: usize = 8 << 20;

/// Where the images of one category are, and what could not be shown.
pub(super) struct Pictures<'a> {
    category: String,
    /// Path by id, where the data set could be read.
    known: HashMap<String, PathBuf>,
    /// The data set's folder, to look in without the layout.
    root: Option<PathBuf>,
    overlays: HashMap<String, PathBuf>,
    /// Bytes that the page still has room for.
    room: &'a mut usize,
    missing: usize,
    first_missing: Option<String>,
    no_room: usize,
}

impl<'a> Pictures<'a> {
    /// Of a category; `root_dir` stands in for the root that the run recorded.
    pub(super) fn new(
        category: &str,
        recorded: Option<&Source>,
        root_dir: Option<&Path>,
        room: &'a mut usize,
    ) -> Self {
        let (layout, visa_split) = match recorded {
            Some(Source::Root {
                layout, visa_split, ..
            }) => (*layout, *visa_split),
            _ => (Layout::Auto, VisaSplit::default()),
        };
        let source = match root_dir {
            Some(root) => Some(Source::Root {
                root: root.to_owned(),
                layout,
                visa_split,
            }),
            None => recorded.cloned(),
        };
        let root = match &source {
            Some(Source::Root { root, .. }) => Some(root.clone()),
            _ => None,
        };
        // without it images are looked for by their ids; what is not found is named
        let dataset = source.and_then(|source| Dataset::open(&source, category, false).ok());
        let known = dataset
            .into_iter()
            .flat_map(|d| d.samples)
            .map(|s| (s.id, s.path))
            .collect();
        Self {
            category: category.to_owned(),
            known,
            root,
            overlays: HashMap::new(),
            room,
            missing: 0,
            first_missing: None,
            no_room: 0,
        }
    }

    /// Looks for overlays of `ids` in a folder of `predict --maps`. With `several` categories on the page an overlay must
    /// lie under its category's name.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) fn find_overlays(
        &mut self,
        folder: &Path,
        ids: &[String],
        several: bool,
    ) -> Result<(), WorkflowError> {
        let mut places: Vec<(String, PathBuf)> = Vec::new();
        for path in own_outputs(folder)? {
            let inside = path.strip_prefix(folder).ok().and_then(Path::to_str);
            let Some(place) = inside.and_then(|p| p.strip_suffix(OVERLAY)) else {
                continue;
            };
            places.push((place.replace('\\', "/"), path));
        }
        self.overlays = matched(&places, &self.category, ids, several);
        Ok(())
    }

    /// Whether there is an overlay of the image.
    pub(super) fn has_overlay(&self, id: &str) -> bool {
        self.overlays.contains_key(id)
    }

    /// Whether there are overlays at all.
    pub(super) fn any_overlay(&self) -> bool {
        !self.overlays.is_empty()
    }

    /// The image and its overlay, small; one that cannot be shown has an empty address and is counted.
    pub(super) fn of(&mut self, id: &str) -> Vec<Picture> {
        let image = if let Some(path) = self.path(id) {
            self.small("image", &path)
        } else {
            self.miss(format!("{id} was not found"));
            Picture {
                caption: "image".to_owned(),
                ..Picture::default()
            }
        };
        let overlay = self.overlays.get(id).cloned();
        let mut found = vec![image];
        found.extend(overlay.map(|path| self.small("map", &path)));
        found
    }

    /// A PNG file of the run's own as it is, if there is room.
    pub(super) fn whole(&mut self, caption: &str, path: &Path) -> Picture {
        match std::fs::read(path) {
            Ok(bytes) if bytes.len() <= *self.room => {
                *self.room -= bytes.len();
                return Picture::png(caption, &bytes);
            }
            Ok(_) => self.no_room += 1,
            Err(error) => self.miss(format!("{}: {error}", path.display())),
        }
        Picture {
            caption: caption.to_owned(),
            ..Picture::default()
        }
    }

    /// What the reader must be told about images that are not there.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = &self.first_missing {
            notes.push(format!(
                "{} images of {} are not shown, the first because {first}\nhint: name the root of the data set by `root_dir` if it has moved",
                self.missing, self.category
            ));
        }
        if self.no_room > 0 {
            notes.push(format!(
                "{} images of {} are left out: the images of a page take at most {} MiB.",
                self.no_room,
                self.category,
                MOST_BYTES >> 20
            ));
        }
        notes
    }

    fn miss(&mut self, why: String) {
        self.missing += 1;
        self.first_missing.get_or_insert(why);
    }

    fn path(&self, id: &str) -> Option<PathBuf> {
        if let Some(path) = self.known.get(id) {
            return Some(path.clone());
        }
        // an id from a file must not lead out of the data set
        if !Path::new(id)
            .components()
            .all(|c| matches!(c, Component::Normal(_)))
        {
            return None;
        }
        let root = self.root.as_ref()?;
        [root.join(&self.category).join(id), root.join(id)]
            .into_iter()
            .find(|p| p.is_file())
    }

    fn small(&mut self, caption: &str, path: &Path) -> Picture {
        match thumbnail(path) {
            Ok(bytes) if bytes.len() <= *self.room => {
                *self.room -= bytes.len();
                Picture::jpeg(caption, &bytes)
            }
            Ok(_) => {
                self.no_room += 1;
                Picture {
                    caption: caption.to_owned(),
                    ..Picture::default()
                }
            }
            Err(why) => {
                self.miss(why);
                Picture {
                    caption: caption.to_owned(),
                    ..Picture::default()
                }
            }
        }
    }
}

/// The image as a JPEG of at most [`SIDE`] pixels a side, or why not.
fn thumbnail(path: &Path) -> Result<Vec<u8>, String> {
    let options = DecodeOptions::default();
    let bytes = read_file(path, &options).map_err(|e| e.to_string())?;
    let image = decode(&bytes, path, &options).map_err(|e| e.to_string())?;
    let (width, height) = (image.width() as u32, image.height() as u32);
    let Some(image) = RgbImage::from_raw(width, height, image.pixels().to_vec()) else {
        return Err(format!("{}: has no pixels", path.display()));
    };
    let longest = width.max(height);
    let image = if longest > SIDE {
        let side = |s: u32| (u64::from(s) * u64::from(SIDE)).div_ceil(u64::from(longest)) as u32;
        imageops::thumbnail(&image, side(width).max(1), side(height).max(1))
    } else {
        image
    };
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, QUALITY)
        .encode_image(&image)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(out)
}

/// Which overlay belongs to which id. `predict` puts an overlay at the image's path below the folder it was given, so a
/// place may be a part of the id (the folder lay inside the category) or hold it (it lay above). A place that fits several
/// ids is left out.
fn matched(
    places: &[(String, PathBuf)],
    category: &str,
    ids: &[String],
    several: bool,
) -> HashMap<String, PathBuf> {
    let ends = |long: &str, short: &str| {
        long == short || (long.ends_with(short) && long[..long.len() - short.len()].ends_with('/'))
    };
    let mut found: HashMap<String, (usize, PathBuf)> = HashMap::new();
    for (place, path) in places {
        let fits = |id: &&String| {
            let whole = format!("{category}/{id}");
            ends(place, &whole) || (!several && (ends(place, id) || ends(id, place)))
        };
        let mut fitting = ids.iter().filter(fits);
        if let (Some(id), None) = (fitting.next(), fitting.next()) {
            // the longer the place, the surer
            let better = found
                .get(id)
                .is_none_or(|(length, _)| *length < place.len());
            if better {
                found.insert(id.clone(), (place.len(), path.clone()));
            }
        }
    }
    found
        .into_iter()
        .map(|(id, (_, path))| (id, path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn overlays_are_matched_by_their_paths_and_never_by_a_guess() {
        let ids: Vec<String> = ["test/hole/0.png", "test/good/0.png"]
            .map(str::to_owned)
            .to_vec();
        let of = |place: &str, several| {
            let places = [(place.to_owned(), PathBuf::from("x"))];
            let mut found: Vec<String> = matched(&places, "flange", &ids, several)
                .into_keys()
                .collect();
            found.sort();
            found
        };
        assert_eq!(of("hole/0.png", false), ["test/hole/0.png"]);
        assert_eq!(
            of("data/flange/test/good/0.png", false),
            ["test/good/0.png"]
        );
        assert_eq!(of("data/flange/test/good/0.png", true), ["test/good/0.png"]);
        assert!(of("0.png", false).is_empty(), "fits both");
        assert!(
            of("hole/0.png", true).is_empty(),
            "might be another category's"
        );
        assert!(of("le/0.png", false).is_empty());
    }

    #[test]
    fn thumbnails_are_small_and_what_is_missing_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let test = folder.path().join("c/test/hole");
        std::fs::create_dir_all(&test).unwrap();
        RgbImage::from_pixel(640, 20, Rgb([200, 10, 10]))
            .save(test.join("a.png"))
            .unwrap();
        std::fs::write(test.join("b.png"), "no image").unwrap();
        RgbImage::from_pixel(9, 9, Rgb([0; 3]))
            .save(folder.path().join("outside.png"))
            .unwrap();
        let mut room = MOST_BYTES;
        let mut pictures = Pictures::new("c", None, Some(folder.path()), &mut room);
        let shown = pictures.of("test/hole/a.png");
        assert!(shown[0].data_uri.starts_with("data:image/jpeg;base64,"));
        for id in ["test/hole/b.png", "test/hole/c.png", "../outside.png"] {
            assert_eq!(pictures.of(id)[0].data_uri, "", "{id}");
        }
        let notes = pictures.notes();
        assert!(
            notes[0].starts_with("3 images of c are not shown") && notes[0].contains("b.png"),
            "{notes:?}"
        );
        let jpeg = thumbnail(&test.join("a.png")).unwrap();
        let small = image::load_from_memory(&jpeg).unwrap();
        assert_eq!((small.width(), small.height()), (160, 5));
        let mut room = 10;
        let mut pictures = Pictures::new("c", None, Some(folder.path()), &mut room);
        assert_eq!(pictures.of("test/hole/a.png")[0].data_uri, "");
        assert!(pictures.notes()[0].contains("at most 8 MiB"));
    }
}
