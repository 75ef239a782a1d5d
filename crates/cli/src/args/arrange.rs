//! How the options of a command stand in its help: under headings, the most wanted first, and those for experts in `--help` only.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// Headings, and under each the options in their order. What stands nowhere here is under 'Options'.
const HEADINGS: [(&str, &[&str]); 8] = [
    (
        "Images",
        &[
            "good",
            "defect",
            "masks",
            "root_dir",
            "category",
            "num_defect_samples",
            "exclude",
            "exclude_from",
            "roi",
            "list",
            "test_good",
            "layout",
            "visa_split",
            "skip_bad_images",
            "strict",
            "protocol",
            "defect_type",
            "pool_size",
            "holdout_fraction",
            "shot_masks",
            "augment_defects",
            "watch",
            "source",
            "every",
            "on_trigger",
            "line",
            "ffmpeg",
        ],
    ),
    (
        "Verdicts",
        &[
            "webhook",
            "webhook_secret_file",
            "webhook_patience",
            "mqtt",
            "mqtt_ca",
            "verdicts",
            "sorted",
        ],
    ),
    (
        "Who comes in, and how much",
        &[
            "listen",
            "token_file",
            "tls_cert",
            "tls_key",
            "queue",
            "timeout",
            "max_upload",
        ],
    ),
    (
        "Backbone",
        &[
            "model_name",
            "weights",
            "image_size",
            "resize",
            "blocks",
            "precision",
            "layers",
            "combine_layers",
            "filter",
            "tile_size",
            "tile_overlap",
            "exif_orientation",
            "bit_depth",
            "round_rope_periods",
            "cache_dir",
            "no_cache",
        ],
    ),
    (
        "Scorer",
        &[
            "scorer",
            "checkpoint",
            "budget",
            "search",
            "no_search",
            "support_shots",
            "coreset",
            "rotations",
            "neighbourhood",
            "top_fraction",
            "k_neighbors",
            "mask",
            "index",
            "index_probes",
            "bank_precision",
            "max_memory",
            "no_guard",
            "scorers",
            "ensemble_layers",
            "no_ensemble",
        ],
    ),
    (
        "Threshold",
        &[
            "max_false_alarm",
            "threshold",
            "false_alarms",
            "find",
            "value",
        ],
    ),
    (
        "Output",
        &[
            "output",
            "output_dir",
            "format",
            "maps",
            "map_format",
            "sort_into",
            "journal",
            "tensorboard",
            "force",
            "aupro_limit",
            "bootstrap",
        ],
    ),
    (
        "Run",
        &[
            "json",
            "quiet",
            "progress",
            "threads",
            "seed",
            "resume",
            "batch_size",
            "config",
            "no_config",
            "max_megapixels",
        ],
    ),
];

/// Options that few need: `-h` does not show them.
const FOR_EXPERTS: &[&str] = &[
    "adapter_dim",
    "aupro_limit",
    "bank_precision",
    "batch_size",
    "bit_depth",
    "bootstrap",
    "cache_dir",
    "combine_layers",
    "coreset",
    "ensemble_layers",
    "exclude_from",
    "exif_orientation",
    "ffmpeg",
    "filter",
    "grad_clip",
    "holdout_fraction",
    "index",
    "index_probes",
    "k_neighbors",
    "keep",
    "layers",
    "log_json",
    "loss_temperature",
    "loss_top_fraction",
    "map_format",
    "mask",
    "max_megapixels",
    "max_memory",
    "max_upload",
    "mqtt_ca",
    "neighbourhood",
    "no_cache",
    "no_config",
    "no_guard",
    "no_search",
    "pool_size",
    "progress",
    "prompt_dropout",
    "prompt_init",
    "queue",
    "round_rope_periods",
    "scaling_penalty",
    "shot_masks",
    "strict",
    "test_good",
    "tile_overlap",
    "tile_size",
    "timeout",
    "top_fraction",
    "visa_split",
    "webhook_patience",
];

/// The command line of flawtune, arranged.
pub(crate) fn command() -> Command {
    arranged(Cli::command())
}

/// `fit` has defaults of its own for what others take too.
fn of_fit(fit: Command) -> Command {
    fit.mut_arg("image_size", |arg| {
        arg.help(
            "Sizes that images are looked at, in pixels: sides of squares, or WxH such as 448x224; of several the scores are \
             averaged [default: 448,224]",
        )
    })
    // 'blocks' is what it is called here
    .mut_arg("layers", |arg| arg.hide(true))
}

fn arranged(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let id = arg.get_id().as_str().to_owned();
        let place = HEADINGS.iter().find_map(|(heading, ids)| {
            let at = ids.iter().position(|known| *known == id)?;
            Some((*heading, at))
        });
        let hidden = FOR_EXPERTS.contains(&&*id) || arg.is_hide_short_help_set();
        let arg = arg.hide_short_help(hidden);
        match place {
            Some((heading, at)) if arg.get_help_heading().is_none() && !arg.is_positional() => {
                arg.help_heading(heading).display_order(at)
            }
            _ => arg,
        }
    });
    let command = match command.get_name() {
        "fit" => of_fit(command),
        _ => command,
    };
    command.mut_subcommands(arranged)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ids(command: &Command, all: &mut BTreeSet<String>) {
        all.extend(command.get_arguments().map(|a| a.get_id().to_string()));
        command.get_subcommands().for_each(|below| ids(below, all));
    }

    #[test]
    fn every_option_that_is_arranged_exists_once() {
        let mut known = BTreeSet::new();
        ids(&command(), &mut known);
        let mut seen = BTreeSet::new();
        for id in HEADINGS.iter().flat_map(|(_, ids)| *ids) {
            assert!(known.contains(*id) && seen.insert(*id), "{id}");
        }
        for id in FOR_EXPERTS {
            assert!(known.contains(*id), "{id}");
        }
    }

    #[test]
    fn the_short_help_of_everyday_commands_is_a_page() {
        for name in [
            "demo",
            "fit",
            "predict",
            "evaluate",
            "learn",
            "threshold",
            "report",
            "serve",
        ] {
            let mut root = command();
            root.build();
            let found = root.find_subcommand_mut(name).unwrap();
            let shown = found
                .get_arguments()
                .filter(|a| !a.is_hide_set() && !a.is_hide_short_help_set() && !a.is_global_set());
            assert!(shown.count() <= 30, "{name}");
        }
    }
}
