//! What enters a job: each content once, under one label, and a word about all that is not taken as it lies there.

use std::collections::HashMap;

use flawtune_backbone::preprocess::{
    Facts, Preprocess, decode_looked, facts_of, narrow, read_file,
};
use rayon::prelude::*;

use super::{Event, OnEvent, WorkflowError};
use crate::dataset::{Dataset, DatasetError, Ledger, LedgerEntry, Oddity, Sample, fits};

/// 16-bit images whose values are looked at, spread over all there are.
const LOOKED_AT: usize = 16;
/// Share of an image that may lie outside of a centre crop without a word.
const UNSEEN: f64 = 0.01;

/// A file that was read.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) sample: Sample,
    pub(super) content: blake3::Hash,
    pub(super) facts: Option<Facts>,
}

/// Refuses names that cannot be ids, unless bad images are skipped.
pub(super) fn check_names(dataset: &Dataset, skip: bool) -> Result<(), WorkflowError> {
    let entries = dataset.ledger.entries();
    let first = entries.iter().find(|e| e.oddity == Oddity::NotUtf8);
    match first.and_then(|e| e.examples.first()) {
        Some(name) if !skip => Err(DatasetError::NotUtf8 { path: name.into() }.into()),
        _ => Ok(()),
    }
}

/// Every content once in each subset: a twin in a bank is at distance 0 of its image, so that an image left out of it is
/// still in it, and every threshold chosen from such distances is a lie. The first by id stays.
///
/// # Errors
/// One content under two labels; with `skip` all its files are left out.
pub(super) fn once(
    met: Vec<Met>,
    ledger: &mut Ledger,
    skip: bool,
) -> Result<Vec<Met>, WorkflowError> {
    let mut first_of: HashMap<blake3::Hash, usize> = HashMap::new();
    let mut kept: Vec<Met> = Vec::with_capacity(met.len());
    let mut places: HashMap<(blake3::Hash, bool), usize> = HashMap::new();
    let mut two_labels = Vec::new();
    for (i, one) in met.iter().enumerate() {
        let first = *first_of.entry(one.content).or_insert(i);
        if met[first].sample.defect_type != one.sample.defect_type {
            two_labels.push((first, i));
        }
    }
    if let (Some((first, second)), false) = (two_labels.first(), skip) {
        let (first, second) = (&met[*first].sample, &met[*second].sample);
        return Err(DatasetError::TwoLabels {
            first: first.path.clone(),
            first_type: first.defect_type.clone(),
            second: second.path.clone(),
            second_type: second.defect_type.clone(),
        }
        .into());
    }
    let contradicts: Vec<blake3::Hash> = two_labels.iter().map(|(_, i)| met[*i].content).collect();
    for one in met {
        if contradicts.contains(&one.content) {
            ledger.add(Oddity::TwoLabels, one.sample.path.display().to_string());
            continue;
        }
        let train = one.sample.subset == crate::dataset::Subset::Train;
        if let Some(&place) = places.get(&(one.content, train)) {
            let first: &mut Met = &mut kept[place];
            let pair = format!("{} = {}", one.sample.id, first.sample.id);
            ledger.add(Oddity::Twin, pair);
            if first.sample.masks.is_empty() {
                first.sample.masks = one.sample.masks;
            }
        } else {
            places.insert((one.content, train), kept.len());
            kept.push(one);
        }
    }
    Ok(kept)
}

/// Tells the ledger of masks that do not lie on their images as they are.
pub(super) fn look_at_masks(met: &[Met], ledger: &mut Ledger) {
    let odd = |one: &Met| -> Vec<(Oddity, String)> {
        let mut odd = Vec::new();
        for mask in &one.sample.masks {
            let (Some(image), Some(found)) = (one.facts, facts_of(mask)) else {
                continue;
            };
            let (stored, size) = ((image.height, image.width), (found.height, found.width));
            let example = || mask.display().to_string();
            if found.jpeg {
                odd.push((Oddity::MaskLossy, example()));
            }
            let across = fits(size, (image.width, image.height));
            match (fits(size, stored), across) {
                (false, true) if image.lies() => odd.push((Oddity::MaskTurned, example())),
                // one that lies across for no reason is refused where it is read
                (true, _) | (false, true) => {}
                (false, false) => {
                    let sizes = format!(
                        "{} ({}×{} on {}×{})",
                        example(),
                        size.1,
                        size.0,
                        image.width,
                        image.height
                    );
                    odd.push((Oddity::MaskStretched, sizes));
                }
            }
        }
        odd
    };
    let found: Vec<_> = met.par_iter().map(odd).collect();
    for (oddity, example) in found.into_iter().flatten() {
        ledger.add(oddity, example);
    }
}

/// A line for each entry: a warning where something is lost or guessed, or with `strict` an error.
pub(super) fn tell(
    ledger: &Ledger,
    strict: bool,
    on_event: OnEvent<'_>,
) -> Result<(), WorkflowError> {
    let (harmless, odd): (Vec<&LedgerEntry>, Vec<_>) = ledger
        .entries()
        .iter()
        .partition(|e| e.oddity.is_harmless());
    for entry in harmless {
        on_event(Event::Note(entry.line()));
    }
    warn(odd.iter().map(|e| e.line()).collect(), strict, on_event)
}

fn warn(texts: Vec<String>, strict: bool, on_event: OnEvent<'_>) -> Result<(), WorkflowError> {
    if strict && !texts.is_empty() {
        return Err(WorkflowError::Input(format!(
            "{}\nhint: put it right, or leave `strict` out to go on with a warning",
            texts.join("; ")
        )));
    }
    for text in texts {
        on_event(Event::Warning(text));
    }
    Ok(())
}

/// Says what preprocessing leaves of these images: orientations that are not followed, what a centre crop does not look
/// at, 16-bit data that end up in a few grey levels.
pub(super) fn tell_preprocessing<'a>(
    samples: impl Iterator<Item = (&'a Sample, &'a Option<Facts>)>,
    preprocess: &Preprocess,
    strict: bool,
    on_event: OnEvent<'_>,
) -> Result<(), WorkflowError> {
    let known: Vec<(&Sample, Facts)> = samples.filter_map(|(s, f)| Some((s, (*f)?))).collect();
    let mut ledger = Ledger::default();
    let mut unseen = Vec::new();
    for (sample, facts) in &known {
        if facts.orientation > 1 && !preprocess.apply_exif_orientation {
            ledger.add(Oddity::OrientationIgnored, &sample.id);
        }
        let (height, width) = facts.size(preprocess.apply_exif_orientation);
        let share = preprocess.unseen(height, width);
        if share > UNSEEN {
            unseen.push((share, sample));
        }
    }
    tell(&ledger, strict, on_event)?;
    let mut texts = Vec::from_iter(unseen_text(&unseen, known.len()));
    let wide: Vec<&Sample> = known
        .iter()
        .filter(|(_, f)| f.wide)
        .map(|(s, _)| *s)
        .collect();
    let step = wide.len().div_ceil(LOOKED_AT).max(1);
    let options = preprocess.decode_options();
    let look = |sample: &&Sample| {
        let bytes = read_file(&sample.path, &options).ok()?;
        let looked = decode_looked(&bytes, &sample.path, &options).ok()?.1;
        Some((looked.largest?, looked.said))
    };
    let looked: Vec<&Sample> = wide.iter().step_by(step).copied().collect();
    let most = looked
        .par_iter()
        .filter_map(look)
        .reduce_with(|a, b| (a.0.max(b.0), a.1.max(b.1)));
    texts.extend(
        most.and_then(|(largest, said)| {
            depth_text(largest, said, preprocess.bit_depth, wide.len())
        }),
    );
    warn(texts, strict, on_event)
}

/// What a centre crop does not look at.
fn unseen_text(unseen: &[(f64, &&Sample)], all: usize) -> Option<String> {
    let (worst, sample) = unseen.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    let mean = unseen.iter().map(|(share, _)| share).sum::<f64>() / unseen.len() as f64;
    Some(format!(
        "the centre crop does not look at {:.0} % of {} of {all} images (at most {:.0} %: {}); a flaw there is not found. \
         `resize` squash looks at all of an image",
        100.0 * mean,
        unseen.len(),
        100.0 * worst,
        sample.id
    ))
}

/// What is odd about the range of 16-bit data of which this is the largest value.
pub(super) fn depth_text(
    largest: u16,
    said: Option<u8>,
    bit_depth: Option<u8>,
    images: usize,
) -> Option<String> {
    let of = match images {
        1 => "the 16-bit image".to_owned(),
        n => format!("the {n} 16-bit images"),
    };
    match bit_depth {
        None => narrow(largest, said).map(|bits| {
            let levels = u32::from(largest) / 257 + 1;
            format!(
                "the largest value in {of} is {largest}, as of a camera of {bits} bits: read as 16 bits they become {levels} \
                 of 256 grey levels; `bit_depth` {bits} keeps their detail, `bit_depth` 16 says that it is meant so"
            )
        }),
        Some(bits) => (u32::from(largest) >= 1 << bits).then(|| {
            format!("the largest value in {of} is {largest}, more than `bit_depth` {bits} has: such pixels become white")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_hardly_used_is_said() {
        let text = depth_text(4095, None, None, 40).unwrap();
        assert!(
            text.contains("12 bits") && text.contains("16 of 256"),
            "{text}"
        );
        assert!(depth_text(0x3fff, None, None, 1).is_some_and(|t| t.contains("`bit_depth` 14")));
        assert_eq!(depth_text(0x4000, None, None, 1), None);
        assert_eq!(depth_text(4095, None, Some(16), 1), None);
        assert_eq!(depth_text(4095, None, Some(12), 1), None);
        assert!(depth_text(4096, None, Some(12), 1).is_some());
        // what the file says, where its values keep to it
        assert!(depth_text(900, Some(12), None, 1).is_some_and(|t| t.contains("`bit_depth` 12")));
        assert!(
            depth_text(0x7000, Some(15), None, 1).is_some_and(|t| t.contains("`bit_depth` 15"))
        );
        assert_eq!(depth_text(0xffff, Some(12), None, 1), None);
    }
}
