//! The trainable numbers of an adaptation, by name.

use super::AdaptError;

/// One trainable tensor: dense, row-major f32.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Name as in the checkpoint, such as `prompts` or `mlp.0.weight`.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: Vec<f32>,
}

/// All trainable tensors of an adaptation in a fixed order; also used for their gradients and moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    tensors: Vec<NamedTensor>,
}

impl Parameters {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a tensor.
    ///
    /// # Errors
    /// [`AdaptError::Shape`] if `data` is not as long as `shape` says.
    pub fn push(&mut self, name: &str, shape: &[usize], data: Vec<f32>) -> Result<(), AdaptError> {
        if shape.iter().product::<usize>() != data.len() {
            return Err(AdaptError::Shape {
                name: name.to_owned(),
                found: vec![data.len()],
                wanted: shape.to_vec(),
                hint: "",
            });
        }
        self.tensors.push(NamedTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data,
        });
        Ok(())
    }

    /// The same names and shapes with every value 0.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        let zero = |t: &NamedTensor| NamedTensor {
            data: vec![0.0; t.data.len()],
            ..t.clone()
        };
        Self {
            tensors: self.tensors.iter().map(zero).collect(),
        }
    }

    /// Sets every value to 0.
    pub fn clear(&mut self) {
        for t in &mut self.tensors {
            t.data.fill(0.0);
        }
    }

    /// All tensors in order.
    pub fn iter(&self) -> std::slice::Iter<'_, NamedTensor> {
        self.tensors.iter()
    }

    /// All tensors in order, mutable.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, NamedTensor> {
        self.tensors.iter_mut()
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The tensor called `name`, mutable.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut NamedTensor> {
        self.tensors.iter_mut().find(|t| t.name == name)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of trainable numbers.
    pub fn count(&self) -> usize {
        self.tensors.iter().map(|t| t.data.len()).sum()
    }

    /// Square root of the sum of squares over all tensors.
    pub fn norm(&self) -> f64 {
        self.tensors
            .iter()
            .flat_map(|t| &t.data)
            .map(|&v| f64::from(v) * f64::from(v))
            .sum::<f64>()
            .sqrt()
    }

    /// Multiplies every value by `factor`.
    pub fn scale(&mut self, factor: f32) {
        for v in self.tensors.iter_mut().flat_map(|t| &mut t.data) {
            *v *= factor;
        }
    }

    /// Copies the values of `other`.
    ///
    /// # Errors
    /// [`AdaptError::Missing`] or [`AdaptError::Shape`] if names or shapes differ.
    pub fn copy_from(&mut self, other: &Self) -> Result<(), AdaptError> {
        self.same_layout(other)?;
        for (to, from) in self.tensors.iter_mut().zip(&other.tensors) {
            to.data.copy_from_slice(&from.data);
        }
        Ok(())
    }

    /// Checks that `other` has the same names and shapes in the same order.
    ///
    /// # Errors
    /// [`AdaptError::Missing`] or [`AdaptError::Shape`], naming the first difference.
    pub fn same_layout(&self, other: &Self) -> Result<(), AdaptError> {
        for (i, t) in self.tensors.iter().enumerate() {
            match other.tensors.get(i) {
                Some(o) if o.name == t.name && o.shape == t.shape => {}
                Some(o) if o.name == t.name => {
                    return Err(AdaptError::Shape {
                        name: t.name.clone(),
                        found: o.shape.clone(),
                        wanted: t.shape.clone(),
                        hint: "; the tensors belong to another adaptation",
                    });
                }
                _ => {
                    return Err(AdaptError::Missing {
                        name: t.name.clone(),
                        hint: "the tensors belong to another adaptation",
                    });
                }
            }
        }
        match other.tensors.get(self.tensors.len()) {
            None => Ok(()),
            Some(extra) => Err(AdaptError::Shape {
                name: extra.name.clone(),
                found: extra.shape.clone(),
                wanted: vec![],
                hint: "; this tensor belongs to another adaptation",
            }),
        }
    }

    /// Values of the tensor at `index`; the modulations lay their tensors out themselves and know the order.
    pub(super) fn at(&self, index: usize) -> &[f32] {
        &self.tensors[index].data
    }

    pub(super) fn at_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.tensors[index].data
    }
}

impl<'a> IntoIterator for &'a Parameters {
    type Item = &'a NamedTensor;
    type IntoIter = std::slice::Iter<'a, NamedTensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Parameters {
    type Item = &'a mut NamedTensor;
    type IntoIter = std::slice::IterMut<'a, NamedTensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// Gradients of a loss with respect to what an adaptation holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// One tensor per trainable tensor, same names and shapes.
    pub parameters: Parameters,
    /// With respect to the scaling factor α; used when the scaling is learned, and by the tests.
    pub scaling_factor: f64,
}

impl Gradients {
    /// All zero, for these parameters.
    pub fn zeros_for(parameters: &Parameters) -> Self {
        Self {
            parameters: parameters.zeros_like(),
            scaling_factor: 0.0,
        }
    }

    /// Sets every value to 0.
    pub fn clear(&mut self) {
        self.parameters.clear();
        self.scaling_factor = 0.0;
    }
}
