//! What extraction needs of a backbone.

use flawtune_backbone::config::Normalization;

/// Whatever a forward pass may fail with.
pub type ForwardError = Box<dyn std::error::Error + Send + Sync>;

/// A frozen network that turns pixels into tokens.
///
/// The tokens of an image may depend on that image only, not on the others of its batch nor on the batch's size:
/// the cache stores them one by one.
pub trait Forward: Sync {
    /// Short name for people, `dinov3_vits16`.
    fn name(&self) -> &str;

    /// Identity of the weights: equal only for equal weights, wherever the files are.
    fn weights_hash(&self) -> &str;

    /// Everything else that changes the tokens: the layers they are taken from, how they are combined, options of the
    /// position encoding, reduced precision. Equal texts mean equal tokens.
    fn variant(&self) -> String;

    /// Rows and columns of the patch grid of a `height`×`width` image.
    fn grid(&self, height: usize, width: usize) -> (usize, usize);

    /// Numbers per token.
    fn dim(&self) -> usize;

    /// Tokens `[batch, 1 + patches, dim]`, class token first, of normalised `pixels` `[batch, 3, height, width]`.
    ///
    /// # Errors
    /// Whatever the network reports; extraction ends with it.
    fn forward(
        &self,
        pixels: &[f32],
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<f32>, ForwardError>;

    /// How [`Forward::forward_bytes`] normalises; `None` if there is no such pass.
    fn normalization(&self) -> Option<Normalization> {
        None
    }

    /// As [`Forward::forward`], the same bits, of the bytes of images `[batch, height, width, 3]` that are normalised on
    /// their way: a quarter of the memory.
    ///
    /// # Errors
    /// As [`Forward::forward`], and if there is no such pass.
    fn forward_bytes(
        &self,
        _pictures: &[u8],
        _batch: usize,
        _height: usize,
        _width: usize,
    ) -> Result<Vec<f32>, ForwardError> {
        Err(format!("{} takes normalised pixels only", self.name()).into())
    }
}
