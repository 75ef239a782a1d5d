"""The detector."""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

import numpy as np

from . import _flawtune
from ._images import Folders, Images, each, placed, taken
from ._prediction import Prediction, Region

_LOG = logging.getLogger("flawtune")
#: Backbone unless another is named.
_DEFAULT = "dinov2_vits14"

#: `(stage, done, total)`, or `"tqdm"`. `total` is 0 where it is not known. What it raises ends the work.
Progress = Union[None, str, Callable[[str, int, int], None]]
#: A side in pixels, (height, width), or several of these.
ImageSize = Union[None, int, tuple[int, int], list[Union[int, tuple[int, int]]]]


class FlawtuneWarning(UserWarning):
    """Something that changes what a result means."""


class Tally(NamedTuple):
    """Known images by a detector, each by models that had not seen it."""

    #: Good images.
    good: int
    #: Those of them that it stops.
    stopped: int
    #: Defects.
    defects: int
    #: Those of them that it finds.
    found: int


class Taught(NamedTuple):
    """What a detector learned."""

    #: Good images that it learned now.
    good: int
    #: Defects that it learned now.
    defects: int
    #: Known images by the detector of before.
    before: Tally
    #: The same by the detector as it is now.
    after: Tally


class _Backbone:
    """A backbone by name, and how images get into it. Weights say by themselves what they are, beside the name of the default."""

    def __init__(self, name: Optional[str], weights: Any, image_size: ImageSize) -> None:
        self.name = name if weights is None or name != _DEFAULT else None
        self.weights = None if weights is None else os.fspath(weights)
        self.sizes = _sizes(image_size)


def _sizes(image_size: Any) -> list[tuple[int, int]]:
    if image_size is None:
        return []
    sizes = image_size if isinstance(image_size, list) else [image_size]
    return [(int(s[0]), int(s[1])) if isinstance(s, tuple) else (int(s), int(s)) for s in sizes]


class _Listener:
    """Tells Python what happens: progress to the callback or a bar, warnings as warnings, notes to the logger `flawtune`."""

    def __init__(self, progress: Progress) -> None:
        if progress == "tqdm":
            self._progress: Optional[Callable[[str, int, int], None]] = _Bars()
        elif progress is None or callable(progress):
            self._progress = progress
        else:
            raise ValueError(f"`progress` is {progress!r}; it is a function (stage, done, total), \"tqdm\" or None")

    def __call__(self, kind: str, text: str, done: int, total: int) -> None:
        if kind == "warning":
            warnings.warn(text, FlawtuneWarning, stacklevel=3)
        elif kind == "note":
            _LOG.info(text)
        elif self._progress is not None:
            self._progress(text, done, total)


class _Bars:
    def __init__(self) -> None:
        from tqdm.auto import tqdm

        self._tqdm = tqdm
        self._stage: Optional[str] = None
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            if self._bar is not None:
                self._bar.close()
            self._stage, self._bar = stage, self._tqdm(total=total or None, desc=stage)
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)
        if total and done >= total:
            self._bar.close()
            self._stage = self._bar = None


class Detector:
    """What a `.flaw` file holds, put to work: :meth:`fit` or :meth:`open` make one.

    Scores are those of the command `flawtune` on the same file and images, to the last bit, on any number of threads.
    """

    def __init__(self, core: Any) -> None:
        if not isinstance(core, _flawtune.Detector):
            raise TypeError("use Detector.fit or Detector.open")
        self._core = core
        self._kept: Any = None

    @classmethod
    def fit(
        cls,
        good: Images,
        defects: Union[None, Images, Mapping[str, Images]] = None,
        masks: Any = None,
        *,
        backbone: Optional[str] = _DEFAULT,
        weights: Union[None, str, "os.PathLike[str]"] = None,
        image_size: ImageSize = None,
        seed: int = 0,
        max_false_alarm: float = 0.01,
        progress: Progress = None,
    ) -> "Detector":
        """Fits a detector.

        Args:
            good: Images of good parts: a folder, searched to any depth, or images (see :meth:`predict`).
            defects: Images of defects, all of which are learned from: a folder whose folders are the types, images, or images by
                type (`{"crack": [...], "stain": [...]}`).
            masks: Where their flaws are, not black (or `True`) there: a folder where defects are one, otherwise a mask `(H, W)` or
                None for each defect, by type where defects are. Without masks the oddest patches of a defect are taken.
            backbone: Name of the backbone; published weights are fetched at the first use. None: what the weight file says.
            weights: Weight file to use instead.
            image_size: Side in pixels that images are resized to, (height, width), or a list of several sizes. None: the default.
            seed: The same seed gives the same bits.
            max_false_alarm: Share of good images that may be called flawed.
            progress: A function `(stage, done, total)`, or `"tqdm"`.

        Images that are not in a folder are put into a temporary one: files as links, pixels as PNG, which gives the same bits as the
        files in a folder in that order.

        Raises:
            ValueError: Wrong input; a line that begins with `hint:` says what to do.
            OSError: A file that cannot be read, weights that cannot be fetched.
        """
        listener = _Listener(progress)
        if good is None:
            raise ValueError("no good images: a detector learns from them what is normal\nhint: give a folder or images as `good`")
        with tempfile.TemporaryDirectory(prefix="flawtune-") as scratch:
            folders = Folders(Path(scratch), good, defects, masks)
            core = _flawtune.fit(
                folders.good,
                folders.defects,
                folders.masks,
                _Backbone(backbone, weights, image_size),
                seed,
                max_false_alarm,
                listener,
            )
        return cls(core)

    @classmethod
    def open(
        cls,
        path: Union[str, "os.PathLike[str]"],
        *,
        weights: Union[None, str, "os.PathLike[str]"] = None,
        progress: Progress = None,
    ) -> "Detector":
        """Opens a `.flaw` file. Weights are looked for where they were when it was fitted, then by the backbone's name."""
        weights = None if weights is None else os.fspath(weights)
        return cls(_flawtune.Detector.open(os.fspath(path), weights, _Listener(progress)))

    def save(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Writes the detector as one file, whole or not at all: everything but the backbone's weights, which it names."""
        self._core.save(os.fspath(path))

    def predict(self, images: Images, *, maps: bool = True, batch_size: int = 8) -> list[Prediction]:
        """Looks at images.

        Args:
            images: One or several of: a path; encoded `bytes`; a Pillow image; an array `(H, W)` or `(H, W, C)`, uint8 or uint16, C
                being 1, 3 (red, green, blue) or 4; a tensor of the same, or `(C, H, W)`; an array of four dimensions is several
                images.
            maps: Draw a map for each image. Without them large images take less time and memory.
            batch_size: Images a forward pass; no result depends on it.

        Returns:
            A :class:`Prediction` for each image, in order.
        """
        return list(self.predict_iter(images, maps=maps, batch_size=batch_size))

    def predict_iter(self, images: Images, *, maps: bool = True, batch_size: int = 8) -> Iterator[Prediction]:
        """As :meth:`predict`, one batch after the other, for any number of images."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` is {batch_size}; it is at least 1")
        core, first, rest = self._core, 0, each(images)
        while batch := [taken(image) for image in itertools.islice(rest, batch_size)]:
            for image, said in zip(batch, core.predict(batch, first, maps)):
                score, probability, flaw, kind, drift, size, regions, values = said
                places = [Region(*place) for place in regions]
                yield Prediction(score, probability, flaw, kind, drift, size, places, values, image, core)
            first += len(batch)

    def learn(
        self,
        defects: Union[None, Images, Mapping[str, Images]] = None,
        good: Optional[Images] = None,
        masks: Any = None,
        *,
        force: bool = False,
        progress: Progress = None,
    ) -> Taught:
        """Learns from more images, in seconds and without those of before: missed defects, good images that were stopped.

        Images are given as to :meth:`fit`. What would tell known images apart worse is refused by a `ValueError`, and the detector
        stays as it is, unless `force` is set. Predictions that were made before stay as they are.
        """
        listener = _Listener(progress)
        with tempfile.TemporaryDirectory(prefix="flawtune-") as scratch:
            folders = Folders(Path(scratch), good, defects, masks)
            core, said = self._core.learn(folders.good, folders.defects, folders.masks, force, listener)
        self._core = core
        return Taught(said["good"], said["defects"], Tally(**said["before"]), Tally(**said["after"]))

    @property
    def threshold(self) -> float:
        """Scores at or above it are flaws."""
        return self._core.threshold

    def __repr__(self) -> str:
        facts = self._core.facts()
        return f"<Detector of {facts['category']}: {facts['scorer']}, {facts['good']} good images, threshold {self.threshold:.4f}>"

    def __reduce__(self) -> Any:
        with tempfile.TemporaryDirectory(prefix="flawtune-") as scratch:
            path = Path(scratch) / "detector.flaw"
            self.save(path)
            return _restored, (path.read_bytes(),)


def _restored(content: bytes) -> Detector:
    scratch = tempfile.TemporaryDirectory(prefix="flawtune-")
    path = Path(scratch.name) / "detector.flaw"
    path.write_bytes(content)
    detector = Detector.open(path)
    # parts of the file are read when they are needed
    detector._kept = scratch
    return detector


def features(
    images: Images,
    *,
    backbone: Optional[str] = _DEFAULT,
    weights: Union[None, str, "os.PathLike[str]"] = None,
    image_size: ImageSize = None,
    progress: Progress = None,
) -> tuple["np.ndarray", "np.ndarray"]:
    """Tokens of a frozen backbone, after its final norm.

    Returns:
        Class tokens, float32 `(images, dim)`, and patch tokens, float32 `(images, patches, dim)`, patches in reading order.
    """
    listener = _Listener(progress)
    with tempfile.TemporaryDirectory(prefix="flawtune-") as scratch:
        folder = Path(scratch) / "images"
        placed(images, folder)
        output = Path(scratch) / "tokens.safetensors"
        paths = sorted(str(path) for path in folder.iterdir())
        _flawtune.features(paths, str(output), _Backbone(backbone, weights, image_size), listener)
        return _tensors(output.read_bytes())


def _tensors(content: bytes) -> tuple["np.ndarray", "np.ndarray"]:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])

    def tensor(name: str) -> "np.ndarray":
        begin, end = header[name]["data_offsets"]
        numbers = np.frombuffer(content, "<f4", (end - begin) // 4, 8 + length + begin)
        return numbers.reshape(header[name]["shape"]).copy()

    return tensor("class_tokens"), tensor("patch_tokens")
