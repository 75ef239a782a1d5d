//! `flawtune info`

use flawtune::bundle::{Bundle, Candidate, Header, SearchRecord};
use flawtune::image_size::ImageSize;
use flawtune::score::residual::ResidualModel;
use flawtune_backbone::preprocess::Roi;
use flawtune_backbone::weights::describe;
use serde_json::{Map, Value, json};

use crate::Context;
use crate::args::InfoArgs;
use crate::console::{bytes, out, out_json};
use crate::failure::Failure;
use crate::progress::thousands;

pub(crate) fn run(args: &InfoArgs, context: Context) -> Result<(), Failure> {
    if Bundle::is_one(&args.file) {
        return bundle(args, context);
    }
    let d = describe(&args.file).map_err(|e| Failure::from_error(&e))?;
    if context.json {
        let dtypes: Map<String, Value> = d
            .dtypes
            .iter()
            .map(|(name, (tensors, numbers))| {
                (
                    name.clone(),
                    json!({"tensors": tensors, "parameters": numbers}),
                )
            })
            .collect();
        let entries: Map<String, Value> = d
            .entries
            .iter()
            .map(|(k, v)| (k.clone(), json!(v)))
            .collect();
        let result = json!({
            "path": d.path,
            "kind": d.kind.name(),
            "bytes": d.bytes,
            "scheme": d.scheme.map(|s| s.to_string()),
            "config": d.config,
            "tensors": d.tensors,
            "parameters": d.parameters,
            "dtypes": dtypes,
            "entries": entries,
            "notes": d.notes,
        });
        out(&result.to_string());
        return Ok(());
    }
    out(&format!(
        "{}: {}, {}",
        d.path.display(),
        d.kind.name(),
        bytes(d.bytes)
    ));
    if let Some(scheme) = d.scheme {
        out(&format!("keys        {scheme}"));
    }
    if let Some(c) = &d.config {
        out(&format!(
            "backbone    {} ({} blocks, {} numbers a token, {} heads, patch {}, {} registers)",
            c.name, c.depth, c.dim, c.heads, c.patch_size, c.registers
        ));
    }
    let dtypes: Vec<String> = d
        .dtypes
        .iter()
        .map(|(name, (tensors, numbers))| {
            format!(
                "{tensors} {name} ({} numbers)",
                thousands(*numbers as usize)
            )
        })
        .collect();
    out(&format!(
        "tensors     {} with {} numbers: {}",
        d.tensors,
        thousands(d.parameters as usize),
        dtypes.join(", ")
    ));
    for (key, value) in &d.entries {
        out(&format!("  {key:<48} {value}"));
    }
    for note in &d.notes {
        out(&format!("note: {note}"));
    }
    Ok(())
}

/// A file of `flawtune fit`.
fn bundle(args: &InfoArgs, context: Context) -> Result<(), Failure> {
    let bundle = Bundle::read(&args.file).map_err(|e| Failure::from_error(&e))?;
    let header = &bundle.header;
    if context.json {
        return out_json(header);
    }
    let (rows, columns) = header.grid;
    let (t, map) = (&header.threshold, &header.map);
    out(&format!(
        "{}: detector of flawtune fit {}",
        args.file.display(),
        header.flawtune_version
    ));
    out(&format!("category    {}", header.category));
    out(&format!(
        "backbone    {} (weights {})",
        header.model_name, header.weights_hash
    ));
    out(&format!("images      {}", header.preprocessing));
    if let Some(aspect) = header.backbone["aspect"].as_f64() {
        out(&format!(
            "aspect      kept, {aspect:.2} times as wide as high"
        ));
    }
    let roi = header.backbone["roi"].as_str();
    if let Some(roi) = roi.and_then(|roi| roi.parse::<Roi>().ok()) {
        let order = match roi {
            Roi::Rectangle(_) => " (left, top, width, height)",
            Roi::Mask(_) => "",
        };
        out(&format!(
            "region      {roi}{order}; the rest of an image is not looked at"
        ));
    }
    if !header.more_sizes.is_empty() {
        out(&format!(
            "sizes       {} px, each with a bank of its own",
            ImageSize::join(&header.sizes(), " and ")
        ));
    }
    out(&format!("scorer      {}", header.scorer.name()));
    if let Some(model) = &bundle.residual {
        residual(header, model);
    } else {
        out(&format!(
            "tokens      {rows}×{columns} patches of {} numbers, {}",
            header.dim, header.variant
        ));
        bank(header, "");
    }
    if let Some(c) = &header.checkpoint {
        let used = if c.applied {
            "changes the tokens"
        } else {
            "tokens stay as they are"
        };
        out(&format!("checkpoint  {} ({used})", c.file));
    }
    if let Some(search) = &header.search {
        searched(search);
    }
    let curve = match header.calibration.defects {
        0 => "a scale without known defects".to_owned(),
        n => format!("fitted to {n} defects"),
    };
    out(&format!(
        "threshold   {:.4} from {} good images and {} defects; probability: {curve}",
        t.value,
        t.good.len(),
        t.defects.len()
    ));
    out(&format!(
        "maps        flaws from {:.4}, colours from {:.4} to {:.4}",
        map.threshold, map.low, map.high
    ));
    Ok(())
}

/// What the image sizes were chosen from.
fn searched(search: &SearchRecord) {
    let named = |c: &Candidate| {
        let taken = if c.sizes == search.chosen {
            ", taken"
        } else {
            ""
        };
        let sizes = ImageSize::join(&c.sizes, " and ");
        format!("{sizes} px AUROC {:.3}{taken}", c.auroc)
    };
    let all: Vec<String> = search.candidates.iter().map(named).collect();
    out(&format!(
        "searched    {} (of {} defects and {} synthetic ones against {} good images)",
        all.join("; "),
        search.shots,
        search.synthetic,
        search.good
    ));
}

/// What is looked at, and how far that is learned from defects.
fn residual(header: &Header, model: &ResidualModel) {
    let (rows, columns) = header.grid;
    let blocks = header.scorer.blocks();
    // counted from 1, as people read them
    let named: Vec<String> = header.backbone["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_i64)
        .map(|layer| if layer < 0 { layer } else { layer + 1 }.to_string())
        .collect();
    out(&format!(
        "blocks      {}, in each {rows}×{columns} patches of {} numbers",
        named.join(", "),
        header.dim / blocks
    ));
    bank(header, " in each block");
    let slopes: Vec<String> = model.slopes.iter().map(|s| format!("{s:.2}")).collect();
    if !slopes.is_empty() {
        out(&format!(
            "spacing     {} of it is expected of a distance, block by block",
            slopes.join(", ")
        ));
    }
    if let Some(head) = &model.head {
        out(&format!(
            "learned     from {} defects, {} with masks: {} patches, weight {:.2}",
            head.shots,
            head.masked_shots,
            thousands(head.positives),
            head.weight
        ));
    }
}

fn bank(header: &Header, each: &str) {
    let bank = &header.bank;
    out(&format!(
        "bank        {} patches of {} good images{each}, {:?}{}",
        thousands(bank.rows),
        header.support.len(),
        bank.precision,
        bank.coreset
            .map_or_else(String::new, |share| format!(", coreset of {share}"))
    ));
    if let Some(index) = &bank.index {
        out(&format!("index       {}", index.text()));
    }
}
