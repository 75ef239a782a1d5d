"""flawtune as an outlier detector of scikit-learn, in `Pipeline`, `GridSearchCV` and friends.

>>> from flawtune.sklearn import FlawDetector
>>> model = FlawDetector(backbone="dinov2_vits14").fit(images)      # doctest: +SKIP
>>> model.predict(new_images)                                       # doctest: +SKIP
array([ 1, -1])
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from ._detector import Detector
from ._images import each

__all__ = ["FlawDetector"]


class FlawDetector(OutlierMixin, BaseEstimator):
    """Finds flaws, in the words of scikit-learn: 1 is a good image, -1 a defect; larger scores are better images.

    `X` is a list of images, or an array of paths or `(n, H, W, C)`: whatever :meth:`flawtune.Detector.predict` takes several of.

    Args:
        backbone, weights, image_size, seed, max_false_alarm, progress: As of :meth:`flawtune.Detector.fit`.
        batch_size: Images a forward pass; no result depends on it.

    Attributes:
        detector_: The :class:`flawtune.Detector`; `detector_.save("parts.flaw")` writes the file.
        offset_: `decision_function(X)` is `score_samples(X) - offset_`.
        threshold_: The detector's threshold, which is `-offset_`.
    """

    def __init__(
        self,
        backbone: Optional[str] = "dinov2_vits14",
        weights: Any = None,
        image_size: Any = None,
        seed: int = 0,
        max_false_alarm: float = 0.01,
        batch_size: int = 8,
        progress: Any = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.seed = seed
        self.max_false_alarm = max_false_alarm
        self.batch_size = batch_size
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> "FlawDetector":
        """Fits to images.

        Args:
            X: Images.
            y: 1 for a good image, -1 for a defect to learn from. None: all are good.
        """
        images = list(each(X))
        defects = []
        if y is not None:
            labels = np.asarray(y)
            if labels.shape != (len(images),):
                raise ValueError(f"`y` has the shape {labels.shape}; there are {len(images)} images in `X`")
            if not np.isin(labels, (1, -1)).all():
                raise ValueError("`y` holds other labels than 1 and -1\nhint: 1 is a good image, -1 a defect")
            defects = [image for image, label in zip(images, labels) if label == -1]
            images = [image for image, label in zip(images, labels) if label == 1]
        self.detector_ = Detector.fit(
            images,
            defects or None,
            backbone=self.backbone,
            weights=self.weights,
            image_size=self.image_size,
            seed=self.seed,
            max_false_alarm=self.max_false_alarm,
            progress=self.progress,
        )
        self.offset_ = -self.detector_.threshold
        return self

    @property
    def threshold_(self) -> float:
        """The detector's threshold: scores of the detector at or above it are flaws."""
        check_is_fitted(self)
        return self.detector_.threshold

    def score_samples(self, X: Any) -> np.ndarray:
        """The detector's scores with the sign turned, float64 `(n,)`: larger is more like a good image."""
        check_is_fitted(self)
        found = self.detector_.predict_iter(X, maps=False, batch_size=self.batch_size)
        return np.array([-one.score for one in found], dtype=np.float64)

    def decision_function(self, X: Any) -> np.ndarray:
        """How far an image is from the threshold, float64 `(n,)`: of a flaw 0 or less, of a good image more."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """1 for a good image, -1 for one with a flaw, int `(n,)`."""
        check_is_fitted(self)
        found = self.detector_.predict_iter(X, maps=False, batch_size=self.batch_size)
        return np.array([-1 if one.flaw else 1 for one in found], dtype=int)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags
