//! Errors of this crate as a job reports them.

use flawtune::workflow::WorkflowError;

use crate::adapt::AdaptError;
use crate::augment::AugmentError;
use crate::visualize::VisualizeError;

impl From<AdaptError> for WorkflowError {
    fn from(error: AdaptError) -> Self {
        Self::Lab(Box::new(error))
    }
}

impl From<AugmentError> for WorkflowError {
    fn from(error: AugmentError) -> Self {
        Self::Lab(Box::new(error))
    }
}

impl From<VisualizeError> for WorkflowError {
    fn from(error: VisualizeError) -> Self {
        Self::Lab(Box::new(error))
    }
}
