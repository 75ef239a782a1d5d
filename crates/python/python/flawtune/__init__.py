"""Few-shot visual flaw detection on a CPU.

Show it images of good parts and, if you have them, a few defects; it gives you one file that finds flaws:

>>> import flawtune
>>> detector = flawtune.Detector.fit("parts/good", "parts/defects")   # doctest: +SKIP
>>> detector.save("parts.flaw")                                       # doctest: +SKIP
>>> found = detector.predict("new/part.png")[0]                       # doctest: +SKIP
>>> found.flaw, found.probability, found.map.shape                    # doctest: +SKIP
(True, 0.97, (480, 640))
"""

from __future__ import annotations

from ._detector import Detector, FlawtuneWarning, Taught, Tally, features
from ._flawtune import __version__
from ._prediction import Prediction, Region

__all__ = [
    "Detector",
    "FlawtuneWarning",
    "Prediction",
    "Region",
    "Tally",
    "Taught",
    "__version__",
    "features",
]
