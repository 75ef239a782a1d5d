//! Where training stands: everything needed to go on as if it had not stopped.

use flawtune_backbone::torch_file::{Tensor, Value};

use super::batches::SamplerState;
use super::{Adam, AdaptError, EpochSteps, Loss, NamedTensor, Parameters, ScalePenalty, ScoreLoss};
use super::{EpochRecord, TrainOptions};

/// The epoch that did best on the hold-out; the earliest among equals.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Its metric.
    pub metric: f64,
    /// Parameters after it.
    pub parameters: Parameters,
}

/// The settings that must not change when training is resumed.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Seed of the order of the images.
    pub seed: u64,
    /// Epochs in all.
    pub epochs: usize,
    /// First learning rate.
    pub learning_rate: f64,
    /// Images in a batch.
    pub batch_size: usize,
    /// What is minimised.
    pub loss: Loss,
    /// Length of an epoch.
    pub epoch_steps: EpochSteps,
    /// Limit of the gradient's norm.
    pub clip_norm: Option<f64>,
    /// What holds learned scales near their start.
    pub scale_penalty: ScalePenalty,
    /// Number of normals trained on.
    pub normals: usize,
    /// Number of defects trained on.
    pub defects: usize,
}

impl Settings {
    /// Of a run.
    pub(super) fn of(options: &TrainOptions, normals: usize, defects: usize) -> Self {
        Self {
            seed: options.seed,
            epochs: options.epochs,
            learning_rate: options.learning_rate,
            batch_size: options.batch_size,
            loss: options.loss,
            epoch_steps: options.epoch_steps,
            clip_norm: options.clip_norm,
            scale_penalty: options.scale_penalty,
            normals,
            defects,
        }
    }

    /// Compares the settings of a saved state (`self`) with those asked for.
    pub(super) fn check(&self, asked: &Self) -> Result<(), AdaptError> {
        let differs =
            |what, saved: String, asked: String| Err(AdaptError::Resume { what, saved, asked });
        let clip = |c: Option<f64>| c.map_or("off".to_owned(), |c| c.to_string());
        if self.seed != asked.seed {
            return differs("the seed", self.seed.to_string(), asked.seed.to_string());
        }
        if self.learning_rate != asked.learning_rate {
            return differs(
                "the learning rate",
                self.learning_rate.to_string(),
                asked.learning_rate.to_string(),
            );
        }
        if self.loss != asked.loss {
            return differs(
                "the loss",
                format!("{:?}", self.loss),
                format!("{:?}", asked.loss),
            );
        }
        if self.epoch_steps != asked.epoch_steps {
            let name = |e: EpochSteps| e.name().to_owned();
            return differs(
                "the length of an epoch",
                name(self.epoch_steps),
                name(asked.epoch_steps),
            );
        }
        if self.clip_norm != asked.clip_norm {
            return differs(
                "the gradient clipping",
                clip(self.clip_norm),
                clip(asked.clip_norm),
            );
        }
        if self.scale_penalty != asked.scale_penalty {
            let text = |p: ScalePenalty| p.0.to_string();
            return differs(
                "the scale penalty",
                text(self.scale_penalty),
                text(asked.scale_penalty),
            );
        }
        for (what, saved, asked) in [
            ("the number of epochs", self.epochs, asked.epochs),
            ("the batch size", self.batch_size, asked.batch_size),
            ("the number of normal images", self.normals, asked.normals),
            ("the number of defect images", self.defects, asked.defects),
        ] {
            if saved != asked {
                return differs(what, saved.to_string(), asked.to_string());
            }
        }
        Ok(())
    }
}

/// Training after a whole number of epochs.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// Settings of the run.
    pub settings: Settings,
    /// Parameters after the last epoch.
    pub parameters: Parameters,
    /// Moments of the optimiser.
    pub adam: Adam,
    /// Random numbers and order of the images.
    pub sampler: SamplerState,
    /// Epochs done.
    pub epochs_done: usize,
    /// The best epoch on the hold-out, if there is one.
    pub best: Option<Best>,
    /// The hold-out metric without any adaptation.
    pub zero_shot_hold_out: Option<f64>,
    /// One record an epoch.
    pub history: Vec<EpochRecord>,
}

impl TrainState {
    /// The parameters worth keeping: those of the best epoch on the hold-out, or without one those of the last.
    pub fn kept(&self) -> &Parameters {
        self.best
            .as_ref()
            .map_or(&self.parameters, |b| &b.parameters)
    }

    /// The epoch that [`Self::kept`] comes from; 0 before the first.
    pub fn kept_epoch(&self) -> usize {
        self.best.as_ref().map_or(self.epochs_done, |b| b.epoch)
    }

    /// Whether all epochs are done.
    pub fn is_complete(&self) -> bool {
        self.epochs_done >= self.settings.epochs
    }

    /// As a value of a torch file.
    pub fn to_value(&self) -> Value {
        let s = &self.settings;
        let margin = if let Loss::Contrastive { margin } = s.loss {
            Value::Float(margin)
        } else {
            Value::None
        };
        let optional = |v: Option<f64>| v.map_or(Value::None, Value::Float);
        let of_scores = |f: fn(ScoreLoss) -> f64| {
            if let Loss::Scores(loss) = s.loss {
                Value::Float(f(loss))
            } else {
                Value::None
            }
        };
        let settings = Value::dict([
            ("seed", word(s.seed)),
            ("epochs", int(s.epochs)),
            ("learning_rate", Value::Float(s.learning_rate)),
            ("batch_size", int(s.batch_size)),
            ("loss_type", Value::from(s.loss.name())),
            ("margin", margin),
            ("loss_top_fraction", of_scores(|l| l.top_fraction)),
            ("loss_temperature", of_scores(|l| l.temperature)),
            ("epoch_steps", Value::from(s.epoch_steps.name())),
            ("clip_norm", optional(s.clip_norm)),
            ("scale_penalty", Value::Float(s.scale_penalty.0)),
            ("normals", int(s.normals)),
            ("defects", int(s.defects)),
        ]);
        let sampler = Value::dict([
            ("normals_position", word(self.sampler.normals_position)),
            ("defects_position", word(self.sampler.defects_position)),
            (
                "order",
                Value::List(self.sampler.order.iter().map(|&i| int(i)).collect()),
            ),
            ("next", int(self.sampler.next)),
        ]);
        let best = self.best.as_ref().map_or(Value::None, |b| {
            Value::dict([
                ("epoch", int(b.epoch)),
                ("metric", Value::Float(b.metric)),
                ("parameters", tensors(&b.parameters)),
            ])
        });
        Value::dict([
            ("settings", settings),
            ("parameters", tensors(&self.parameters)),
            ("adam_steps", word(self.adam.steps)),
            ("adam_first", tensors(&self.adam.first)),
            ("adam_second", tensors(&self.adam.second)),
            ("sampler", sampler),
            ("epochs_done", int(self.epochs_done)),
            ("best", best),
            ("zero_shot_hold_out", optional(self.zero_shot_hold_out)),
            ("history", history_value(&self.history)),
        ])
    }

    /// From a value of a torch file; an error is the key that is missing or has the wrong type.
    ///
    /// # Errors
    /// The path of the key, such as `sampler.order`.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        let part = |key: &str| value.get(key).ok_or_else(|| key.to_owned());
        let number = |v: &Value, key: &str| {
            v.get(key)
                .and_then(Value::as_usize)
                .ok_or_else(|| key.to_owned())
        };
        let float = |v: &Value, key: &str| {
            v.get(key)
                .and_then(Value::as_f64)
                .ok_or_else(|| key.to_owned())
        };
        let optional = |v: &Value, key: &str| match v.get(key) {
            None | Some(Value::None) => Ok(None),
            Some(v) => v.as_f64().map(Some).ok_or_else(|| key.to_owned()),
        };
        let s = part("settings")?;
        let loss = match s.get("loss_type").and_then(Value::as_str) {
            Some("separability") => Loss::Separability,
            Some("contrastive") => Loss::Contrastive {
                margin: float(s, "margin")?,
            },
            Some(name) => match name.parse() {
                Ok(Loss::Scores(loss)) => Loss::Scores(ScoreLoss {
                    top_fraction: float(s, "loss_top_fraction")?,
                    temperature: float(s, "loss_temperature")?,
                    ..loss
                }),
                _ => return Err("settings.loss_type".to_owned()),
            },
            None => return Err("settings.loss_type".to_owned()),
        };
        let epoch_steps = match s.get("epoch_steps").and_then(Value::as_str) {
            Some("full_pass") => EpochSteps::FullPass,
            Some("one") => EpochSteps::One,
            _ => return Err("settings.epoch_steps".to_owned()),
        };
        let settings = Settings {
            seed: read_word(s, "seed")?,
            epochs: number(s, "epochs")?,
            learning_rate: float(s, "learning_rate")?,
            batch_size: number(s, "batch_size")?,
            loss,
            epoch_steps,
            clip_norm: optional(s, "clip_norm")?,
            // states from before there was one
            scale_penalty: ScalePenalty(optional(s, "scale_penalty")?.unwrap_or(0.0)),
            normals: number(s, "normals")?,
            defects: number(s, "defects")?,
        };
        let parameters = read_tensors(part("parameters")?, "parameters")?;
        let adam = Adam {
            steps: read_word(value, "adam_steps")?,
            first: read_tensors(part("adam_first")?, "adam_first")?,
            second: read_tensors(part("adam_second")?, "adam_second")?,
        };
        let same = |p: &Parameters| parameters.same_layout(p).map_err(|e| e.to_string());
        same(&adam.first)?;
        same(&adam.second)?;
        let sampler = part("sampler")?;
        let order = sampler
            .get("order")
            .and_then(Value::as_list)
            .ok_or("sampler.order")?;
        let order: Option<Vec<usize>> = order.iter().map(Value::as_usize).collect();
        let sampler = SamplerState {
            normals_position: read_word(sampler, "normals_position")?,
            defects_position: read_word(sampler, "defects_position")?,
            order: order.ok_or("sampler.order")?,
            next: number(sampler, "next")?,
        };
        let best = match part("best")? {
            Value::None => None,
            b => {
                let best = read_tensors(
                    b.get("parameters").ok_or("best.parameters")?,
                    "best.parameters",
                )?;
                same(&best)?;
                Some(Best {
                    epoch: number(b, "epoch")?,
                    metric: float(b, "metric")?,
                    parameters: best,
                })
            }
        };
        let history = read_history(part("history")?).ok_or("history")?;
        let epochs_done = number(value, "epochs_done")?;
        if history.len() != epochs_done || best.as_ref().is_some_and(|b| b.epoch > epochs_done) {
            return Err("epochs_done".to_owned());
        }
        let zero_shot_hold_out = optional(value, "zero_shot_hold_out")?;
        Ok(Self {
            settings,
            parameters,
            adam,
            sampler,
            epochs_done,
            best,
            zero_shot_hold_out,
            history,
        })
    }
}

/// A count.
pub(crate) fn int(v: usize) -> Value {
    Value::Int(v as i64)
}

/// A 64-bit word: the same bits as a signed integer.
pub(super) fn word(v: u64) -> Value {
    Value::Int(v.cast_signed())
}

fn read_word(v: &Value, key: &str) -> Result<u64, String> {
    match v.get(key) {
        Some(Value::Int(i)) => Ok(i.cast_unsigned()),
        _ => Err(key.to_owned()),
    }
}

/// A dictionary of tensors.
pub(super) fn tensors(p: &Parameters) -> Value {
    Value::dict(p.iter().map(|t| (t.name.clone(), tensor(t))))
}

/// A float tensor.
pub(super) fn tensor(t: &NamedTensor) -> Value {
    Value::Tensor(Tensor::from_f32(t.shape.clone(), &t.data))
}

fn read_tensors(v: &Value, key: &str) -> Result<Parameters, String> {
    let mut p = Parameters::new();
    for (name, value) in v.as_dict().ok_or_else(|| key.to_owned())? {
        let (Some(name), Some(t)) = (name.as_str(), value.as_tensor()) else {
            return Err(key.to_owned());
        };
        p.push(name, &t.shape, t.to_f32())
            .map_err(|e| e.to_string())?;
    }
    Ok(p)
}

/// Columns of the history: name, and how to get at the field.
type Column = (&'static str, fn(&EpochRecord) -> f64);

/// The columns that every epoch has.
const COLUMNS: [Column; 8] = [
    ("loss", |r| r.loss),
    ("separability", |r| r.separability),
    ("mu_nn", |r| r.mu_nn),
    ("mu_nd", |r| r.mu_nd),
    ("sd_nn", |r| r.sd_nn),
    ("sd_nd", |r| r.sd_nd),
    ("learning_rate", |r| r.learning_rate),
    ("grad_norm", |r| r.grad_norm),
];

/// The history as lists by name, as in the recipe's checkpoints; `hold_out` holds None where it was not measured.
pub(super) fn history_value(history: &[EpochRecord]) -> Value {
    let mut lists: Vec<(String, Value)> = COLUMNS
        .iter()
        .map(|(name, get)| ((*name).to_owned(), Value::floats(history.iter().map(get))))
        .collect();
    let held_out = history
        .iter()
        .map(|r| r.hold_out.map_or(Value::None, Value::Float))
        .collect();
    lists.push(("hold_out".to_owned(), Value::List(held_out)));
    Value::dict(lists)
}

fn read_history(v: &Value) -> Option<Vec<EpochRecord>> {
    let columns: Option<Vec<Vec<f64>>> = COLUMNS
        .iter()
        .map(|(name, _)| v.get(name)?.to_f64s())
        .collect();
    let columns = columns?;
    let held_out = v.get("hold_out")?.as_list()?;
    if columns.iter().any(|c| c.len() != held_out.len()) {
        return None;
    }
    let record = |i: usize| EpochRecord {
        epoch: i + 1,
        loss: columns[0][i],
        separability: columns[1][i],
        mu_nn: columns[2][i],
        mu_nd: columns[3][i],
        sd_nn: columns[4][i],
        sd_nd: columns[5][i],
        learning_rate: columns[6][i],
        grad_norm: columns[7][i],
        hold_out: held_out[i].as_f64(),
    };
    Some((0..held_out.len()).map(record).collect())
}
