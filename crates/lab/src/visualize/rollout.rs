//! Attention rollout: what part of a token comes from which token of the image, through all blocks.
//!
//! Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020. A block's attention weights, averaged over the
//! heads, say what its tokens take from each other; the residual connection is taken for an equal share of the token
//! itself, `Â = (A + I) / 2`. The product over the blocks says what they have taken from what entered the first:
//! `R = Â_L ⋯ Â_1`. Every row of R sums to 1. Linear layers, adapters and the sign of what is carried are not seen.
//!
//! Prompts inside the transformer are sources of their own: they come from no image. Deep prompts overwrite their
//! positions before every block, so what these positions held before goes no further: the row of such a position starts
//! anew as that prompt, and R has a column for every prompt of every block. The row of a prompt in R is what it has taken
//! in where the last block ends; with deep prompts that is the prompt of the last block, through that block only.

use flawtune_backbone::vjp::PromptDepth;
use flawtune_kernels::matmul::{Op, matmul};

use super::VisualizeError;

/// The tokens inside the transformer: `[class token, registers, prompts, patches]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLayout {
    /// Class token and registers.
    pub prefix: usize,
    /// Prompts in the sequence, K; 0 where none are inside.
    pub prompts: usize,
    /// Patches, P.
    pub patches: usize,
    /// Where prompts enter.
    pub depth: PromptDepth,
}

impl TokenLayout {
    /// All tokens, T.
    pub fn tokens(&self) -> usize {
        self.prefix + self.prompts + self.patches
    }
}

/// The product of the blocks' attention, `R` `[T, S]`: a row for every token where the last block ends, a column for every
/// source: class token, registers, patches, then the prompts, set by set.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    layout: TokenLayout,
    sources: usize,
    rows: Vec<f32>,
    blocks: usize,
}

impl Rollout {
    /// Before the first of `blocks` blocks: every token comes from itself.
    pub fn new(layout: TokenLayout, blocks: usize) -> Self {
        let own = layout.prefix + layout.patches;
        let sets = match layout.depth {
            _ if layout.prompts == 0 => 0,
            PromptDepth::Output => 0,
            PromptDepth::Shallow => 1,
            PromptDepth::Deep => blocks,
        };
        let sources = own + sets * layout.prompts;
        let mut rows = vec![0.0; layout.tokens() * sources];
        for source in 0..own {
            let token = if source < layout.prefix {
                source
            } else {
                source + layout.prompts
            };
            rows[token * sources + source] = 1.0;
        }
        Self {
            layout,
            sources,
            rows,
            blocks: 0,
        }
    }

    /// Goes through the next block, whose attention weights `[T, T]`, averaged over the heads, are given.
    ///
    /// # Errors
    /// [`VisualizeError::Length`] if they are not those of so many tokens.
    pub fn push(&mut self, attention: &[f32]) -> Result<(), VisualizeError> {
        let (t, s) = (self.layout.tokens(), self.sources);
        VisualizeError::check("attention weights of a block", attention.len(), t * t)?;
        self.write_prompts();
        let mut mixed: Vec<f32> = attention.iter().map(|a| 0.5 * a).collect();
        for (i, row) in mixed.chunks_exact_mut(t).enumerate() {
            row[i] += 0.5;
            // softmax rows sum to 1 up to rounding; over forty blocks that would add up
            let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
            for v in row.iter_mut() {
                *v = (f64::from(*v) / sum) as f32;
            }
        }
        let mut next = vec![0.0; t * s];
        matmul(
            t,
            s,
            t,
            &mixed,
            Op::None,
            &self.rows,
            Op::None,
            &mut next,
            false,
        );
        self.rows = next;
        self.blocks += 1;
        Ok(())
    }

    /// Makes the prompts that enter before the next block sources of their own.
    fn write_prompts(&mut self) {
        let TokenLayout {
            prefix,
            prompts,
            patches,
            depth,
        } = self.layout;
        if prompts == 0 || (depth == PromptDepth::Shallow && self.blocks > 0) {
            return;
        }
        for k in 0..prompts {
            let row = &mut self.rows[(prefix + k) * self.sources..][..self.sources];
            row.fill(0.0);
            // a block more than was announced has no column: its prompts count as nothing
            if let Some(own) = row.get_mut(prefix + patches + self.blocks * prompts + k) {
                *own = 1.0;
            }
        }
    }

    /// The whole matrix `[T, S]`.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    fn row(&self, token: usize) -> &[f32] {
        &self.rows[token * self.sources..][..self.sources]
    }

    /// What the class token has taken from each patch, `[P]`; the sum is below 1, since some comes from other tokens.
    pub fn class_from_patches(&self) -> &[f32] {
        &self.row(0)[self.layout.prefix..][..self.layout.patches]
    }

    /// What the class token has taken from each prompt, over all sets, `[K]`.
    pub fn class_from_prompts(&self) -> Vec<f32> {
        self.taken_from_prompts(self.row(0))
    }

    /// What the patches have taken from each prompt, over all sets, on average, `[K]`.
    pub fn patches_from_prompts(&self) -> Vec<f32> {
        let TokenLayout {
            prefix,
            prompts,
            patches,
            ..
        } = self.layout;
        let mut sums = vec![0.0f64; prompts];
        for p in 0..patches {
            let found = self.taken_from_prompts(self.row(prefix + prompts + p));
            sums.iter_mut()
                .zip(found)
                .for_each(|(s, v)| *s += f64::from(v));
        }
        sums.iter().map(|s| (s / patches as f64) as f32).collect()
    }

    fn taken_from_prompts(&self, row: &[f32]) -> Vec<f32> {
        let TokenLayout {
            prefix,
            prompts,
            patches,
            ..
        } = self.layout;
        let sets = &row[prefix + patches..];
        (0..prompts)
            .map(|k| sets.iter().skip(k).step_by(prompts).sum())
            .collect()
    }

    /// What prompt `prompt` has taken from each patch, `[P]`; empty if there is no such prompt.
    pub fn prompt_from_patches(&self, prompt: usize) -> &[f32] {
        let TokenLayout {
            prefix,
            prompts,
            patches,
            ..
        } = self.layout;
        if prompt >= prompts {
            return &[];
        }
        &self.row(prefix + prompt)[prefix..][..patches]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len());
        assert!(
            found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-6),
            "{found:?} {wanted:?}"
        );
    }

    /// One class token and two patches, two blocks; computed by hand.
    #[test]
    fn two_blocks_of_three_tokens() {
        let layout = TokenLayout {
            prefix: 1,
            prompts: 0,
            patches: 2,
            depth: PromptDepth::Output,
        };
        let mut r = Rollout::new(layout, 2);
        // Â₁ = [.5 .5 0; 0 1 0; 0 .5 .5]
        r.push(&[0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
            .unwrap();
        close(r.rows(), &[0.5, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5]);
        // Â₂ = [.6 .1 .3; 0 1 0; 0 0 1]; Â₂·Â₁: class = .6·[.5 .5 0] + .1·[0 1 0] + .3·[0 .5 .5]
        r.push(&[0.2, 0.2, 0.6, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
            .unwrap();
        close(r.class_from_patches(), &[0.55, 0.15]);
        close(r.rows(), &[0.3, 0.55, 0.15, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5]);
        assert!(r.class_from_prompts().is_empty() && r.prompt_from_patches(0).is_empty());
    }

    /// Class token, one prompt, one patch. In block 1 the prompt takes the patch in, in block 2 the class token looks at
    /// the prompt only.
    #[test]
    fn a_prompt_carries_the_picture_only_where_it_is_not_written_anew() {
        let first = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let second = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let run = |depth| {
            let mut r = Rollout::new(
                TokenLayout {
                    prefix: 1,
                    prompts: 1,
                    patches: 1,
                    depth,
                },
                2,
            );
            r.push(&first).unwrap();
            r.push(&second).unwrap();
            r
        };
        let shallow = run(PromptDepth::Shallow);
        // the prompt is half itself and half the patch after block 1; the class token takes half of that
        close(shallow.class_from_patches(), &[0.25]);
        close(&shallow.class_from_prompts(), &[0.25]);
        close(shallow.prompt_from_patches(0), &[0.5]);
        let deep = run(PromptDepth::Deep);
        // what the first prompt took in is lost; the class token takes half of the second prompt
        close(deep.class_from_patches(), &[0.0]);
        close(&deep.class_from_prompts(), &[0.5]);
        close(deep.prompt_from_patches(0), &[0.0]);
        // columns: class token, patch, prompt of block 1, prompt of block 2
        close(
            deep.rows(),
            &[0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        );
        close(&deep.patches_from_prompts(), &[0.0]);
    }

    #[test]
    fn attention_of_other_tokens_is_refused() {
        let layout = TokenLayout {
            prefix: 1,
            prompts: 0,
            patches: 2,
            depth: PromptDepth::Output,
        };
        let wrong = Rollout::new(layout, 1).push(&[0.5; 4]);
        assert!(matches!(
            wrong,
            Err(VisualizeError::Length {
                found: 4,
                wanted: 9,
                ..
            })
        ));
    }
}
