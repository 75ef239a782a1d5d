# What the extension module holds; use the package `flawtune`.
from typing import Any, Callable, Optional

import numpy as np
import numpy.typing as npt

__version__: str

_OnEvent = Callable[[str, str, int, int], None]

class Detector:
    threshold: float
    @staticmethod
    def open(path: str, weights: Optional[str], on_event: _OnEvent) -> "Detector": ...
    def save(self, path: str) -> None: ...
    def predict(self, images: list[Any], first: int, maps: bool) -> list[tuple[Any, ...]]: ...
    def learn(
        self,
        good: Optional[str],
        defects: Optional[str],
        masks: Optional[str],
        force: bool,
        on_event: _OnEvent,
    ) -> tuple["Detector", dict[str, Any]]: ...
    def overlay(
        self, image: Any, map: npt.NDArray[np.float32], region: Optional[tuple[Any, ...]]
    ) -> bytes: ...
    def facts(self) -> dict[str, Any]: ...

def fit(
    good: str,
    defects: Optional[str],
    masks: Optional[str],
    backbone: Any,
    seed: int,
    max_false_alarm: float,
    on_event: _OnEvent,
) -> Detector: ...
def features(paths: list[str], output: str, backbone: Any, on_event: _OnEvent) -> None: ...
def png(array: npt.NDArray[Any]) -> bytes: ...
