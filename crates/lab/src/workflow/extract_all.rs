//! Features of a whole category, taken into the cache before many jobs need them at once.

use super::{Category, Engine, Event, OnEvent, TrainRequest, WorkflowError, ensemble};
use flawtune::features::Forward as _;

/// Images whose tokens are held at once.
const AT_ONCE: usize = 256;

/// Extracts what the request's training and its evaluation would, every image of the category, and keeps it in the
/// request's cache; without a cache nothing is extracted. Returns a hash of what the features are made of: images,
/// what each is for, weights, blocks, preprocessing.
///
/// # Errors
/// Anything wrong with the data or the backbone.
pub fn extract_all(request: &TrainRequest, on_event: OnEvent<'_>) -> Result<String, WorkflowError> {
    let category = Category::open(&request.data, on_event)?;
    let engine = Engine::open(request.backbone.clone(), on_event)?;
    let ensemble = request
        .ensemble
        .as_ref()
        .map(|how| ensemble::plan(&engine, how, on_event))
        .transpose()?;
    let all: Vec<usize> = (0..category.dataset.samples.len()).collect();
    let mut hasher = blake3::Hasher::new();
    // the same images in other parts or of other types are split otherwise
    for info in category.infos() {
        for text in [info.id, info.defect_type.unwrap_or_default()] {
            hasher.update(text.as_bytes());
            hasher.update(&[0]);
        }
        hasher.update(&[u8::from(info.is_train)]);
        hasher.update(info.content.as_bytes());
    }
    for engine in std::iter::once(&engine).chain(ensemble.as_ref().map(ensemble::Planned::engine)) {
        for text in [
            engine.weights_hash(),
            &engine.variant(),
            &engine.preprocess().id(),
        ] {
            hasher.update(text.as_bytes());
            hasher.update(&[0]);
        }
        if request.data.cache.is_some() {
            // one call a chunk would say as many times how many came from the cache
            for chunk in all.chunks(AT_ONCE) {
                category.tokens(engine, chunk, &mut |event| {
                    if !matches!(event, Event::Note(_)) {
                        on_event(event);
                    }
                })?;
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
