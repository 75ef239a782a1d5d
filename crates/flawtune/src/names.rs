//! One of a list of things, by its name.

/// The one of `all` that `name` calls `text`.
///
/// # Errors
/// None is called so: a text that says what they are called.
pub fn one_of<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Result<T, String> {
    all.iter()
        .copied()
        .find(|one| name(*one) == text)
        .ok_or_else(|| {
            format!(
                "it is one of {}",
                all.iter()
                    .map(|one| name(*one))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        })
}
