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
    lane_way: Way,
    row_way: Way,
    /// Those to multiply next, and their products.
    chosen: Vec<Contender>,
    last: Vec<Contender>,
    values: Vec<f32>,
    /// Products of the favourites of the lanes.
    favoured: Vec<f32>,
    index: Vec<u32>,
}

/// One direction of a contest.
#[derive(Default)]
struct Way {
    /// How many contend for each patch.
    count: Vec<u32>,
    /// Which of the contenders has the largest upper bound, for each patch.
    favourite: Vec<u32>,
}

impl Way {
    /// Finds the favourite of each patch among those who ask this way, and appends them to `chosen`.
    fn favourites(
        &mut self,
        contenders: &[Contender],
        patches: usize,
        (asks, patch): (u32, fn(&Contender) -> u32),
        chosen: &mut Vec<Contender>,
    ) {
        self.count.clear();
        self.count.resize(patches, 0);
        self.favourite.clear();
        self.favourite.resize(patches, u32::MAX);
        for (i, c) in contenders
            .iter()
            .enumerate()
            .filter(|(_, c)| c.asks & asks != 0)
        {
            let patch = patch(c) as usize;
            self.count[patch] += 1;
            let favourite = &mut self.favourite[patch];
            if *favourite == u32::MAX || c.upper > contenders[*favourite as usize].upper {
                *favourite = i as u32;
            }
        }
        let found = self.favourite.iter().filter(|&&f| f != u32::MAX);
        chosen.extend(found.map(|&f| Contender {
            asks,
            ..contenders[f as usize]
        }));
    }
}

const BY_LANE: (u32, fn(&Contender) -> u32) = (LANE_ASKS, |c| c.lane);
const BY_ROW: (u32, fn(&Contender) -> u32) = (ROW_ASKS, |c| c.row);

/// Where the winners of one direction go.
pub(in super::super) struct Winners<'a> {
    /// Largest product of each patch; goes on from what it holds.
    pub(in super::super) best: &'a mut [f32],
    /// Which patch reached it; empty if not wanted.
    pub(in super::super) index: &'a mut [u32],
}

impl Winners<'_> {
    fn offer(&mut self, patch: u32, other: u32, product: f32) {
        let (best, index) = (
            &mut self.best[patch as usize],
            &mut self.index[patch as usize],
        );
        // the lowest index wins among equals
        if product > *best || (product == *best && other < *index) {
            (*best, *index) = (product, other);
        }
    }
}

impl Contest<'_> {
    fn dim(&self) -> usize {
        self.a.frame.dim()
    }

    /// Raises `there.best` to the largest product of each patch of `a`. With `back` also those of `b`, which `back.best` goes on from; with `rest` for each patch
    /// of `a` at least its largest product with any patch but the winner. False, and nothing written, if too many contend.
    pub(in super::super) fn settle(
        &self,
        room: &mut Room,
        there: Winners<'_>,
        mut back: Option<Winners<'_>>,
        rest: Option<&mut Vec<f32>>,
    ) -> bool {
        let allowed = margin(&self.a.digits, &self.b.digits, self.dim());
        let (asking, answering) = (self.lanes.columns, self.b.digits.start.len());
        let ways = 1 + usize::from(back.is_some());
        self.sweep(room, &there, back.as_ref(), allowed);
        self.scan(room, back.is_some(), rest.is_some(), allowed);
        if room.contenders.len() > ways * asking * answering / CROWD {
            return false;
        }
        let mut own = std::mem::take(&mut room.index);
        own.clear();
        own.resize(asking, u32::MAX);
        let index = if there.index.is_empty() {
            &mut own[..]
        } else {
            there.index
        };
        let mut there = Winners {
            best: there.best,
            index,
        };
        let Room {
            contenders,
            lane_way,
            row_way,
            chosen,
            last,
            values,
            favoured,
            ..
        } = room;
        // the favourites first: nearly all of them win
        chosen.clear();
        lane_way.favourites(contenders, asking, BY_LANE, chosen);
        if back.is_some() {
            row_way.favourites(contenders, answering, BY_ROW, chosen);
        }
        self.offer_exact(chosen, values, &mut there, back.as_mut());
        // who is not ruled out by their products is compared by a fast one
        let keep = rest.is_some();
        chosen.clear();
        for (i, c) in contenders.iter().enumerate() {
            let upper = c.upper + allowed;
            let lane = c.asks & LANE_ASKS != 0
                && lane_way.favourite[c.lane as usize] != i as u32
                && (keep || upper >= there.best[c.lane as usize]);
            let row = c.asks & ROW_ASKS != 0
                && row_way.favourite[c.row as usize] != i as u32
                && back
                    .as_ref()
                    .is_some_and(|back| upper >= back.best[c.row as usize]);
            let asks = u32::from(lane) * LANE_ASKS + u32::from(row) * ROW_ASKS;
            if asks != 0 {
                chosen.push(Contender { asks, ..*c });
            }
        }
        values.resize(chosen.len(), 0.0);
        // SAFETY: a frame holds the passes of an instruction set that is present; the pass checks indices.
        unsafe { (self.a.frame.passes.dots)(self.chosen(chosen, values)) };
        let off = spread(&self.a.digits, &self.b.digits, self.dim());
        last.clear();
        for (c, &value) in chosen.iter_mut().zip(&*values) {
            c.upper = value + off;
            let lane = c.asks & LANE_ASKS != 0 && c.upper >= there.best[c.lane as usize];
            let row = c.asks & ROW_ASKS != 0
                && back
                    .as_ref()
                    .is_some_and(|back| c.upper >= back.best[c.row as usize]);
            let asks = u32::from(lane) * LANE_ASKS + u32::from(row) * ROW_ASKS;
            if asks != 0 {
                last.push(Contender { asks, ..*c });
            }
        }
        favoured.clear();
        favoured.extend_from_slice(if keep { there.best } else { &[] });
        self.offer_exact(last, values, &mut there, back.as_mut());
        if let Some(rest) = rest {
            self.rest(room, &there, allowed, rest);
        }
        room.index = own;
        true
    }

    /// Products of `chosen` in the plain order, offered to whoever asks.
    fn offer_exact(
        &self,
        chosen: &[Contender],
        values: &mut Vec<f32>,
        there: &mut Winners<'_>,
        mut back: Option<&mut Winners<'_>>,
    ) {
        values.resize(chosen.len(), 0.0);
        // SAFETY: as in `settle`.
        unsafe { (self.a.frame.passes.exact)(self.chosen(chosen, values)) };
        for (c, &value) in chosen.iter().zip(&*values) {
            if c.asks & LANE_ASKS != 0 {
                there.offer(c.lane, c.row, value);
            }
            if let Some(back) = back.as_mut().filter(|_| c.asks & ROW_ASKS != 0) {
                back.offer(c.row, c.lane, value);
            }
        }
    }

    fn chosen<'a>(&'a self, pairs: &'a [Contender], out: &'a mut [f32]) -> Chosen<'a> {
        Chosen {
            dim: self.dim(),
            lanes: &self.a.rows,
            rows: &self.b.rows,
            pairs,
            out,
        }
    }

    /// Coarse bounds of all products.
    fn sweep(
        &self,
        room: &mut Room,
        there: &Winners<'_>,
        back: Option<&Winners<'_>>,
        allowed: f32,
    ) {
        let (a, b, quads) = (
            &self.a.digits,
            &self.b.digits,
            self.dim() / super::digits::QUAD,
        );
        let (padded, rows, width) = (self.lanes.padded(), b.start.len(), self.lanes.width);
        room.upper.resize(padded * rows);
        room.lower.resize(padded);
        room.lower.fill(f32::NEG_INFINITY);
        // a product that is known already is a lower bound
        for (lower, &best) in room.lower.iter_mut().zip(&*there.best) {
            *lower = best + allowed;
        }
        room.row_lower
            .resize(if back.is_some() { rows * width } else { 0 });
        room.row_lower.fill(f32::NEG_INFINITY);
        for (lower, &best) in room
            .row_lower
            .chunks_exact_mut(width)
            .zip(back.iter().flat_map(|back| &*back.best))
        {
            lower[0] = best + allowed;
        }
        room.row_error.clear();
        let error = |(&r, &n): (&f32, &f32)| (r * (1.0 + a.ratio) + a.ratio * n) * 1.00001;
        room.row_error
            .extend(b.residual.iter().zip(&b.length).map(error));
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
            room.row_limit.extend(
                room.row_lower
                    .chunks_exact(width)
                    .map(|row| limit(best(row), allowed)),
            );
        }
        room.tops
            .resize(if tops { 2 * self.lanes.padded() } else { 0 });
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
                tops: if tops {
                    &mut room.tops[2 * lanes.start..2 * lanes.end]
                } else {
                    &mut []
                },
            };
            // SAFETY: as in `settle`; the slices have the lengths that `Scan` asks for.
            unsafe { (self.a.frame.passes.scan)(scan) };
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
            let alone = room.lane_way.count[patch] == 1;
            let others = allowed
                + if alone {
                    room.tops[next]
                } else {
                    room.lower[patch]
                };
            let favourite = room.contenders[room.lane_way.favourite[patch] as usize].row;
            let lost = if favourite == there.index[patch] {
                f32::NEG_INFINITY
            } else {
                room.favoured[patch]
            };
            rest.push(others.max(lost));
        }
        for c in &room.chosen {
            let lane = c.lane as usize;
            if c.row != there.index[lane] {
                rest[lane] = rest[lane].max(c.upper);
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
        let none = Winners {
            best: &mut [],
            index: &mut [],
        };
        self.sweep(room, &none, None, 0.0);
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
