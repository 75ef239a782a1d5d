//! The curves of a training for TensorBoard.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use flawtune::report::tensorboard::{EventFile, EventFileError};
use flawtune::workflow::Event;
use flawtune_backbone::atomic_file;
use flawtune_backbone::torch_file::Value;

use crate::failure::Failure;

/// Writes an event file for each training: in the category's folder, and in one of its own for each part of a cross-validation.
pub(super) struct Curves {
    folder: PathBuf,
    settings: String,
    file: Option<EventFile>,
}

impl Curves {
    /// # Errors
    /// Nothing can be written there.
    pub(super) fn new(
        folder: &Path,
        category: &str,
        settings: &[(String, Value)],
    ) -> Result<Self, Failure> {
        let folder = folder.join(category);
        std::fs::create_dir_all(&folder)
            .and_then(|()| atomic_file::probe(&folder))
            .map_err(|e| {
                let folder = folder.display();
                Failure::Input(format!(
                    "{folder}: {e}\nhint: choose a folder that can be written with --tensorboard"
                ))
            })?;
        Ok(Self {
            folder,
            settings: table(settings),
            file: None,
        })
    }

    /// Adds what the event says.
    ///
    /// # Errors
    /// The file cannot be written any more.
    pub(super) fn add(&mut self, event: &Event<'_>) -> Result<(), EventFileError> {
        match event {
            Event::Training {
                part, resumed_at, ..
            } => {
                let folder = match part {
                    Some((part, _)) => &self.folder.join(format!("part_{part}")),
                    None => &self.folder,
                };
                // what a run that was interrupted, or an earlier one in this folder, said of the epochs to come
                let first = if *resumed_at > 0 { resumed_at + 1 } else { 0 };
                let mut file = EventFile::create(folder, first)?;
                if first == 0 {
                    file.text(0, "settings", &self.settings)?;
                }
                self.file = Some(file);
            }
            Event::Epoch(report) => {
                let r = &report.record;
                let mut values = vec![
                    ("loss", r.loss),
                    ("separability", r.separability),
                    ("mu_nn", r.mu_nn),
                    ("mu_nd", r.mu_nd),
                    ("learning_rate", r.learning_rate),
                    ("grad_norm", r.grad_norm),
                ];
                values.extend(r.hold_out.map(|h| ("hold_out", h)));
                if let Some(file) = &mut self.file {
                    file.scalars(r.epoch, &values)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The settings as a table in Markdown.
fn table(settings: &[(String, Value)]) -> String {
    let mut text = "| setting | value |\n|---|---|\n".to_owned();
    for (name, value) in settings {
        let value = match value {
            Value::Str(text) => text.replace('|', "\\|"),
            Value::Int(n) => n.to_string(),
            Value::Float(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            _ => continue,
        };
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_a_table() {
        let settings = [
            ("category".to_owned(), Value::Str("a|b".into())),
            ("learning_rate".to_owned(), Value::Float(0.001)),
            ("num_prompts".to_owned(), Value::Int(10)),
        ];
        let rows = "| category | a\\|b |\n| learning_rate | 0.001 |\n| num_prompts | 10 |\n";
        assert_eq!(
            table(&settings),
            format!("| setting | value |\n|---|---|\n{rows}")
        );
    }
}
