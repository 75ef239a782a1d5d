//! What was not taken as it lay there: counted, with examples, never passed over in silence.

use serde::{Deserialize, Serialize};

/// Examples kept of each oddity.
const EXAMPLES: usize = 3;

/// What can be odd about a file that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Oddity {
    /// The same content as an image that counts already, with the same label.
    Twin,
    /// One content under two labels.
    TwoLabels,
    /// An image of a format that is not read.
    UnreadFormat,
    /// Above or beside the folders that say what an image is.
    Unlabelled,
    /// A name that is not UTF-8.
    NotUtf8,
    /// A map or overlay that this program wrote.
    OwnOutput,
    /// A mask that belongs to no image.
    MaskWithoutImage,
    /// A mask whose shape is not that of its image, pulled to it.
    MaskStretched,
    /// A mask drawn on the upright image, of an image that is stored turned.
    MaskTurned,
    /// A mask stored with loss: half of its maximum decides.
    MaskLossy,
    /// An EXIF orientation that is not followed.
    OrientationIgnored,
    /// 16-bit data that use a small part of the range.
    NarrowDepth,
    /// An image of which a centre crop leaves parts out.
    Cropped,
    /// An image of another shape than the good images, whose shape is kept.
    Stretched,
    /// A good image that the user took out.
    Excluded,
    /// An image that cannot be read.
    Unreadable,
}

impl Oddity {
    /// What happened to one (`true`) or to several, after their number.
    fn says(self, one: bool) -> &'static str {
        match (self, one) {
            (Self::Twin, true) => "image has the content of another one and counts once with it",
            (Self::Twin, false) => "images have the content of others and count once with them",
            (Self::TwoLabels, true) => {
                "image has the content of one with another label, and is left out"
            }
            (Self::TwoLabels, false) => {
                "images have the content of others with another label, and are left out"
            }
            (Self::UnreadFormat, true) => "image is of a format that is not read, and is left out",
            (Self::UnreadFormat, false) => {
                "images are of formats that are not read, and are left out"
            }
            (Self::Unlabelled, true) => {
                "image lies outside of the folders of the layout, so that its label is not known, and is left out"
            }
            (Self::Unlabelled, false) => {
                "images lie outside of the folders of the layout, so that their label is not known, and are left out"
            }
            (Self::NotUtf8, true) => "name is not UTF-8, and its file is left out",
            (Self::NotUtf8, false) => "names are not UTF-8, and their files are left out",
            (Self::OwnOutput, true) => {
                "file is a map or an overlay that flawtune wrote, and is left out"
            }
            (Self::OwnOutput, false) => {
                "files are maps or overlays that flawtune wrote, and are left out"
            }
            (Self::MaskWithoutImage, true) => {
                "mask belongs to no image and is not used (a mask is called <image>_mask.png)"
            }
            (Self::MaskWithoutImage, false) => {
                "masks belong to no image and are not used (a mask is called <image>_mask.png)"
            }
            (Self::MaskStretched, true) => {
                "mask has another shape than its image and is pulled to it"
            }
            (Self::MaskStretched, false) => {
                "masks have another shape than their images and are pulled to them"
            }
            (Self::MaskTurned, true) => {
                "mask lies upright while its image is stored turned, and is turned with it"
            }
            (Self::MaskTurned, false) => {
                "masks lie upright while their images are stored turned, and are turned with them"
            }
            (Self::MaskLossy, true) => {
                "mask is a JPEG: what reaches half of its maximum counts as flaw"
            }
            (Self::MaskLossy, false) => {
                "masks are JPEGs: what reaches half of the maximum counts as flaw"
            }
            (Self::OrientationIgnored, true) => {
                "image says by EXIF that it is to be turned, and is not (`exif_orientation` turns it)"
            }
            (Self::OrientationIgnored, false) => {
                "images say by EXIF that they are to be turned, and are not (`exif_orientation` turns them)"
            }
            (Self::NarrowDepth, true) => "16-bit image uses a small part of the range",
            (Self::NarrowDepth, false) => "16-bit images use a small part of the range",
            (Self::Cropped, true) => "image is not looked at as a whole",
            (Self::Cropped, false) => "images are not looked at as a whole",
            (Self::Stretched, true) => {
                "image has another shape than most of the good images, and is stretched to theirs"
            }
            (Self::Stretched, false) => {
                "images have another shape than most of the good images, and are stretched to theirs"
            }
            (Self::Excluded, true) => "good image is left out by `exclude`",
            (Self::Excluded, false) => "good images are left out by `exclude`",
            (Self::Unreadable, true) => "image cannot be read, and is left out",
            (Self::Unreadable, false) => "images cannot be read, and are left out",
        }
    }

    /// Whether nothing is lost or guessed by it.
    pub fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::OwnOutput | Self::MaskLossy | Self::MaskTurned | Self::Excluded
        )
    }
}

/// An oddity and how often it was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// What.
    pub oddity: Oddity,
    /// How often.
    pub count: usize,
    /// The first of them.
    pub examples: Vec<String>,
}

impl LedgerEntry {
    /// A sentence for people.
    pub fn line(&self) -> String {
        let more = self.count.saturating_sub(self.examples.len());
        let more = match more {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        format!(
            "{} {}: {}{more}",
            self.count,
            self.oddity.says(self.count == 1),
            self.examples.join(", ")
        )
    }
}

/// What was met and not taken as it lay there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger {
    entries: Vec<LedgerEntry>,
}

impl Ledger {
    /// Nothing met.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for entry in &other.entries {
            for example in &entry.examples {
                self.add(entry.oddity, example);
            }
            let named = entry.examples.len();
            if let Some(own) = self.entries.iter_mut().find(|e| e.oddity == entry.oddity) {
                own.count += entry.count - named;
            }
        }
    }

    /// Counts one.
    pub fn add(&mut self, oddity: Oddity, example: impl Into<String>) {
        let at = self.entries.iter().position(|e| e.oddity == oddity);
        let at = at.unwrap_or_else(|| {
            self.entries.push(LedgerEntry {
                oddity,
                count: 0,
                examples: Vec::new(),
            });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        entry.count += 1;
        if entry.examples.len() < EXAMPLES {
            entry.examples.push(example.into());
        }
    }

    /// What was met, in the order it was met first.
    pub fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }

    /// Whether nothing was met.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How often something was met.
    pub fn count(&self, oddity: Oddity) -> usize {
        let found = self.entries.iter().find(|e| e.oddity == oddity);
        found.map_or(0, |e| e.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oddities_are_counted_and_some_named() {
        let mut ledger = Ledger::default();
        ledger.add(Oddity::Twin, "a.png = b.png");
        for i in 0..5 {
            ledger.add(Oddity::MaskWithoutImage, format!("{i}_gt.png"));
        }
        let lines: Vec<String> = ledger.entries().iter().map(LedgerEntry::line).collect();
        assert_eq!(
            lines,
            [
                "1 image has the content of another one and counts once with it: a.png = b.png",
                "5 masks belong to no image and are not used (a mask is called <image>_mask.png): \
                 0_gt.png, 1_gt.png, 2_gt.png and 2 more",
            ]
        );
        assert_eq!(ledger.count(Oddity::MaskWithoutImage), 5);
        assert_eq!(ledger.count(Oddity::NotUtf8), 0);
        let mut both = ledger.clone();
        both.merge(&ledger);
        assert_eq!(both.count(Oddity::MaskWithoutImage), 10);
        assert_eq!(both.entries()[1].examples.len(), 3);
    }
}
