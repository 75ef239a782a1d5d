//! `flawtune serve`: a detector that is taught by looking. HTTP and a web page round [`flawtune::Detector`], a store of parts and
//! judgements, sources of images and receivers of verdicts.

pub mod receivers;
pub mod sources;
pub mod verdict;
