//! From coarse bounds to the largest product: who is still in the contest, and who wins it.

use super::sweep::{Chosen, Contender, LANE_ASKS, ROW_ASKS, Scan, Sweep};
use super::{Sketch, margin, spread};
use crate::buffer::Buffer;
use crate::lanes::Lanes;

/// Where more than one in so many products contends, the plain path is faster.
const CROWD: usize = 6;

/// Two sketched images in one frame: patches of the one ask, those of the other answer.
pub(in super::super) struct Contest<'a> {
    pub(in super::super) lanes: Lanes,
    pub(in super::super) a: &'a Sketch,
    pub(in super::super) b: &'a Sketch,
}

/// Working memory of one thread.
#[derive(Default)]
pub(in super::super) struct Room {
    upper: Buffer,
    lower: Buffer,
    row_lower: Buffer,
    row_limit: Vec<f32>,
    row_error: Vec<f32>,
    tops: Buffer,
    contenders: Vec<Contender>,
    /// Contenders of each patch of the lanes, and of the rows.
    lane_count: Vec<u32>,
    row_count: Vec<u32>,
    /// Those that are not alone, their fast products, and the largest of these for each patch.
    several: Vec<Contender>,
    fast: Vec<f32>,
    lane_best: Vec<f32>,
    row_best: Vec<f32>,
    /// Those that are left, and their products.
    last: Vec<Contender>,
    values: Vec<f32>,
}

/// Where the winners of one direction go.
pub(in super::super) struct Winners<'a> {
    /// Largest product of each patch; goes on from what it holds.
    pub(in super::super) best: &'a mut [f32],
    /// Which patch reached it; empty if not wanted.
    pub(in super::super) index: &'a mut [u32],
}

impl Winners<'_> {
    fn offer(&mut self, patch: u32, other: u32, product: f32) {
        // the lowest index comes first, and equals never displace it
        if product > self.best[patch as usize] {
            self.best[patch as usize] = product;
            if let Some(index) = self.index.get_mut(patch as usize) {
                *index = other;
            }
        }
    }
}

impl Contest<'_> {
    fn dim(&self) -> usize {
        self.a.frame.dim()
    }

    /// Raises `there.best` to the largest product of each patch of `a`. With `back` also those of `b`; with `rest` for each patch
    /// of `a` at least its largest product with any patch but the winner. False, and nothing written, if too many contend.
    pub(in super::super) fn settle(
        &self,
        room: &mut Room,
        mut there: Winners<'_>,
        mut back: Option<Winners<'_>>,
        rest: Option<&mut Vec<f32>>,
    ) -> bool {
        let allowed = margin(&self.a.digits, &self.b.digits, self.dim());
        let (asking, answering) = (self.lanes.columns, self.b.digits.start.len());
        let ways = 1 + usize::from(back.is_some());
        self.sweep(room, &there, back.is_some(), allowed);
        self.scan(room, back.is_some(), rest.is_some(), allowed);
        if room.contenders.len() > ways * asking * answering / CROWD {
            return false;
        }
        self.thin(room, asking, answering);
        room.values.resize(room.last.len(), 0.0);
        // SAFETY: a frame holds the passes of an instruction set that is present; the pass checks indices.
        unsafe { (self.a.frame.passes.exact)(self.chosen(&room.last, &mut room.values)) };
        for (c, &value) in room.last.iter().zip(&room.values) {
            if c.asks & LANE_ASKS != 0 {
                there.offer(c.lane, c.row, value);
            }
            if let Some(back) = back.as_mut().filter(|_| c.asks & ROW_ASKS != 0) {
                back.offer(c.row, c.lane, value);
            }
        }
        if let Some(rest) = rest {
            self.rest(room, &there, allowed, rest);
        }
        true
    }

    fn chosen<'a>(&'a self, pairs: &'a [Contender], out: &'a mut [f32]) -> Chosen<'a> {
        Chosen { dim: self.dim(), lanes: &self.a.rows, rows: &self.b.rows, pairs, out }
    }

    /// Coarse bounds of all products.
    fn sweep(&self, room: &mut Room, there: &Winners<'_>, both: bool, allowed: f32) {
        let (a, b, quads) = (&self.a.digits, &self.b.digits, self.dim() / super::digits::QUAD);
        let (padded, rows, width) = (self.lanes.padded(), b.start.len(), self.lanes.width);
        room.upper.resize(padded * rows);
        room.lower.resize(padded);
        room.lower.fill(f32::NEG_INFINITY);
        // a product that is known already is a lower bound
        for (lower, &best) in room.lower.iter_mut().zip(&*there.best) {
            *lower = best + allowed;
        }
        room.row_lower.resize(if both { rows * width } else { 0 });
        room.row_lower.fill(f32::NEG_INFINITY);
        room.row_error.clear();
        let error = |(&r, &n): (&f32, &f32)| (r * (1.0 + a.ratio) + a.ratio * n) * 1.00001;
        room.row_error.extend(b.residual.iter().zip(&b.length).map(error));
        for p in 0..self.lanes.panels() {
            let panel = self.lanes.panel(p);
            let lanes = panel.first * width..(panel.first + panel.vectors) * width;
            let sweep = Sweep {
                quads,
                panel: &a.lanes[lanes.start * quads..lanes.end * quads],
                vectors: panel.vectors,
                scale: &a.lane_scale[lanes.clone()],
                reach: &a.lane_reach[lanes.clone()],
                offset: &a.offsets[lanes.clone()],
                rows: &b.rows,
                row_start: &b.start,
                row_scale: &b.row_scale,
                row_offset: &b.offsets[..rows],
                row_error: &room.row_error,
                upper: &mut room.upper[lanes.start * rows..lanes.end * rows],
                lower: &mut room.lower[lanes],
                row_lower: &mut room.row_lower,
            };
            // SAFETY: as in `settle`; digits have the lengths that `Sweep` asks for.
            unsafe { (self.a.frame.passes.sweep)(sweep) };
        }
    }

    /// Lists the products whose upper bound reaches the largest lower one: panel by panel, row by row, lane by lane. So for each
    /// patch, in either direction, the others come in ascending order.
    fn scan(&self, room: &mut Room, both: bool, tops: bool, allowed: f32) {
        let (rows, width) = (self.b.digits.start.len(), self.lanes.width);
        for lower in &mut room.lower[..self.lanes.columns] {
            *lower = limit(*lower, allowed);
        }
        room.lower[self.lanes.columns..].fill(f32::INFINITY);
        room.row_limit.clear();
        if both {
            let best = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            room.row_limit.extend(room.row_lower.chunks_exact(width).map(|row| limit(best(row), allowed)));
        }
        room.tops.resize(if tops { 2 * self.lanes.padded() } else { 0 });
        room.tops.fill(f32::NEG_INFINITY);
        room.contenders.clear();
        for p in 0..self.lanes.panels() {
            let panel = self.lanes.panel(p);
            let lanes = panel.first * width..(panel.first + panel.vectors) * width;
            let scan = Scan {
                upper: &room.upper[lanes.start * rows..lanes.end * rows],
                vectors: panel.vectors,
                first: lanes.start,
                limit: &room.lower[lanes.clone()],
                row_limit: &room.row_limit,
                found: &mut room.contenders,
                tops: if tops { &mut room.tops[2 * lanes.start..2 * lanes.end] } else { &mut [] },
            };
            // SAFETY: as in `settle`; the slices have the lengths that `Scan` asks for.
            unsafe { (self.a.frame.passes.scan)(scan) };
        }
    }

    /// Lists in `last`, in the order of the contenders, who may still win after a fast product.
    fn thin(&self, room: &mut Room, asking: usize, answering: usize) {
        for (count, patches) in [(&mut room.lane_count, asking), (&mut room.row_count, answering)] {
            count.clear();
            count.resize(patches, 0);
        }
        for (best, patches) in [(&mut room.lane_best, asking), (&mut room.row_best, answering)] {
            best.clear();
            best.resize(patches, f32::NEG_INFINITY);
        }
        for c in &room.contenders {
            room.lane_count[c.lane as usize] += c.asks & LANE_ASKS;
            room.row_count[c.row as usize] += (c.asks & ROW_ASKS) / ROW_ASKS;
        }
        // who is alone needs no comparison
        let (lane_count, row_count) = (&room.lane_count, &room.row_count);
        let compared = |c: &Contender| {
            let lane = u32::from(lane_count[c.lane as usize] > 1) * LANE_ASKS;
            let row = u32::from(row_count[c.row as usize] > 1) * ROW_ASKS;
            c.asks & (lane | row)
        };
        room.several.clear();
        room.several.extend(room.contenders.iter().filter(|c| compared(c) != 0));
        room.fast.resize(room.several.len(), 0.0);
        // SAFETY: as in `settle`.
        unsafe { (self.a.frame.passes.dots)(self.chosen(&room.several, &mut room.fast)) };
        for (c, &value) in room.several.iter().zip(&room.fast) {
            if c.asks & LANE_ASKS != 0 {
                let best = &mut room.lane_best[c.lane as usize];
                *best = best.max(value);
            }
            if c.asks & ROW_ASKS != 0 {
                let best = &mut room.row_best[c.row as usize];
                *best = best.max(value);
            }
        }
        // both products of a comparison may be off
        let reach = 2.0 * spread(&self.a.digits, &self.b.digits, self.dim());
        let mut fast = room.fast.iter();
        room.last.clear();
        for c in &room.contenders {
            let compared = compared(c);
            let mut asks = c.asks & !compared;
            if compared != 0 {
                let value = fast.next().map_or(f32::INFINITY, |f| f + reach);
                let lane = u32::from(value >= room.lane_best[c.lane as usize]) * LANE_ASKS;
                let row = u32::from(value >= room.row_best[c.row as usize]) * ROW_ASKS;
                asks |= compared & (lane | row);
            }
            if asks != 0 {
                room.last.push(Contender { asks, ..*c });
            }
        }
    }

    /// For each asking patch at least its largest product with any patch but the winner.
    fn rest(&self, room: &Room, there: &Winners<'_>, allowed: f32, rest: &mut Vec<f32>) {
        let width = self.lanes.width;
        rest.clear();
        for patch in 0..self.lanes.columns {
            let panel = self.lanes.panel(self.lanes.panel_of(patch / width));
            let next = (2 * panel.first + panel.vectors) * width + patch - panel.first * width;
            // who does not contend lies below the limit; if only one does, below the second largest bound
            let alone = room.lane_count[patch] == 1;
            rest.push(allowed + if alone { room.tops[next] } else { room.lower[patch] });
        }
        let off = spread(&self.a.digits, &self.b.digits, self.dim());
        for (c, &value) in room.several.iter().zip(&room.fast) {
            let lane = c.lane as usize;
            if c.asks & LANE_ASKS != 0 && c.row != there.index[lane] {
                rest[lane] = rest[lane].max(value + off);
            }
        }
    }
}

/// What an upper bound has to reach where the largest lower one is `lower`, with what both leave out.
fn limit(lower: f32, allowed: f32) -> f32 {
    lower - 2.0 * allowed - lower.abs() * 1e-6
}

#[cfg(test)]
impl Contest<'_> {
    /// The upper bounds, `[asking][answering]`, and the largest lower bound of each asking patch.
    pub(super) fn bounds(&self, room: &mut Room) -> (Vec<f32>, Vec<f32>) {
        let none = Winners { best: &mut [], index: &mut [] };
        self.sweep(room, &none, false, 0.0);
        let (rows, width) = (self.b.digits.start.len(), self.lanes.width);
        let mut upper = Vec::new();
        for patch in 0..self.lanes.columns {
            let panel = self.lanes.panel(self.lanes.panel_of(patch / width));
            let (start, wide) = (panel.first * width, panel.vectors * width);
            upper.extend((0..rows).map(|q| room.upper[start * rows + q * wide + patch - start]));
        }
        (upper, room.lower[..self.lanes.columns].to_vec())
    }
}

#[cfg(test)]
impl Room {
    /// Contenders of the last contest.
    pub(super) fn contending(&self) -> usize {
        self.contenders.len()
    }
}
