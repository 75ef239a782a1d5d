"""What a detector says of an image."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Region(NamedTuple):
    """A connected region of a map at or above its threshold, with the box round it, in pixels of the image."""

    #: First column of the box.
    left: int
    #: First row of the box.
    top: int
    #: Columns of the box.
    width: int
    #: Rows of the box.
    height: int
    #: Pixels in the region, not in the box.
    area: int
    #: Largest number of the map in the region.
    peak: float
    #: Row and column of the peak.
    peak_at: tuple[int, int]
    #: Sum over the region of how far each pixel is above the threshold.
    mass: float


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """Verdict, places and map of an image. In a notebook it shows itself."""

    #: Larger is more anomalous.
    score: float
    #: Calibrated probability of a flaw, 0 to 1.
    probability: float
    #: Whether the score reaches the detector's threshold.
    flaw: bool
    #: Of a flaw, the type of known defects that it is like, or `unknown`; None where the detector knows no types.
    kind: Optional[str]
    #: How unlike the good images the image is as a whole: 0 as they are, from 1 on unlike them; then the verdict says little.
    drift: float
    #: Height and width of the image in pixels.
    size: tuple[int, int]
    #: Of a flaw, its regions, the worst first.
    regions: list[Region]
    #: float32 `(height, width)`, larger is more anomalous; None where maps were not wanted.
    map: Optional["npt.NDArray[np.float32]"]
    _image: Any = field(default=None)
    _core: Any = field(default=None)

    def overlay(self) -> Optional[bytes]:
        """The image with its map and its worst region, as a PNG; None without a map.

        A file that was given by its path is read again.
        """
        if self.map is None:
            return None
        worst = self.regions[0] if self.regions else None
        return self._core.overlay(self._image, self.map, worst)

    def _repr_png_(self) -> Optional[bytes]:
        return self.overlay()

    def _repr_html_(self) -> str:
        png = self.overlay()
        picture = ""
        if png is not None:
            data = base64.b64encode(png).decode("ascii")
            picture = f'<br><img style="max-width:100%" alt="map" src="data:image/png;base64,{data}">'
        return f"<div>{html.escape(self._verdict())}{picture}</div>"

    def _verdict(self) -> str:
        verdict = "flaw" if self.flaw else "good"
        kind = f" ({self.kind})" if self.kind else ""
        return f"{verdict}{kind}, score {self.score:.4f}, probability {self.probability:.3f}"

    def __repr__(self) -> str:
        return f"<Prediction: {self._verdict()}>"
