//! Judgements for other programs.

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use image::{GrayImage, ImageFormat};
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::extract::{Path, Query};
use crate::app::{App, blocking};
use crate::refusal::Refusal;
use crate::store::{DetectorRow, JudgedImage};
use crate::verdict::Label;

/// What judgements are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// A ZIP file of folders as in MVTec AD.
    Mvtec,
    /// A ZIP file of images and annotations.json.
    Coco,
    /// A table.
    Csv,
}

/// What judgements are written as.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Wanted {
    /// `mvtec`, `coco` or `csv`.
    #[param(inline)]
    format: Format,
}

/// The judgements and their images.
#[utoipa::path(get, path = "/api/detectors/{name}/export", params(("name" = String, Path), Wanted),
    responses((status = 200, content_type = "application/zip"), Refusal))]
pub(super) async fn export(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let (bytes, file, media) = blocking(&app, move |app| {
        let row = app.detector(&name)?;
        let judged = app.store.judgements(row.id)?;
        Ok(match wanted.format {
            Format::Csv => (csv(&judged)?, format!("{name}.csv"), "text/csv"),
            Format::Mvtec => (
                mvtec(app, &row, &judged)?,
                format!("{name}-mvtec.zip"),
                "application/zip",
            ),
            Format::Coco => (
                coco(app, &judged)?,
                format!("{name}-coco.zip"),
                "application/zip",
            ),
        })
    })
    .await?;
    let shown = format!("attachment; filename=\"{file}\"");
    let shown = HeaderValue::from_str(&shown).map_err(|e| Refusal::machine(&e))?;
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_DISPOSITION, shown);
    Ok(response)
}

fn csv(judged: &[JudgedImage]) -> Result<Vec<u8>, Refusal> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut row = |cells: &[&str]| table.write_record(cells).map_err(|e| Refusal::machine(&e));
    row(&[
        "part", "name", "content", "label", "kind", "mask", "score", "at", "by",
    ])?;
    for image in judged {
        row(&[
            &image.part.to_string(),
            &image.name,
            &image.content,
            label(image),
            image.kind.as_deref().unwrap_or_default(),
            if image.mask.is_some() { "yes" } else { "no" },
            &image.score.to_string(),
            &image.at.to_string(),
            image.by.as_deref().unwrap_or_default(),
        ])?;
    }
    table.into_inner().map_err(|e| Refusal::machine(e.error()))
}

fn label(image: &JudgedImage) -> &'static str {
    match image.label {
        Label::Good => "good",
        Label::Flaw => "flaw",
    }
}

/// A ZIP file of files that are compressed already.
struct Archive {
    zip: ZipWriter<Cursor<Vec<u8>>>,
    options: SimpleFileOptions,
}

impl Archive {
    fn new() -> Self {
        Self {
            zip: ZipWriter::new(Cursor::new(Vec::new())),
            options: SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored),
        }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        self.zip
            .start_file(name, self.options)
            .map_err(|e| Refusal::machine(&e))?;
        Ok(self.zip.write_all(bytes)?)
    }

    fn copy(&mut self, name: &str, from: &FilePath) -> Result<(), Refusal> {
        self.zip
            .start_file(name, self.options)
            .map_err(|e| Refusal::machine(&e))?;
        std::io::copy(&mut File::open(from)?, &mut self.zip)?;
        Ok(())
    }

    fn end(self) -> Result<Vec<u8>, Refusal> {
        let end = self.zip.finish().map_err(|e| Refusal::machine(&e))?;
        Ok(end.into_inner())
    }
}

/// `train/good`: what was handed in; `test/good`, `test/KIND`, `ground_truth/KIND`: what was judged.
fn mvtec(app: &App, row: &DetectorRow, judged: &[JudgedImage]) -> Result<Vec<u8>, Refusal> {
    let mut archive = Archive::new();
    let short = |content: &str| content.get(..12).unwrap_or(content).to_owned();
    for good in app.store.good(row.id)? {
        if !good.excluded {
            let name = format!("train/good/{}.{}", short(&good.content), good.kind);
            archive.copy(&name, &app.files.image(&good.content, &good.kind))?;
        }
    }
    for image in judged {
        let kind = match image.label {
            Label::Good => "good",
            Label::Flaw => image.kind.as_deref().unwrap_or("flaw"),
        };
        let stem = format!("{:06}_{}", image.part, short(&image.content));
        archive.copy(
            &format!("test/{kind}/{stem}.{}", image.extension),
            &app.files.image(&image.content, &image.extension),
        )?;
        if let Some(bytes) = &image.mask {
            let mut png = Cursor::new(Vec::new());
            crate::masks::of_size(bytes, image.size)?
                .write_to(&mut png, ImageFormat::Png)
                .map_err(|e| Refusal::machine(&e))?;
            archive.add(
                &format!("ground_truth/{kind}/{stem}_mask.png"),
                png.get_ref(),
            )?;
        }
    }
    archive.end()
}

/// Images, and annotations.json with a category for each kind and a box for each mask.
fn coco(app: &App, judged: &[JudgedImage]) -> Result<Vec<u8>, Refusal> {
    let mut archive = Archive::new();
    let mut kinds: Vec<&str> = judged
        .iter()
        .filter(|image| image.label == Label::Flaw)
        .map(|image| image.kind.as_deref().unwrap_or("flaw"))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for image in judged {
        let name = format!("images/{}.{}", image.content, image.extension);
        archive.copy(&name, &app.files.image(&image.content, &image.extension))?;
        let (height, width) = image.size;
        images.push(json!({"id": image.part, "file_name": name, "height": height, "width": width}));
        if image.label == Label::Good {
            continue;
        }
        let kind = image.kind.as_deref().unwrap_or("flaw");
        let category = kinds.iter().position(|k| *k == kind).map_or(0, |i| i + 1);
        let (place, area, counts) = match &image.mask {
            Some(bytes) => run_lengths(&crate::masks::of_size(bytes, image.size)?),
            // nobody said where: it is somewhere on the image
            None => (
                [0, 0, width, height],
                width * height,
                vec![0, width * height],
            ),
        };
        annotations.push(json!({
            "id": image.id,
            "image_id": image.part,
            "category_id": category,
            "bbox": place,
            "area": area,
            "iscrowd": 1,
            "segmentation": {"size": [height, width], "counts": counts},
        }));
    }
    let categories: Vec<_> = (1..)
        .zip(&kinds)
        .map(|(id, name)| json!({"id": id, "name": name}))
        .collect();
    let text = json!({"images": images, "annotations": annotations, "categories": categories});
    let text = serde_json::to_vec_pretty(&text).map_err(|e| Refusal::machine(&e))?;
    archive.add("annotations.json", &text)?;
    archive.end()
}

/// Box (left, top, width, height), area, and lengths of the runs of black and white, column after column, black first.
fn run_lengths(mask: &GrayImage) -> ([usize; 4], usize, Vec<usize>) {
    let (mut runs, mut white, mut length) = (Vec::new(), false, 0);
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    let mut area = 0;
    for x in 0..mask.width() {
        for y in 0..mask.height() {
            let is = mask.get_pixel(x, y).0[0] >= 128;
            if is {
                area += 1;
                (left, top) = (left.min(x), top.min(y));
                (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
            }
            if is != white {
                runs.push(std::mem::take(&mut length));
                white = is;
            }
            length += 1;
        }
    }
    runs.push(length);
    let sides = [
        left,
        top,
        right.saturating_sub(left),
        bottom.saturating_sub(top),
    ];
    (sides.map(|side| side as usize), area, runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Luma;

    #[test]
    fn runs_go_down_the_columns_and_begin_with_black() {
        let mut mask = GrayImage::new(3, 2);
        mask.put_pixel(1, 0, Luma([255]));
        mask.put_pixel(1, 1, Luma([255]));
        mask.put_pixel(2, 0, Luma([255]));
        assert_eq!(run_lengths(&mask), ([1, 0, 2, 2], 3, vec![2, 3, 1]));
        let white = GrayImage::from_pixel(2, 2, Luma([255]));
        assert_eq!(run_lengths(&white), ([0, 0, 2, 2], 4, vec![0, 4]));
    }
}
