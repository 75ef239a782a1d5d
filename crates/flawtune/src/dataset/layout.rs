//! Which layout a category's folder has.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{Dataset, DatasetError, Ledger, kolektor, mvtec, root, visa};
use crate::names::one_of;

/// How the folder of a category is laid out; `docs/guides/datasets.md` has a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Whichever of the others the folder shows.
    #[default]
    Auto,
    /// MVTec AD: `train/good`, `test/<type>`, `ground_truth/<type>`.
    MvtecAd,
    /// MVTec AD 2: `train/good`, `validation/good`, `test_public/{good,bad,ground_truth}`.
    MvtecAd2,
    /// MVTec LOCO AD: as MVTec AD, with `validation/good` and several masks an image.
    MvtecLoco,
    /// BTAD: `train/ok`, `test/{ok,ko}`, `ground_truth/ko`.
    Btad,
    /// `VisA`: `Data/Images`, with the split in `../split_csv`.
    Visa,
    /// `KolektorSDD`: a folder per item with `Part0.jpg` and `Part0_label.bmp`.
    KolektorSdd,
    /// `KolektorSDD2`: `train` and `test` with `10301.png` and `10301_GT.png`.
    KolektorSdd2,
}

impl Layout {
    /// All of them, [`Self::Auto`] first.
    pub const ALL: [Self; 8] = [
        Self::Auto,
        Self::MvtecAd,
        Self::MvtecAd2,
        Self::MvtecLoco,
        Self::Btad,
        Self::Visa,
        Self::KolektorSdd,
        Self::KolektorSdd2,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::MvtecAd => "mvtec-ad",
            Self::MvtecAd2 => "mvtec-ad-2",
            Self::MvtecLoco => "mvtec-loco",
            Self::Btad => "btad",
            Self::Visa => "visa",
            Self::KolektorSdd => "kolektor-sdd",
            Self::KolektorSdd2 => "kolektor-sdd2",
        }
    }

    /// What a folder of the layout is recognised by.
    fn sign(self) -> &'static str {
        match self {
            Self::Auto => "any of the others",
            Self::MvtecAd => "train/good",
            Self::MvtecAd2 => "train/good with test_public",
            Self::MvtecLoco => {
                "train/good with test/logical_anomalies or test/structural_anomalies"
            }
            Self::Btad => "train/ok",
            Self::Visa => "Data/Images",
            Self::KolektorSdd => "folders with Part0.jpg and Part0_label.bmp",
            Self::KolektorSdd2 => "train with 10301.png and 10301_GT.png",
        }
    }

    /// The layouts that `folder` shows the signs of.
    pub(super) fn found_in(folder: &Path) -> Vec<Self> {
        let has = |name: &str| folder.join(name).is_dir();
        let mut found = Vec::new();
        if has("train/good") {
            found.push(if has("test_public") {
                Self::MvtecAd2
            } else if has("test/logical_anomalies") || has("test/structural_anomalies") {
                Self::MvtecLoco
            } else {
                Self::MvtecAd
            });
        }
        let others: [(Self, bool); 4] = [
            (Self::Btad, has("train/ok")),
            (Self::Visa, has("Data/Images")),
            (Self::KolektorSdd, kolektor::has_items(folder)),
            (
                Self::KolektorSdd2,
                kolektor::has_labels(&folder.join("train"), kolektor::SDD2_LABEL),
            ),
        ];
        found.extend(
            others
                .into_iter()
                .filter(|(_, shown)| *shown)
                .map(|(layout, _)| layout),
        );
        found
    }

    /// This layout, or for [`Self::Auto`] the one that `folder` shows.
    fn resolve(self, folder: &Path) -> Result<Self, DatasetError> {
        if self != Self::Auto {
            return Ok(self);
        }
        match Self::found_in(folder)[..] {
            [one] => Ok(one),
            [] => Err(DatasetError::LayoutUnknown {
                folder: folder.to_path_buf(),
                wanted: Self::ALL[1..]
                    .iter()
                    .map(|l| format!("{} ({l})", l.sign()))
                    .collect(),
                categories: root::categories(folder)?,
            }),
            ref several => Err(DatasetError::LayoutAmbiguous {
                folder: folder.to_path_buf(),
                found: several
                    .iter()
                    .map(|l| format!("{} ({l})", l.sign()))
                    .collect(),
            }),
        }
    }

    /// Reads `category` under `root`.
    pub(super) fn read(
        self,
        root: &Path,
        category: &str,
        visa_split: VisaSplit,
        needs_test: bool,
    ) -> Result<Dataset, DatasetError> {
        let folder = root::category_folder(root, category)?;
        let mut ledger = Ledger::default();
        let samples = match self.resolve(&folder)? {
            Self::Auto | Self::MvtecAd => {
                mvtec::read(&folder, &mvtec::MVTEC_AD, needs_test, &mut ledger)
            }
            Self::MvtecAd2 => mvtec::read(&folder, &mvtec::MVTEC_AD_2, needs_test, &mut ledger),
            Self::MvtecLoco => mvtec::read(&folder, &mvtec::MVTEC_LOCO, needs_test, &mut ledger),
            Self::Btad => mvtec::read(&folder, &mvtec::BTAD, needs_test, &mut ledger),
            Self::Visa => visa::read(root, category, visa_split),
            Self::KolektorSdd => kolektor::read_items(&folder),
            Self::KolektorSdd2 => kolektor::read_subsets(&folder, needs_test),
        }?;
        Ok(Dataset::of(root, category, samples, ledger))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(&Self::ALL, Self::name, text)
    }
}

/// Which split of `VisA`, a file in `split_csv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VisaSplit {
    /// `1cls`: good images to learn from, good ones and anomalies to test.
    #[default]
    OneClass,
    /// `2cls_highshot`: anomalies to learn from too.
    HighShot,
    /// `2cls_fewshot`: few of both to learn from.
    FewShot,
}

impl VisaSplit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OneClass, Self::HighShot, Self::FewShot];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneClass => "1cls",
            Self::HighShot => "2cls-highshot",
            Self::FewShot => "2cls-fewshot",
        }
    }

    /// Name of the file in `split_csv`.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::OneClass => "1cls.csv",
            Self::HighShot => "2cls_highshot.csv",
            Self::FewShot => "2cls_fewshot.csv",
        }
    }
}

impl fmt::Display for VisaSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for VisaSplit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(&Self::ALL, Self::name, text)
    }
}
