//! What `visualize` drew, on the page.

use std::path::{Component, Path};

use super::super::Visualization;
use super::pictures::Pictures;
use flawtune::report::page::{Example, Gallery, Picture};

/// The panels, at most `most`.
pub(super) fn gallery(
    folder: &Path,
    found: &Visualization,
    pictures: &mut Pictures<'_>,
    most: usize,
) -> Gallery {
    let mut examples = Vec::new();
    for image in found.images.iter().take(most) {
        // a name from a file must not lead out of the folder
        let plain = image
            .panel
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
        let panel = if plain {
            pictures.whole("panel", &folder.join(&image.panel))
        } else {
            Picture {
                caption: "panel".to_owned(),
                ..Picture::default()
            }
        };
        let learned = if image.learned_from {
            "; the checkpoint learned from this image"
        } else {
            ""
        };
        examples.push(Example {
            path: image.path.display().to_string(),
            verdict: format!(
                "patch-bank score {:.4} → {:.4}{learned}",
                image.before.score, image.after.score
            ),
            score: None,
            pictures: vec![panel],
        });
    }
    Gallery {
        title: "Images before and after".to_owned(),
        note: format!(
            "Distances are multiples of what is usual for the {} support images in either model; Grad-CAM is of the patch-bank \
             score at block {}; scores here are those of the patch bank. docs/guides/visualize.md says what each tile shows.",
            found.support_images, found.block
        ),
        examples,
    }
}
