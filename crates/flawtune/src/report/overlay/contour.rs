//! Lines on images: outlines of regions and boxes, white with a dark edge so that they show on anything.

use image::{Rgb, RgbImage};

use crate::score::map::Region;

const LINE: Rgb<u8> = Rgb([255, 255, 255]);
const EDGE: Rgb<u8> = Rgb([20, 20, 20]);

/// Line width for an image: a four-hundredth of the shorter side, at least one pixel.
fn line_width(picture: &RgbImage) -> usize {
    (picture.width().min(picture.height()) as usize / 400).max(1)
}

/// Adds to `set` every pixel that has one of its four neighbours in it.
fn grow(set: &[bool], width: usize) -> Vec<bool> {
    let mut out = set.to_vec();
    for (i, o) in out.iter_mut().enumerate() {
        let x = i % width;
        *o |= (x > 0 && set[i - 1])
            || (x + 1 < width && set[i + 1])
            || (i >= width && set[i - width])
            || set.get(i + width).copied().unwrap_or(false);
    }
    out
}

/// Draws a line round the pixels of `inside` (`[height, width]`), on their outer side, then a dark edge.
pub(super) fn outline(picture: &mut RgbImage, inside: &[bool]) {
    let width = picture.width() as usize;
    let lines = line_width(picture);
    let mut covered = inside.to_vec();
    for (step, colour) in (0..lines).map(|_| LINE).chain([EDGE]).enumerate() {
        let mut wider = grow(&covered, width);
        // every second step also takes the corners, so that a wide line is round and not a diamond
        if step % 2 == 0 {
            wider = corners(&covered, wider, width);
        }
        for ((pixel, was), is) in picture.pixels_mut().zip(&covered).zip(&wider) {
            if *is && !*was {
                *pixel = colour;
            }
        }
        covered = wider;
    }
}

/// Adds the diagonal neighbours of `set` to `wider`.
fn corners(set: &[bool], mut wider: Vec<bool>, width: usize) -> Vec<bool> {
    for (i, o) in wider.iter_mut().enumerate() {
        let x = i % width;
        let in_row = |start: usize| {
            (x > 0 && set.get(start + x - 1).copied().unwrap_or(false))
                || (x + 1 < width && set.get(start + x + 1).copied().unwrap_or(false))
        };
        let row = i - x;
        *o |= (row >= width && in_row(row - width)) || in_row(row + width);
    }
    wider
}

/// Draws a box a few pixels outside of `region`.
pub(super) fn frame(picture: &mut RgbImage, region: &Region) {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let gap = 2 + 2 * line_width(picture);
    let (left, top) = (
        region.left.saturating_sub(gap),
        region.top.saturating_sub(gap),
    );
    let right = region
        .left
        .saturating_add(region.width)
        .saturating_add(gap)
        .min(width);
    let bottom = region
        .top
        .saturating_add(region.height)
        .saturating_add(gap)
        .min(height);
    let thick = line_width(picture) as isize;
    // distance inwards from the box: the line is 0..thick, its edges one pixel on either side
    for (colour, from, to) in [(EDGE, -1, thick + 1), (LINE, 0, thick)] {
        for y in top.saturating_sub(1)..(bottom + 1).min(height) {
            for x in left.saturating_sub(1)..(right + 1).min(width) {
                let across = (x as isize - left as isize).min(right as isize - 1 - x as isize);
                let down = (y as isize - top as isize).min(bottom as isize - 1 - y as isize);
                if (from..to).contains(&across.min(down)) {
                    picture.put_pixel(x as u32, y as u32, colour);
                }
            }
        }
    }
}
