//! Plots as pixels: our own SVG, drawn by resvg with `DejaVu` Sans, which the program brings along so that every machine draws
//! the same. Letters that this font lacks (it has Latin, Greek, Cyrillic and more, no ideographs) stay blank.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::{Plot, Theme};

/// Pixels a side for each pixel of the drawing.
const SCALE: f32 = 2.0;
const FONT: &str = "DejaVu Sans";

/// Why a plot could not become a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The drawing itself: too large to be drawn in pixels.
    #[error("the plot cannot be drawn as PNG ({0})\nhint: save it as SVG")]
    Draw(String),
}

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family(FONT);
        Arc::new(fonts)
    };
    Arc::clone(FONTS.get_or_init(load))
}

/// An SVG drawn at `scale` pixels a unit.
///
/// # Errors
/// [`PlotError::Draw`] if it is not an SVG or too large.
pub(in crate::report) fn rasterise(svg: &str, scale: f32) -> Result<Pixmap, PlotError> {
    let failed = |what: &dyn std::fmt::Display| PlotError::Draw(what.to_string());
    let options = Options {
        font_family: FONT.to_owned(),
        fontdb: fonts(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|e| failed(&e))?;
    let side = |s: f32| (s * scale).ceil() as u32;
    let (width, height) = (side(tree.size().width()), side(tree.size().height()));
    let mut pixels =
        Pixmap::new(width, height).ok_or_else(|| failed(&format!("{width}×{height} pixels")))?;
    resvg::render(
        &tree,
        Transform::from_scale(scale, scale),
        &mut pixels.as_mut(),
    );
    Ok(pixels)
}

impl Plot {
    /// The drawing as a PNG file of twice its size in pixels.
    ///
    /// # Errors
    /// [`PlotError::Draw`] if it is too large.
    pub fn to_png(&self, theme: Theme) -> Result<Vec<u8>, PlotError> {
        // a file has no page to take colours from
        let theme = if theme == Theme::Page {
            Theme::Light
        } else {
            theme
        };
        let pixels = rasterise(&self.to_svg(theme), SCALE)?;
        pixels
            .encode_png()
            .map_err(|e| PlotError::Draw(e.to_string()))
    }

    /// Writes the drawing as PNG; the file appears whole or not at all.
    ///
    /// # Errors
    /// As [`Self::to_png`], and what the system says when the file cannot be written.
    pub fn save_png(&self, path: &Path, theme: Theme) -> Result<(), PlotError> {
        Ok(flawtune_backbone::atomic_file::write(
            path,
            &self.to_png(theme)?,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Chart, Line};
    use super::*;

    fn plot(title: &str) -> Plot {
        let line = Line::new("", vec![[0.0, 0.0], [1.0, 1.0]]);
        Plot::new(
            title,
            Axis::new("x"),
            Axis::new("y"),
            Chart::Lines {
                lines: vec![line],
                guides: vec![],
            },
        )
    }

    #[test]
    fn pixels_hold_lines_and_letters() {
        let pixels = |title: &str| {
            let png = plot(title).to_png(Theme::Light).unwrap();
            image::load_from_memory(&png).unwrap().to_rgb8()
        };
        let (plain, titled) = (pixels(""), pixels("Trainingsverlauf äöü ε"));
        assert_eq!(plain.dimensions().0, 1120);
        let dark = |image: &image::RgbImage| {
            // the title's row: nothing there without one
            image
                .rows()
                .take(70)
                .flatten()
                .filter(|p| p.0.iter().all(|v| *v < 100))
                .count()
        };
        assert_eq!(dark(&plain), 0);
        assert!(dark(&titled) > 300, "{} dark pixels", dark(&titled));
        // the line's colour, #2463c4
        assert!(plain.pixels().any(|p| p.0 == [0x24, 0x63, 0xc4]));
        assert_eq!(pixels("a"), pixels("a"));
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = plot("t")
            .save_png(&folder.path().join("no/p.png"), Theme::Dark)
            .unwrap_err();
        assert!(matches!(error, PlotError::Io(_)));
    }
}
