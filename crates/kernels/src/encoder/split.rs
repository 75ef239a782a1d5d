//! How a product is dealt out to the threads.

use std::ops::Range;

use super::weight::{PackedLinear, Weight};

/// Tasks a thread should find in a phase, so that a thread that is held up does not hold up the others.
const TASKS_PER_WORKER: usize = 8;

/// How the tiles and panels of a product are dealt out to tasks.
pub(super) struct Split {
    tiles: usize,
    panels: usize,
    per_task: usize,
    /// Panels of a task; all of them where tasks are not cut by panels.
    group: usize,
}

/// Tiles of a task when it has all panels to itself: their weights stay in the second-level cache.
const TILES_PER_TASK: usize = 8;
/// Tasks that a panel is cut into when there are many panels.
const TASKS_PER_PANEL: usize = 4;
/// Bytes of panels that share a widened tile: they stay in the second-level cache.
const WIDENED_FOR: usize = 640 << 10;

impl Split {
    /// For `panels` panels of at most `panel` lanes and `workers` threads.
    pub(super) fn new(layer: &PackedLinear, panels: usize, panel: usize, workers: usize) -> Self {
        let tiles = layer.tiles;
        // with many panels a task takes one of them, which then stays near for all its tiles
        if panels < TASKS_PER_WORKER * workers {
            let per_task = (tiles / (workers * TASKS_PER_WORKER)).clamp(1, TILES_PER_TASK);
            return Self {
                tiles,
                panels,
                per_task,
                group: panels,
            };
        }
        // weights that have to be widened first are widened for several
        let group = match layer.weight {
            Weight::Halves(_) => (WIDENED_FOR / (4 * layer.inputs * panel)).max(1),
            _ => 1,
        };
        Self {
            tiles,
            panels,
            per_task: tiles.div_ceil(TASKS_PER_PANEL),
            group,
        }
    }

    /// How many tasks.
    pub(super) fn tasks(&self) -> usize {
        self.tiles.div_ceil(self.per_task) * self.panels.div_ceil(self.group.max(1))
    }

    /// The tiles and panels of a task.
    pub(super) fn part(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let blocks = self.tiles.div_ceil(self.per_task);
        let block = task % blocks;
        let tiles = block * self.per_task..((block + 1) * self.per_task).min(self.tiles);
        let panel = task / blocks * self.group;
        (tiles, panel..(panel + self.group).min(self.panels))
    }
}
