//! What can be wrong with a request for scores.

/// Why images could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// There is nothing to compare with.
    #[error("the support set is empty: at least one normal image is needed")]
    NoSupport,
    /// More neighbours than support images, or none.
    #[error(
        "k-neighbors is {k}, but the support set has {support} images\nhint: choose 1 to {support}"
    )]
    Neighbours {
        /// What was asked for.
        k: usize,
        /// Number of support images.
        support: usize,
    },
    /// Tokens of different widths.
    #[error(
        "test tokens have {test} numbers, support tokens {support}: they come from different backbones or layers"
    )]
    Width {
        /// Numbers per test token.
        test: usize,
        /// Numbers per support token.
        support: usize,
    },
    /// An adaptation of the other kind of token.
    #[error(
        "this adaptation was trained on {trained}, but {asked} are to be scored\nhint: use the other scorer or train again"
    )]
    Kind {
        /// What the adaptation changes.
        trained: &'static str,
        /// What is scored.
        asked: &'static str,
    },
    /// A part of the patches that is not in (0, 1].
    #[error("top fraction is {0}; it is larger than 0 and at most 1, such as 0.01")]
    Fraction(f64),
    /// What changes the tokens does not fit them.
    #[error(transparent)]
    Change(Box<dyn std::error::Error + Send + Sync>),
}
