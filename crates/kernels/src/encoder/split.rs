//! How a product is dealt out to the threads.

use std::ops::Range;

use super::weight::PackedLinear;

/// Tasks a thread should find in a phase, so that a thread that is held up does not hold up the others.
const TASKS_PER_WORKER: usize = 8;

/// How the tiles and panels of a product are dealt out to tasks.
pub(super) struct Split {
    tiles: usize,
    panels: usize,
    per_task: usize,
    by_panel: bool,
}

/// Tiles of a task when it has all panels to itself: their weights stay in the second-level cache.
const TILES_PER_TASK: usize = 8;
/// Tasks that a panel is cut into when there are many panels.
const TASKS_PER_PANEL: usize = 4;

impl Split {
    /// For `panels` panels and `workers` threads.
    pub(super) fn new(layer: &PackedLinear, panels: usize, workers: usize) -> Self {
        let tiles = layer.tiles;
        // with many panels a task takes one of them, which then stays near for all its tiles
        let by_panel = panels >= TASKS_PER_WORKER * workers;
        let per_task = if by_panel {
            tiles.div_ceil(TASKS_PER_PANEL)
        } else {
            (tiles / (workers * TASKS_PER_WORKER)).clamp(1, TILES_PER_TASK)
        };
        Self { tiles, panels, per_task, by_panel }
    }

    /// How many tasks.
    pub(super) fn tasks(&self) -> usize {
        self.tiles.div_ceil(self.per_task) * if self.by_panel { self.panels } else { 1 }
    }

    /// The tiles and panels of a task.
    pub(super) fn part(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let blocks = self.tiles.div_ceil(self.per_task);
        let block = task % blocks;
        let tiles = block * self.per_task..((block + 1) * self.per_task).min(self.tiles);
        let panel = task / blocks;
        (tiles, if self.by_panel { panel..panel + 1 } else { 0..self.panels })
    }
}
