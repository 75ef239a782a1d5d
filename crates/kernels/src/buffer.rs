//! Cache-line aligned buffers of f32 and of other four-byte numbers, and arenas of large pages that hold many of them.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

/// Numbers per line: of four bytes each, one 64-byte cache line.
pub(crate) const LINE: usize = 16;

/// Numbers of one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; LINE]);

/// Numbers that are any four bytes.
pub(crate) trait Number: Copy {}
impl Number for f32 {}
impl Number for u32 {}

/// A `Vec` of four-byte numbers whose first element lies on a cache line.
pub(crate) struct Buffer<T = f32> {
    memory: Memory,
    len: usize,
    numbers: PhantomData<T>,
}

/// Where the numbers of a buffer are: whole lines that belong to it alone.
pub(crate) enum Memory {
    Heap(Vec<Line>),
    Mapped(Part),
}

/// Lines of a mapping that others may have other lines of.
pub(crate) struct Part {
    map: Arc<MmapRaw>,
    /// First byte.
    start: usize,
    lines: usize,
}

/// Bytes of a large page on most systems.
const LARGE_PAGE: usize = 2 << 20;

impl Memory {
    fn heap(lines: usize) -> Self {
        Self::Heap(vec![Line([0.0; LINE]); lines])
    }

    /// One mapping cut into disjoint parts of so many lines each, filled with zeros; from the heap where it cannot be had.
    ///
    /// With `large` it lies on large pages where the system has such. Small pages lie anywhere, and where they collide in
    /// the caches, products lose up to a tenth of their speed.
    fn cut(lines: &[usize], large: bool) -> Vec<Self> {
        let bytes = lines.iter().sum::<usize>() * size_of::<Line>();
        let slack = if large { LARGE_PAGE } else { 0 };
        let map = if cfg!(miri) || bytes == 0 {
            None
        } else {
            MmapOptions::new().len(bytes + slack).map_anon().ok()
        };
        let Some(map) = map else {
            return lines.iter().map(|&l| Self::heap(l)).collect();
        };
        if large {
            #[cfg(target_os = "linux")]
            // where it is refused the pages are small, and everything else is the same
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let mut start = if large {
            map.as_ptr().align_offset(LARGE_PAGE).min(slack)
        } else {
            0
        };
        let map = Arc::new(MmapRaw::from(map));
        let part = |&lines: &usize| {
            let part = Part {
                map: Arc::clone(&map),
                start,
                lines,
            };
            start += lines * size_of::<Line>();
            Self::Mapped(part)
        };
        lines.iter().map(part).collect()
    }

    /// Lines that fit.
    fn lines(&self) -> usize {
        match self {
            Self::Heap(lines) => lines.len(),
            Self::Mapped(part) => part.lines,
        }
    }

    fn start(&self) -> *const u8 {
        match self {
            Self::Heap(lines) => lines.as_ptr().cast(),
            Self::Mapped(part) => part.map.as_ptr().wrapping_add(part.start),
        }
    }

    fn start_mut(&mut self) -> *mut u8 {
        match self {
            Self::Heap(lines) => lines.as_mut_ptr().cast(),
            Self::Mapped(part) => part.map.as_mut_ptr().wrapping_add(part.start),
        }
    }
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self {
            memory: Memory::Heap(Vec::new()),
            len: 0,
            numbers: PhantomData,
        }
    }
}

impl<T: Number> Buffer<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self {
            memory: Memory::heap(len.div_ceil(LINE)),
            len,
            numbers: PhantomData,
        }
    }

    /// `len` zeros whose memory goes back to the system with the buffer, not to the heap.
    pub(crate) fn mapped(len: usize) -> Self {
        let lines = len.div_ceil(LINE);
        let memory = Memory::cut(&[lines], false)
            .pop()
            .unwrap_or_else(|| Memory::heap(lines));
        Self {
            memory,
            len,
            numbers: PhantomData,
        }
    }

    /// Makes it `len` long, keeping the memory where it suffices; the contents are unspecified numbers.
    pub(crate) fn resize(&mut self, len: usize) {
        if len.div_ceil(LINE) > self.memory.lines() {
            self.memory = Memory::heap(len.div_ceil(LINE));
        }
        self.len = len;
    }

    /// To be moved or sized together with others.
    pub(crate) fn part(&mut self, len: usize) -> (&mut Memory, usize) {
        self.len = len;
        (&mut self.memory, len.div_ceil(LINE))
    }
}

/// Gives every buffer the lines asked for, all of them side by side on large pages, unless each has enough already; the
/// contents are unspecified numbers.
pub(crate) fn size_together(buffers: &mut [(&mut Memory, usize)]) {
    if buffers
        .iter()
        .all(|(memory, lines)| memory.lines() >= *lines)
    {
        return;
    }
    let lines: Vec<usize> = buffers
        .iter()
        .map(|(memory, lines)| memory.lines().max(*lines))
        .collect();
    // the old ones first, so that both are never there at once
    for (memory, _) in buffers.iter_mut() {
        **memory = Memory::Heap(Vec::new());
    }
    for ((memory, _), new) in buffers.iter_mut().zip(Memory::cut(&lines, true)) {
        **memory = new;
    }
}

/// Moves buffers side by side onto large pages, in this order; each old one is given back as soon as it is copied.
pub(crate) fn move_together(buffers: &mut [(&mut Memory, usize)]) {
    let lines: Vec<usize> = buffers.iter().map(|(_, lines)| *lines).collect();
    for ((memory, lines), mut new) in buffers.iter_mut().zip(Memory::cut(&lines, true)) {
        let lines = (*lines).min(memory.lines());
        // SAFETY: both hold at least `lines` lines, and no two memories share one.
        unsafe {
            std::ptr::copy_nonoverlapping(
                memory.start(),
                new.start_mut(),
                lines * size_of::<Line>(),
            );
        }
        **memory = new;
    }
}

impl<T: Number> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        const {
            assert!(
                size_of::<T>() == 4 && align_of::<T>() == 4,
                "lines hold four-byte numbers"
            );
        };
        // SAFETY: `memory` holds at least `len` initialised numbers (a `Number` is any four bytes) from an address that
        // is aligned to a line on: `len ≤ 16·lines` by construction, and parts of a mapping, which starts on a page, are
        // disjoint and whole lines. The mapping lives as long as one of its parts.
        unsafe { std::slice::from_raw_parts(self.memory.start().cast::<T>(), self.len) }
    }
}

impl<T: Number> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        const {
            assert!(
                size_of::<T>() == 4 && align_of::<T>() == 4,
                "lines hold four-byte numbers"
            );
        };
        // SAFETY: as in `deref`, and `&mut self` makes the view unique.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start_mut().cast::<T>(), self.len) }
    }
}

impl<T: Number> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} numbers)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_whole() {
        for len in [0, 1, 17, if cfg!(miri) { 100 } else { 100_000 }] {
            for mut buffer in [Buffer::<f32>::zeroed(len), Buffer::mapped(len)] {
                assert_eq!(buffer.len(), len);
                assert_eq!(buffer.as_ptr() as usize % 64, 0);
                assert!(buffer.iter().all(|&x| x == 0.0));
                buffer.fill(1.0);
                let copy = buffer.clone();
                assert!(copy.len() == len && copy.iter().all(|&x| x == 1.0));
                buffer.resize(len + 100);
                assert_eq!(buffer.len(), len + 100);
                buffer.fill(2.0);
                let at = buffer.as_ptr();
                buffer.resize(len);
                assert!(
                    std::ptr::eq(at, buffer.as_ptr()),
                    "shrinking keeps the memory"
                );
            }
        }
        let words: Buffer<u32> = Buffer::zeroed(5);
        assert_eq!(words[..], [0; 5]);
    }

    #[test]
    fn buffers_side_by_side_keep_their_numbers_and_their_places() {
        // more than a large page
        let large = if cfg!(miri) { 100 } else { 700_000 };
        let lens = [5, 0, large, 64];
        let mut buffers: Vec<Buffer> = lens.map(Buffer::mapped).into();
        let mut words: Buffer<u32> = Buffer::zeroed(33);
        words.fill(7);
        for (i, b) in buffers.iter_mut().enumerate() {
            b.fill(i as f32);
        }
        let mut parts: Vec<_> = buffers
            .iter_mut()
            .zip(lens)
            .map(|(b, len)| b.part(len))
            .collect();
        parts.push(words.part(33));
        move_together(&mut parts);
        for (i, (b, len)) in buffers.iter().zip(lens).enumerate() {
            assert!(b.len() == len && b.iter().all(|&x| x == i as f32));
            assert_eq!(b.as_ptr() as usize % 64, 0);
        }
        // writing one leaves the others alone, and dropping one too
        buffers[2].fill(9.0);
        buffers.remove(1);
        assert!(words.iter().all(|&w| w == 7) && buffers[2].iter().all(|&x| x == 3.0));
        let before = buffers[1].as_ptr();
        size_together(&mut [buffers[1].part(large)]);
        assert!(
            std::ptr::eq(before, buffers[1].as_ptr()),
            "what fits stays where it is"
        );
        size_together(&mut [buffers[1].part(large + 16)]);
        assert_eq!(buffers[1].len(), large + 16);
        buffers[1].fill(1.0);
    }
}
