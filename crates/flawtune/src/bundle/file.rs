//! The file of a bundle: safetensors, with the [`Header`] as JSON in its metadata.
//!
//! | metadata | |
//! |---|---|
//! | `format` | `flawtune-bundle` |
//! | `format_version` | 1 to 6, the lowest that reads it right; read before anything else, a higher one is refused |
//! | `header` | JSON of [`Header`] |
//!
//! | tensor | |
//! |---|---|
//! | `bank` | F16 or F32 `[rows, dim]`, patch tokens of unit length |
//! | `centres` | F32 `[cells, dim]`, directions of unit length; only with an index |
//! | `cell_rows` | U64 `[cells]`, rows of the bank in each cell, which lie one cell after the other; only with an index |
//! | `residual` | U8, JSON of what was learned beside the bank; only for that scorer, whose `bank` is `[blocks · rows, dim / blocks]`, one block after the other |
//! | `spacing`, `spacing_image` | F32 `[blocks · rows, 2]` and U32 `[blocks · rows]`, how far each row of the bank lies from the nearest patch of another good image and from that of a further one, and the image of the nearest; only where `residual` has slopes |
//! | `bank.1`, `residual.1`, `spacing.1`, … | the same for each further image size |
//! | `kept`, `kept_…` | what it keeps to learn more, see `kept.rs` |
//! | `ensemble` | U8, JSON of the fitted ensemble; only for that scorer |
//! | `adaptation` | U8, what was learned and changes the tokens, such as a torch file with a checkpoint's tensors; only where it does |

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flawtune_backbone::atomic_file::AtomicFile;
use flawtune_kernels::mapped::MappedFile;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use serde_json::json;

use super::bank::{Bank, Precision};
use super::cells::Cells;
use super::error::BundleError;
use super::header::{Header, ScorerKind};
use super::kept::Kept;
use super::spacings::{self, SPACING, SPACING_IMAGE};
use crate::score::heads::Ensemble;
use crate::score::residual::ResidualModel;

/// What `format` in the metadata says.
pub const FORMAT: &str = "flawtune-bundle";
/// Highest format version that is read.
pub const FORMAT_VERSION: u64 = 6;
/// The version of bundles whose patches are means of several; others stay readable for builds that know version 1 only.
const WITH_NEIGHBOURHOOD: u64 = 2;
/// The version of bundles that are searched by an index; builds that know less would search all of the bank.
const WITH_INDEX: u64 = 3;
/// The version of bundles that look at several blocks.
const WITH_BLOCKS: u64 = 4;
/// The version of bundles that look at several image sizes.
const WITH_SIZES: u64 = 5;
/// The version of bundles that know how far the patches of their banks lie from each other.
const WITH_SPACINGS: u64 = 6;

const BANK: &str = "bank";
const CENTRES: &str = "centres";
const CELL_ROWS: &str = "cell_rows";
const RESIDUAL: &str = "residual";
const ENSEMBLE: &str = "ensemble";
const ADAPTATION: &str = "adaptation";

/// Everything that scores images, as one file.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What it is.
    pub header: Header,
    /// Patches of the support.
    pub bank: Bank,
    /// The cells that the bank is sorted into, where it has an index.
    pub cells: Option<Cells>,
    /// What was learned beside the bank, for the scorer that looks at several blocks.
    pub residual: Option<ResidualModel>,
    /// The banks of further image sizes and what was learned beside them, in the order of [`Header::more_sizes`].
    pub more: Vec<(Bank, ResidualModel)>,
    /// What is kept to learn more.
    pub kept: Keeping,
    /// The fitted ensemble, for that scorer.
    pub ensemble: Option<Ensemble>,
    /// What was learned and changes the tokens, where anything does, as its maker wrote it.
    pub adaptation: Option<Vec<u8>>,
}

/// Where a detector has what it keeps to learn more: it is large and seldom needed.
#[derive(Debug, Clone, Default)]
pub enum Keeping {
    /// It keeps nothing.
    #[default]
    Nothing,
    /// In memory.
    Here(Arc<Kept>),
    /// In the file that it was read from, if that keeps anything.
    In(PathBuf),
}

impl Bundle {
    /// What is kept to learn more; none where nothing is.
    ///
    /// # Errors
    /// The file that it was read from is gone or damaged.
    pub fn kept(&self) -> Result<Option<Arc<Kept>>, BundleError> {
        match &self.kept {
            Keeping::Nothing => Ok(None),
            Keeping::Here(kept) => Ok(Some(Arc::clone(kept))),
            Keeping::In(path) => Ok(Kept::read(path, &self.header)?.map(Arc::new)),
        }
    }

    /// Whether the file at `path` calls itself a bundle, of any version.
    pub fn is_one(path: &Path) -> bool {
        let Ok(file) = MappedFile::open(path) else {
            return false;
        };
        let metadata = SafeTensors::read_metadata(file.bytes());
        metadata.is_ok_and(|(_, m)| text(&m, "format") == Some(FORMAT))
    }

    /// The error of a bundle whose [`Self::adaptation`] its maker cannot read, who says `what` is wrong.
    pub fn unreadable_adaptation(path: &Path, what: &str) -> BundleError {
        BundleError::Header {
            path: path.to_owned(),
            key: ADAPTATION.to_owned(),
            what: format!("cannot be read ({what})"),
        }
    }

    /// The error of what was learned and cannot be written into a bundle.
    pub fn unwritable_adaptation(path: &Path, what: &str) -> BundleError {
        BundleError::Header {
            path: path.to_owned(),
            key: ADAPTATION.to_owned(),
            what: format!("cannot be written ({what})"),
        }
    }

    /// Reads a bundle; the bank stays in the mapped file.
    ///
    /// # Errors
    /// Any [`BundleError`] but `Tokens`, naming the key or tensor that is wrong.
    #[expect(
        clippy::too_many_lines,
        reason = "a check for each part of the file, in their order"
    )]
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let file = Arc::new(open(path)?);
        let not = |what: String| BundleError::NotABundle {
            path: path.to_owned(),
            what,
        };
        let bytes = file.bytes();
        let (length, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| {
            not(if bytes.is_empty() {
                "the file is empty".into()
            } else if bytes.starts_with(b"PK") {
                "a zip or torch file\nhint: a checkpoint becomes a detector by 'flawtune fit' with `checkpoint`".into()
            } else {
                format!("neither safetensors nor whole ({e})\nhint: copy it again, or fit again")
            })
        })?;
        if text(&metadata, "format") != Some(FORMAT) {
            return Err(not(
                "a safetensors file without its marks, such as weights".into()
            ));
        }
        let version = text(&metadata, "format_version").and_then(|v| v.parse::<u64>().ok());
        let wrong = |key: &str, what: String| BundleError::Header {
            path: path.to_owned(),
            key: key.to_owned(),
            what,
        };
        match version {
            Some(0) | None => return Err(wrong("format_version", "is not a version".into())),
            Some(found) if found > FORMAT_VERSION => {
                return Err(BundleError::Newer {
                    path: path.to_owned(),
                    found,
                    known: FORMAT_VERSION,
                });
            }
            Some(_) => {}
        }
        let header =
            text(&metadata, "header").ok_or_else(|| wrong("header", "is missing".into()))?;
        let header: Header = serde_json::from_str(header)
            .map_err(|e| wrong("header", format!("cannot be read ({e})")))?;
        if let Some((key, what)) = header.wrong() {
            return Err(wrong(key, what));
        }
        let data = bytes.get(8 + length..).unwrap_or_default();
        if digest(&[data]) != header.data_hash {
            return Err(BundleError::Damaged {
                path: path.to_owned(),
            });
        }
        let start = 8 + length;
        let wanted = match header.bank.precision {
            Precision::F16 => Dtype::F16,
            Precision::F32 => Dtype::F32,
        };
        let (rows, dim) = (header.bank.rows, header.dim);
        let tensor = |key: &str, wanted: &str, fits: &dyn Fn(Dtype, &[usize]) -> bool| {
            let wrong = |found: String| BundleError::Tensor {
                path: path.to_owned(),
                key: key.to_owned(),
                found,
                wanted: wanted.to_owned(),
            };
            let info = metadata.info(key).ok_or_else(|| wrong("missing".into()))?;
            if !fits(info.dtype, &info.shape) {
                return Err(wrong(format!("{:?} {:?}", info.dtype, info.shape)));
            }
            Ok(start + info.data_offsets.0..start + info.data_offsets.1)
        };
        // one block after the other, where there are several
        let shape = |rows: usize| match header.scorer {
            ScorerKind::Residual { blocks } => (blocks.saturating_mul(rows), dim / blocks),
            _ => (rows, dim),
        };
        let bank_of = |key: &str, (rows, dim): (usize, usize)| {
            let place = tensor(
                key,
                &format!("{wanted:?} [{rows}, {dim}]"),
                &|dtype, shape| dtype == wanted && shape == [rows, dim],
            )?;
            let file = Arc::clone(&file);
            let precision = header.bank.precision;
            Ok::<_, BundleError>(Bank::mapped(file, place.start, (rows, dim), precision))
        };
        let bank = bank_of(BANK, shape(rows))?;
        let (rows, dim) = shape(rows);
        let cells = match &header.bank.index {
            None => None,
            Some(index) => {
                let centres = tensor(
                    CENTRES,
                    &format!("F32 [{}, {dim}]", index.cells),
                    &|dtype, shape| dtype == Dtype::F32 && shape == [index.cells, dim],
                )?;
                let lengths = tensor(
                    CELL_ROWS,
                    &format!("U64 [{}]", index.cells),
                    &|dtype, shape| dtype == Dtype::U64 && shape == [index.cells],
                )?;
                let shape = (index.cells, dim);
                let centres = Bank::mapped(Arc::clone(&file), centres.start, shape, Precision::F32);
                let number = |b: &[u8]| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
                let lengths = bytes[lengths].chunks_exact(8).map(number);
                Some(
                    Cells::checked(centres, lengths, rows)
                        .map_err(|what| wrong(CELL_ROWS, what))?,
                )
            }
        };
        let flat = |key: &str| {
            let place = tensor(key, "U8 [bytes]", &|dtype, shape| {
                dtype == Dtype::U8 && shape.len() == 1
            })?;
            Ok::<_, BundleError>(&bytes[place])
        };
        let model_of = |key: &str, blocks: usize| {
            let json = serde_json::from_slice(flat(key)?);
            let model: ResidualModel =
                json.map_err(|e| wrong(key, format!("cannot be read ({e})")))?;
            match model.wrong(blocks, dim) {
                Some(what) => Err(wrong(key, format!("cannot be used ({what})"))),
                None => Ok(model),
            }
        };
        // what a model that has slopes needs beside its bank
        let spaced = |mut model: ResidualModel, key: &dyn Fn(&str) -> String, rows: usize| {
            if model.slopes.is_empty() {
                return Ok(model);
            }
            let all = model.slopes.len().saturating_mul(rows);
            let far = tensor(
                &key(SPACING),
                &format!("F32 [{all}, 2]"),
                &|dtype, shape| dtype == Dtype::F32 && shape == [all, 2],
            )?;
            let images = tensor(
                &key(SPACING_IMAGE),
                &format!("U32 [{all}]"),
                &|dtype, shape| dtype == Dtype::U32 && shape == [all],
            )?;
            let spacings = spacings::of_bytes([&bytes[far], &bytes[images]], rows);
            let spacings =
                spacings.ok_or_else(|| wrong(SPACING, "has numbers that are not finite".into()))?;
            model.spacings = spacings.into();
            Ok::<_, BundleError>(model)
        };
        let (mut residual, mut more) = (None, Vec::new());
        if let ScorerKind::Residual { blocks } = header.scorer {
            let model = model_of(RESIDUAL, blocks)?;
            residual = Some(spaced(model, &str::to_owned, header.bank.rows)?);
            for (i, size) in header.more_sizes.iter().enumerate() {
                let [bank, model] = [BANK, RESIDUAL].map(|key| numbered(key, i));
                let rows = blocks.saturating_mul(size.rows);
                let model = model_of(&model, blocks)?;
                let model = spaced(model, &|key: &str| numbered(key, i), size.rows)?;
                more.push((bank_of(&bank, (rows, dim))?, model));
            }
        }
        let ensemble = if header.scorer == ScorerKind::Ensemble {
            let json = serde_json::from_slice(flat(ENSEMBLE)?);
            let ensemble: Ensemble =
                json.map_err(|e| wrong(ENSEMBLE, format!("cannot be read ({e})")))?;
            ensemble
                .check(dim)
                .map_err(|e| wrong(ENSEMBLE, format!("cannot be used ({e})")))?;
            Some(ensemble)
        } else {
            None
        };
        let adaptation = if header.checkpoint.as_ref().is_some_and(|c| c.applied) {
            Some(flat(ADAPTATION)?.to_vec())
        } else {
            None
        };
        Ok(Self {
            header,
            bank,
            cells,
            residual,
            more,
            kept: Keeping::In(path.to_owned()),
            ensemble,
            adaptation,
        })
    }

    /// Writes the bundle, whole or not at all; fills in [`Header::data_hash`].
    ///
    /// # Errors
    /// [`BundleError::Io`], [`BundleError::Header`] for something that JSON cannot hold, and as [`Self::kept`].
    pub fn write(&mut self, path: &Path) -> Result<(), BundleError> {
        let json = |key: &str, e: String| BundleError::Header {
            path: path.to_owned(),
            key: key.to_owned(),
            what: format!("cannot be written ({e})"),
        };
        let residual = self.residual.as_ref().map(serde_json::to_vec).transpose();
        let residual = residual.map_err(|e| json(RESIDUAL, e.to_string()))?;
        let ensemble = self.ensemble.as_ref().map(serde_json::to_vec).transpose();
        let ensemble = ensemble.map_err(|e| json(ENSEMBLE, e.to_string()))?;
        let more = self.more.iter().map(|(_, model)| serde_json::to_vec(model));
        let more: Vec<Vec<u8>> = more
            .collect::<Result<_, _>>()
            .map_err(|e| json(RESIDUAL, e.to_string()))?;
        let keys: Vec<[String; 2]> = (0..more.len())
            .map(|i| [BANK, RESIDUAL].map(|key| numbered(key, i)))
            .collect();
        let dtype = match self.bank.precision() {
            Precision::F16 => "F16",
            Precision::F32 => "F32",
        };
        let mut tensors = vec![(
            BANK,
            dtype,
            vec![self.bank.rows(), self.bank.dim()],
            self.bank.bytes(),
        )];
        let lengths: Option<Vec<u8>> = self
            .cells
            .as_ref()
            .map(|c| c.lengths().flat_map(u64::to_le_bytes).collect());
        if let (Some(cells), Some(lengths)) = (&self.cells, &lengths) {
            let centres = cells.centres();
            tensors.push((
                CENTRES,
                "F32",
                vec![centres.rows(), centres.dim()],
                centres.bytes(),
            ));
            tensors.push((CELL_ROWS, "U64", vec![cells.len()], lengths));
        }
        for (key, bytes) in [
            (RESIDUAL, &residual),
            (ENSEMBLE, &ensemble),
            (ADAPTATION, &self.adaptation),
        ] {
            tensors.extend(
                bytes
                    .as_ref()
                    .map(|b| (key, "U8", vec![b.len()], b.as_slice())),
            );
        }
        for (((bank, _), model), [of_bank, of_model]) in self.more.iter().zip(&more).zip(&keys) {
            tensors.push((of_bank, dtype, vec![bank.rows(), bank.dim()], bank.bytes()));
            tensors.push((of_model, "U8", vec![model.len()], model));
        }
        let spacings = self.spacings();
        for (of_model, all, [far, images]) in &spacings {
            let [far_key, images_key] = of_model;
            tensors.push((far_key, "F32", vec![*all, 2], far));
            tensors.push((images_key, "U32", vec![*all], images));
        }
        let kept = self.kept()?;
        let kept = kept.as_ref().map(|kept| kept.tensors()).transpose();
        let kept = kept.map_err(|e| json("kept", e.to_string()))?;
        for (key, dtype, shape, bytes) in kept.iter().flatten() {
            tensors.push((key, dtype, shape.clone(), bytes));
        }
        self.header.data_hash = digest(&tensors.iter().map(|t| t.3).collect::<Vec<_>>());
        let version = match (&self.cells, self.header.patches.neighbourhood) {
            _ if !spacings.is_empty() => WITH_SPACINGS,
            _ if !self.more.is_empty() => WITH_SIZES,
            _ if self.residual.is_some() => WITH_BLOCKS,
            (Some(_), _) => WITH_INDEX,
            (None, 2..) => WITH_NEIGHBOURHOOD,
            (None, _) => 1,
        };
        let header =
            serde_json::to_string(&self.header).map_err(|e| json("header", e.to_string()))?;
        let marks: BTreeMap<&str, String> = BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("format_version", version.to_string()),
            ("header", header),
        ]);
        write_tensors(path, &json!(marks), &tensors)
    }
}

/// A tensor to write: key, type, shape, bytes.
type Tensor<'a> = (&'a str, &'static str, Vec<usize>, &'a [u8]);

/// Writes a file of safetensors, whole or not at all.
fn write_tensors(
    path: &Path,
    metadata: &serde_json::Value,
    tensors: &[Tensor<'_>],
) -> Result<(), BundleError> {
    let mut index = serde_json::Map::from_iter([("__metadata__".to_owned(), metadata.clone())]);
    let mut at = 0;
    for (key, dtype, shape, bytes) in tensors {
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes.len()]});
        index.insert((*key).to_owned(), entry);
        at += bytes.len();
    }
    let mut index = serde_json::Value::from(index).to_string();
    // the data starts at a multiple of 8
    index.push_str(&" ".repeat(index.len().next_multiple_of(8) - index.len()));
    let attempt = || -> std::io::Result<()> {
        let mut out = AtomicFile::create(path)?;
        out.write_all(&(index.len() as u64).to_le_bytes())?;
        out.write_all(index.as_bytes())?;
        for (_, _, _, bytes) in tensors {
            out.write_all(bytes)?;
        }
        out.commit()
    };
    let hint = "choose another `output` or make room";
    attempt().map_err(|source| BundleError::Io {
        path: path.to_owned(),
        source,
        hint,
    })
}

/// Keys, rows and bytes of the spacings beside one bank.
type StoredSpacings = ([String; 2], usize, [Vec<u8>; 2]);

impl Bundle {
    /// The spacings of each bank that knows them.
    fn spacings(&self) -> Vec<StoredSpacings> {
        let of = |key: &dyn Fn(&str) -> String, model: &ResidualModel| {
            let rows = model.spacings.iter().map(|s| s.nearest.len()).sum();
            let known = !model.spacings.is_empty();
            let keys = [SPACING, SPACING_IMAGE].map(key);
            known.then(|| (keys, rows, spacings::bytes(&model.spacings)))
        };
        let main = self.residual.iter().filter_map(|m| of(&str::to_owned, m));
        let more = self.more.iter().enumerate();
        let more = more.filter_map(|(i, (_, model))| of(&|key: &str| numbered(key, i), model));
        main.chain(more).collect()
    }
}

/// Maps the file of a bundle.
pub(super) fn open(path: &Path) -> Result<MappedFile, BundleError> {
    MappedFile::open(path).map_err(|source| BundleError::Io {
        path: path.to_owned(),
        source,
        hint: "name a file that 'flawtune fit' wrote",
    })
}

/// The tensor of the `i`-th further image size.
fn numbered(key: &str, i: usize) -> String {
    format!("{key}.{}", i + 1)
}

fn text<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a str> {
    metadata.metadata().as_ref()?.get(key).map(String::as_str)
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update_rayon(part);
    }
    hasher.finalize().to_hex().to_string()
}
