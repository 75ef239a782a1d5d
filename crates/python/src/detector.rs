//! The detector.

use std::path::PathBuf;

use flawtune::report::overlay::{Scale, Style, overlay};
use flawtune::workflow::BackboneOverrides;
use flawtune::{AnomalyMap, Backbone, Image, ImageSize, Lessons, MoreImages, Prediction, Region};
use image::{ExtendedColorType, RgbImage};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods as _, PyReadonlyArray2, PyUntypedArrayMethods as _,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use rayon::prelude::*;

use crate::failure::exception;
use crate::images::{Given, Taken, encoded};
use crate::{interrupt, start_threads};

/// Which backbone, and how images get into it; attributes of a Python object.
#[derive(FromPyObject)]
pub(crate) struct BackboneArguments {
    name: Option<String>,
    weights: Option<PathBuf>,
    /// Height and width of each size.
    sizes: Vec<(usize, usize)>,
}

impl BackboneArguments {
    /// As the library's options.
    pub(crate) fn set(self) -> PyResult<BackboneOverrides> {
        let sizes = self.sizes.into_iter();
        let sizes: Vec<ImageSize> = sizes
            .map(|(height, width)| ImageSize { height, width })
            .collect();
        if sizes.iter().any(|size| size.shorter() == 0) {
            return Err(PyValueError::new_err(
                "`image_size` is 0; it is a number of pixels",
            ));
        }
        Ok(BackboneOverrides {
            model_name: self.name,
            weights: self.weights,
            image_size: sizes,
            ..BackboneOverrides::default()
        })
    }
}

/// A fitted detector. It never changes.
#[pyclass(frozen, module = "flawtune._flawtune")]
pub(crate) struct Detector {
    inner: flawtune::Detector,
}

/// A region: left, top, width, height, area, peak, row and column of the peak, mass.
type Place = (usize, usize, usize, usize, usize, f32, (usize, usize), f64);

/// Score, probability, flaw, kind, drift, height and width, regions, map.
type Said<'py> = (
    f64,
    f64,
    bool,
    Option<String>,
    f64,
    (usize, usize),
    Vec<Place>,
    Option<Bound<'py, PyArray2<f32>>>,
);

/// Fits a detector to folders of images.
#[pyfunction]
pub(crate) fn fit(
    py: Python<'_>,
    good: PathBuf,
    defects: Option<PathBuf>,
    masks: Option<PathBuf>,
    backbone: BackboneArguments,
    seed: u64,
    max_false_alarm: f64,
    on_event: Py<PyAny>,
) -> PyResult<Detector> {
    let set = backbone.set()?;
    let inner = interrupt::run(py, &on_event, move |on_event| {
        let backbone = Backbone::with(set)?;
        let mut builder = flawtune::Detector::builder(&backbone)
            .good_folder(good)?
            .seed(seed)
            .max_false_alarm(max_false_alarm);
        if let Some(folder) = defects {
            builder = builder.defect_folder(folder)?;
        }
        if let Some(folder) = masks {
            builder = builder.mask_folder(folder)?;
        }
        builder.fit_with(on_event)
    })?;
    Ok(Detector { inner })
}

#[pymethods]
impl Detector {
    /// Opens a file.
    #[staticmethod]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        weights: Option<PathBuf>,
        on_event: Py<PyAny>,
    ) -> PyResult<Self> {
        let inner = interrupt::run(py, &on_event, |on_event| {
            flawtune::Detector::open_with(&path, weights.as_deref(), None, on_event)
        })?;
        Ok(Self { inner })
    }

    /// Writes the file, whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save(path))
            .map_err(|error| exception(&error))
    }

    /// Verdicts on a batch of images, whose first is at `first` of all images.
    fn predict<'py>(
        &self,
        py: Python<'py>,
        images: Vec<Given<'py>>,
        first: usize,
        maps: bool,
    ) -> PyResult<Vec<Said<'py>>> {
        let taken: Vec<Taken> = images
            .into_iter()
            .map(Given::take)
            .collect::<PyResult<_>>()?;
        let decoding = self.inner.preprocess().decode_options();
        let found = py.detach(|| {
            start_threads();
            let images: Vec<Image> = taken
                .into_par_iter()
                .enumerate()
                .map(|(at, taken)| taken.image(first + at, &decoding))
                .collect::<Result<_, _>>()?;
            self.inner.predict_all(&images, maps)
        });
        let found = found.map_err(|error| exception(&error))?;
        found.into_iter().map(|one| said(py, one)).collect()
    }

    /// The detector after it learned from more folders, and what came of it: numbers of images learned, and the same images by the old
    /// detector and by the new one.
    fn learn<'py>(
        &self,
        py: Python<'py>,
        good: Option<PathBuf>,
        defects: Option<PathBuf>,
        masks: Option<PathBuf>,
        force: bool,
        on_event: Py<PyAny>,
    ) -> PyResult<(Self, Bound<'py, PyDict>)> {
        let mut lessons = Lessons::new(MoreImages {
            good,
            defect: defects,
            masks,
        });
        lessons.force = force;
        let taught = interrupt::run(py, &on_event, |on_event| {
            self.inner.learn_with(&lessons, on_event)
        })?;
        let result = PyDict::new(py);
        result.set_item("good", taught.good)?;
        result.set_item("defects", taught.defects)?;
        for (name, tally) in [("before", taught.before), ("after", taught.after)] {
            let of = PyDict::new(py);
            of.set_item("good", tally.good)?;
            of.set_item("stopped", tally.stopped)?;
            of.set_item("defects", tally.defects)?;
            of.set_item("found", tally.found)?;
            result.set_item(name, of)?;
        }
        let inner = taught.detector;
        Ok((Self { inner }, result))
    }

    /// Lays a map over its image in the colours of the detector's scale, as a PNG; the worst region is framed.
    fn overlay<'py>(
        &self,
        py: Python<'py>,
        image: Given<'py>,
        map: PyReadonlyArray2<'py, f32>,
        region: Option<Place>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let decoding = self.inner.preprocess().decode_options();
        let image = image
            .take()?
            .image(0, &decoding)
            .map_err(|e| exception(&e))?;
        let &[height, width] = map.shape() else {
            return Err(PyValueError::new_err("a map has two dimensions"));
        };
        let values = map.as_array().iter().copied().collect();
        let scale = &self.inner.header().map;
        let png = py.detach(|| {
            let map = AnomalyMap::new(height, width, values).map_err(|e| exception(&e))?;
            let (rows, columns) = (image.height() as u32, image.width() as u32);
            let picture = RgbImage::from_raw(columns, rows, image.pixels().to_vec())
                .ok_or_else(|| PyValueError::new_err("the image holds too few pixels"))?;
            let colours = Scale {
                low: scale.low,
                high: scale.high,
            };
            let region = region.map(place);
            let drawn = overlay(
                &picture,
                &map,
                colours,
                Some(scale.threshold),
                region.as_ref(),
                Style::default(),
            )
            .map_err(|e| exception(&e))?;
            encoded(drawn.as_raw(), (height, width), ExtendedColorType::Rgb8)
        })?;
        Ok(PyBytes::new(py, &png))
    }

    /// Scores at or above it are flaws.
    #[getter]
    fn threshold(&self) -> f64 {
        self.inner.header().threshold.value
    }

    /// What the file says of itself: category, backbone, numbers of images.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let header = self.inner.header();
        let facts = PyDict::new(py);
        facts.set_item("category", &header.category)?;
        facts.set_item("scorer", header.scorer.name())?;
        facts.set_item("good", header.support.len())?;
        facts.set_item("threshold", header.threshold.value)?;
        facts.set_item("map_threshold", header.map.threshold)?;
        Ok(facts)
    }
}

/// A prediction as Python takes it; the numbers of the map are handed over, not copied.
fn said(py: Python<'_>, found: Prediction) -> PyResult<Said<'_>> {
    let regions = found.regions.iter().map(|r| {
        let (height, width) = (r.height, r.width);
        (
            r.left, r.top, width, height, r.area, r.peak, r.peak_at, r.mass,
        )
    });
    let regions = regions.collect();
    let map = found.map.map(|map| {
        let shape = [map.height(), map.width()];
        PyArray1::from_vec(py, map.into_values()).reshape(shape)
    });
    Ok((
        found.score,
        found.probability,
        found.flaw,
        found.kind,
        found.drift,
        found.size,
        regions,
        map.transpose()?,
    ))
}

fn place((left, top, width, height, area, peak, peak_at, mass): Place) -> Region {
    Region {
        left,
        top,
        width,
        height,
        area,
        peak,
        peak_at,
        mass,
    }
}
