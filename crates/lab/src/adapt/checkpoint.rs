//! Checkpoints: what training leaves behind and scoring starts from, as a file that `torch.load(weights_only=True)`
//! opens.

use std::io::Write;
use std::path::{Path, PathBuf};

use flawtune_backbone::atomic_file::AtomicFile;
use flawtune_backbone::models;
use flawtune_backbone::torch_file::{self, Value};
use flawtune_backbone::vjp::Scaling;

use super::adaptation::{INITIAL_PROMPT_SCALE, mlp_shapes};
use super::inside::Inserted;
use super::self_scaled::RESIDUAL_SCALE;
use super::state::{history_value, int, tensor, word};
use super::{
    AdaptError, Adaptation, AdaptationOptions, ModulationType, PROMPT_SCALES, PROMPTS, Parameters,
    TrainState,
};

/// Highest version of what we write beyond the recipe's keys; a file with a higher one is refused. A file has version 1
/// unless a program that does not know what it holds would score it wrongly and must refuse it: tensors inside the
/// transformer, a learned factor on what the modulation adds. All other keys may be left unread.
pub const FORMAT_VERSION: usize = 3;
/// Version of a file with tensors inside the transformer.
const WITH_INSERTED: usize = 2;
/// Version of a file with a learned factor on what the modulation adds.
const WITH_RESIDUAL_SCALE: usize = 3;

/// The recipe's modulation and scaling factor, for files that do not say.
const RECIPE_MODULATION: ModulationType = ModulationType::Global;
const RECIPE_SCALING: f64 = 0.01;

/// Everything in a checkpoint file.
///
/// The recipe's keys are `model_name, category, num_prompts, prompts, history, args`; ours are `prompt_scales,
/// modulation_type, scaling_factor, use_cls, mlp.*, format_version, seed, best_epoch, weights_hash, preprocessing,
/// layers, split_manifest, resume`, and where training went through the backbone `insertions, vpt.*, adapters.*`. A file without ours is read with the recipe's values, looked for in its `args` first:
/// modulation `global`, scaling factor 0.01, patch tokens, and prompt scales of 0.1 (their first value: the recipe does
/// not save them and so scores with fresh ones).
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Backbone, as the user named it.
    pub model_name: String,
    /// Category trained on.
    pub category: String,
    /// What the adaptation is made of; the seed is that of the whole run.
    pub options: AdaptationOptions,
    /// Trained tensors.
    pub parameters: Parameters,
    /// Lists by name, one value an epoch.
    pub history: Value,
    /// Arguments of the command that made it.
    pub args: Value,
    /// Version of our keys; none in a file of the recipe.
    pub format_version: Option<usize>,
    /// Epoch the parameters come from, from 1.
    pub best_epoch: Option<usize>,
    /// Hash of the weights of the backbone.
    pub weights_hash: Option<String>,
    /// How images became pixels.
    pub preprocessing: Option<String>,
    /// Which blocks the tokens were taken from.
    pub layers: Option<String>,
    /// The hashed list of images used, as JSON.
    pub split_manifest: Option<String>,
    /// Where an interrupted training stands.
    pub resume: Option<TrainState>,
    /// Tensors inside the transformer, where training put any there.
    pub inserted: Option<Inserted>,
    /// Keys that this version does not know, kept when the file is written again.
    pub others: Vec<(String, Value)>,
}

/// Keys that [`Checkpoint`] has fields for.
const KNOWN: [&str; 19] = [
    "model_name",
    "category",
    "num_prompts",
    PROMPTS,
    PROMPT_SCALES,
    RESIDUAL_SCALE,
    "modulation_type",
    "scaling_factor",
    "use_cls",
    "history",
    "args",
    "format_version",
    "seed",
    "best_epoch",
    "weights_hash",
    "preprocessing",
    "layers",
    "split_manifest",
    "resume",
];

impl Checkpoint {
    /// Of an adaptation that no training of a category made. Fill in what is known.
    pub fn untrained(model_name: &str, category: &str, adaptation: &Adaptation) -> Self {
        Self {
            model_name: model_name.to_owned(),
            category: category.to_owned(),
            options: adaptation.options().clone(),
            parameters: adaptation.parameters().clone(),
            history: Value::Dict(Vec::new()),
            args: Value::Dict(Vec::new()),
            format_version: Some(1),
            best_epoch: None,
            weights_hash: None,
            preprocessing: None,
            layers: None,
            split_manifest: None,
            resume: None,
            inserted: None,
            others: Vec::new(),
        }
    }

    /// Of an adaptation and the training that made it. Fill in what else is known; `resume` is left empty.
    pub fn new(
        model_name: &str,
        category: &str,
        adaptation: &Adaptation,
        state: &TrainState,
    ) -> Self {
        Self {
            history: history_value(&state.history),
            best_epoch: Some(state.kept_epoch()),
            ..Self::untrained(model_name, category, adaptation)
        }
    }

    /// A key that this version has no field for.
    pub fn other(&self, key: &str) -> Option<&Value> {
        self.others
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Name of the checkpoint file of a category.
    pub fn file_name(category: &str) -> String {
        format!("{category}_prompts.pt")
    }

    /// The adaptation it holds.
    ///
    /// # Errors
    /// [`AdaptError::Missing`] or [`AdaptError::Shape`] if a tensor of its modulation is not there or does not fit.
    pub fn adaptation(&self) -> Result<Adaptation, AdaptError> {
        Adaptation::from_parameters(self.options.clone(), &self.parameters)
    }

    /// Numbers per prompt, and so per token.
    pub fn dim(&self) -> usize {
        self.parameters
            .get(PROMPTS)
            .and_then(|t| t.shape.last().copied())
            .unwrap_or(0)
    }

    /// Checks that it was made for a backbone: the same model under any of its names, and tokens of `dim` numbers.
    /// A model that we do not know under either name is compared by width only.
    ///
    /// # Errors
    /// [`AdaptError::OtherBackbone`], naming `path`.
    pub fn check_backbone(
        &self,
        path: &Path,
        model_name: &str,
        dim: usize,
    ) -> Result<(), AdaptError> {
        let known = |name: &str| models::find(name).ok().map(|v| v.name);
        let other = match (known(&self.model_name), known(model_name)) {
            (Some(a), Some(b)) => a != b,
            _ => false,
        };
        if !other && dim == self.dim() {
            return Ok(());
        }
        Err(AdaptError::OtherBackbone {
            path: path.to_owned(),
            found: format!("{} ({} numbers per token)", self.model_name, self.dim()),
            wanted: format!("{model_name} ({dim} numbers per token)"),
            name: self.model_name.clone(),
        })
    }

    /// Reads a checkpoint of ours or of the recipe.
    ///
    /// # Errors
    /// [`AdaptError::TorchFile`] if the file cannot be read, [`AdaptError::Checkpoint`] naming the key that is missing
    /// or wrong.
    pub fn read(path: &Path) -> Result<Self, AdaptError> {
        let value = torch_file::read(path)?;
        Self::from_value(&value).map_err(|what| AdaptError::Checkpoint {
            path: path.to_owned(),
            what,
        })
    }

    /// Writes the checkpoint, whole or not at all, and returns its path: `<folder>/<category>_prompts.pt`, with
    /// `<category>_history.json` beside it. The folder is made if it is not there.
    ///
    /// # Errors
    /// [`AdaptError::Io`] and [`AdaptError::TorchFile`].
    pub fn save(&self, folder: &Path) -> Result<PathBuf, AdaptError> {
        let io = |path: &Path, source| AdaptError::Io {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
        let history = folder.join(format!("{}_history.json", self.category));
        let mut file = AtomicFile::create(&history).map_err(|e| io(&history, e))?;
        let mut text = serde_json::to_string_pretty(&json(&self.history))
            .map_err(|e| io(&history, e.into()))?;
        text.push('\n');
        file.write_all(text.as_bytes())
            .map_err(|e| io(&history, e))?;
        let path = folder.join(Self::file_name(&self.category));
        torch_file::write(&path, &self.to_value())?;
        file.commit().map_err(|e| io(&history, e))?;
        Ok(path)
    }

    /// From the bytes of a torch file that [`Self::to_bytes`] made; an error says what is wrong.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        Self::from_value(&torch_file::read_bytes(bytes).map_err(|e| e.to_string())?)
    }

    /// The bytes of a torch file with what changes tokens: the history and all that is not needed for that are left out.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let bare = Self {
            history: Value::Dict(Vec::new()),
            args: Value::Dict(Vec::new()),
            split_manifest: None,
            resume: None,
            others: Vec::new(),
            ..self.clone()
        };
        torch_file::to_bytes(&bare.to_value()).map_err(|e| e.to_string())
    }

    /// The lowest version of a program that scores as this checkpoint says.
    fn version(&self) -> usize {
        match (self.options.residual_scaling, &self.inserted) {
            (Scaling::Fixed, None) => 1,
            (Scaling::Fixed, Some(_)) => WITH_INSERTED,
            _ => WITH_RESIDUAL_SCALE,
        }
    }

    /// As a value of a torch file.
    pub fn to_value(&self) -> Value {
        let text = |t: &Option<String>| t.clone().map_or(Value::None, Value::Str);
        let mut d: Vec<(String, Value)> = Vec::new();
        let mut put = |key: &str, value: Value| d.push((key.to_owned(), value));
        put("model_name", Value::Str(self.model_name.clone()));
        put("category", Value::Str(self.category.clone()));
        put("num_prompts", int(self.options.num_prompts));
        for t in &self.parameters {
            put(&t.name, tensor(t));
        }
        put(
            "modulation_type",
            Value::from(self.options.modulation.name()),
        );
        // through its shortest decimal form, so that 0.01 is saved as 0.01 and not as 0.009999999776
        let shortest = self.options.scaling_factor.to_string().parse();
        put(
            "scaling_factor",
            Value::Float(shortest.unwrap_or_else(|_| f64::from(self.options.scaling_factor))),
        );
        put("use_cls", Value::Bool(self.options.use_cls));
        put("history", self.history.clone());
        put("args", self.args.clone());
        put("format_version", int(self.version()));
        put("seed", word(self.options.seed));
        put("best_epoch", self.best_epoch.map_or(Value::None, int));
        put("weights_hash", text(&self.weights_hash));
        put("preprocessing", text(&self.preprocessing));
        put("layers", text(&self.layers));
        put("split_manifest", text(&self.split_manifest));
        put(
            "resume",
            self.resume
                .as_ref()
                .map_or(Value::None, TrainState::to_value),
        );
        d.extend(self.inserted.iter().flat_map(Inserted::entries));
        d.extend(self.others.iter().cloned());
        Value::dict(d)
    }

    /// From a value of a torch file; an error says which key is wrong.
    fn from_value(value: &Value) -> Result<Self, String> {
        let dict = value
            .as_dict()
            .ok_or_else(|| format!("its type is {}, wanted a dictionary", value.kind()))?;
        let args = value
            .get("args")
            .cloned()
            .unwrap_or_else(|| Value::Dict(Vec::new()));
        let wrong = |key: &str, wanted: &str| wrong(value, key, wanted);
        let present = |key: &str| value.get(key).filter(|v| !matches!(v, Value::None));
        // a key of ours, or the recipe's argument of that name
        let setting = |key: &str| {
            present(key).or_else(|| args.get(key).filter(|v| !matches!(v, Value::None)))
        };
        let text = |key: &str| match present(key) {
            None => Ok(None),
            Some(v) => v
                .as_str()
                .map(|s| Some(s.to_owned()))
                .ok_or_else(|| wrong(key, "text")),
        };
        let count = |key: &str| match present(key) {
            None => Ok(None),
            Some(v) => v.as_usize().map(Some).ok_or_else(|| wrong(key, "a count")),
        };
        let format_version = count("format_version")?;
        if let Some(version) = format_version.filter(|&v| v > FORMAT_VERSION) {
            return Err(format!(
                "format version {version} is newer than this program's {FORMAT_VERSION}\nhint: update it"
            ));
        }
        let Tensors {
            parameters,
            shape: [k, dim],
            residual_scaling,
        } = Tensors::of(value, count("num_prompts")?)?;
        let modulation = match setting("modulation_type") {
            None => RECIPE_MODULATION,
            Some(v) => v
                .as_str()
                .ok_or_else(|| wrong("modulation_type", "text"))?
                .parse()
                .map_err(|e: AdaptError| e.to_string())?,
        };
        let scaling_factor = match setting("scaling_factor") {
            None => RECIPE_SCALING,
            Some(v) => v
                .as_f64()
                .ok_or_else(|| wrong("scaling_factor", "a number"))?,
        } as f32;
        let use_cls = match setting("use_cls") {
            None => false,
            Some(v) => v
                .as_bool()
                .ok_or_else(|| wrong("use_cls", "True or False"))?,
        };
        let seed = match setting("seed") {
            Some(Value::Int(seed)) => seed.cast_unsigned(),
            _ => 0,
        };
        let resume = match present("resume") {
            None => None,
            Some(v) => Some(
                TrainState::from_value(v)
                    .map_err(|key| format!("'resume.{key}' is missing or wrong"))?,
            ),
        };
        Ok(Self {
            model_name: text("model_name")?.ok_or_else(|| wrong("model_name", "text"))?,
            category: text("category")?.ok_or_else(|| wrong("category", "text"))?,
            options: AdaptationOptions {
                modulation,
                num_prompts: k,
                scaling_factor,
                use_cls,
                residual_scaling,
                seed,
            },
            parameters,
            history: value
                .get("history")
                .cloned()
                .unwrap_or_else(|| Value::Dict(Vec::new())),
            args,
            format_version,
            best_epoch: count("best_epoch")?,
            weights_hash: text("weights_hash")?,
            preprocessing: text("preprocessing")?,
            layers: text("layers")?,
            split_manifest: text("split_manifest")?,
            resume,
            inserted: Inserted::from_value(value)?,
            others: others(dict, dim),
        })
    }
}

/// The trained tensors of a file.
struct Tensors {
    parameters: Parameters,
    /// Number and width of the prompts.
    shape: [usize; 2],
    residual_scaling: Scaling,
}

/// What a file says beside what is known here, with prompts of `dim` numbers.
fn others(dict: &[(Value, Value)], dim: usize) -> Vec<(String, Value)> {
    let mlp = mlp_shapes(dim);
    let is_other = |key: &str| {
        !KNOWN.contains(&key) && !Inserted::is_key(key) && mlp.iter().all(|(name, _)| *name != key)
    };
    dict.iter()
        .filter_map(|(key, v)| Some((key.as_str().filter(|key| is_other(key))?, v)))
        .map(|(key, v)| (key.to_owned(), v.clone()))
        .collect()
}

/// What is wrong with the value of a key.
fn wrong(value: &Value, key: &str, wanted: &str) -> String {
    match value.get(key) {
        Some(v) => format!("'{key}' has the type {}, wanted {wanted}", v.kind()),
        None => format!("'{key}' is missing"),
    }
}

impl Tensors {
    fn of(value: &Value, num_prompts: Option<usize>) -> Result<Self, String> {
        let wrong = |key: &str, wanted: &str| wrong(value, key, wanted);
        let present = |key: &str| value.get(key).filter(|v| !matches!(v, Value::None));
        let prompts = value
            .get(PROMPTS)
            .and_then(Value::as_tensor)
            .ok_or_else(|| wrong(PROMPTS, "a tensor"))?;
        let &[k, dim] = &prompts.shape[..] else {
            return Err(format!(
                "'prompts' has shape {:?}, wanted [number, width]",
                prompts.shape
            ));
        };
        if k == 0 || dim == 0 || num_prompts.is_some_and(|n| n != k) {
            return Err(format!(
                "'prompts' has shape {:?}, which does not fit 'num_prompts'",
                prompts.shape
            ));
        }
        let mut parameters = Parameters::new();
        let mut push = |name: &str, shape: &[usize], data| {
            parameters
                .push(name, shape, data)
                .map_err(|e| e.to_string())
        };
        push(PROMPTS, &[k, dim], prompts.to_f32())?;
        match present(PROMPT_SCALES) {
            None => push(PROMPT_SCALES, &[k], vec![INITIAL_PROMPT_SCALE; k])?,
            Some(v) => {
                let t = v
                    .as_tensor()
                    .ok_or_else(|| wrong(PROMPT_SCALES, "a tensor"))?;
                if t.shape != [k] {
                    return Err(format!(
                        "'{PROMPT_SCALES}' has shape {:?}, wanted [{k}]",
                        t.shape
                    ));
                }
                push(PROMPT_SCALES, &[k], t.to_f32())?;
            }
        }
        let mlp = mlp_shapes(dim);
        for (name, _) in &mlp {
            if let Some(v) = value.get(name) {
                let t = v.as_tensor().ok_or_else(|| wrong(name, "a tensor"))?;
                push(name, &t.shape, t.to_f32())?;
            }
        }
        let mut residual_scaling = Scaling::Fixed;
        if let Some(v) = present(RESIDUAL_SCALE) {
            let t = v
                .as_tensor()
                .ok_or_else(|| wrong(RESIDUAL_SCALE, "a tensor"))?;
            residual_scaling = match t.shape[..] {
                [1] => Scaling::Scalar,
                [n] if n == dim => Scaling::Channel,
                _ => {
                    return Err(format!(
                        "'{RESIDUAL_SCALE}' has shape {:?}, wanted [1] or [{dim}]",
                        t.shape
                    ));
                }
            };
            push(RESIDUAL_SCALE, &t.shape, t.to_f32())?;
        }
        Ok(Self {
            parameters,
            shape: [k, dim],
            residual_scaling,
        })
    }
}

/// A value as JSON: tuples become lists, bytes and tensors their sizes, numbers that are not finite null.
pub fn json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::None => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(i) => Json::from(*i),
        Value::Float(f) => Json::from(*f),
        Value::Str(s) => Json::from(s.as_str()),
        Value::Bytes(b) => Json::from(format!("{} bytes", b.len())),
        Value::List(l) | Value::Tuple(l) => Json::Array(l.iter().map(json).collect()),
        Value::Tensor(t) => Json::from(format!("{} {:?}", t.dtype.name(), t.shape)),
        Value::Dict(d) => {
            let key = |k: &Value| {
                k.as_str()
                    .map_or_else(|| json(k).to_string(), str::to_owned)
            };
            Json::Object(d.iter().map(|(k, v)| (key(k), json(v))).collect())
        }
    }
}
