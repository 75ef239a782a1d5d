"""Images as people have them: files, bytes, Pillow images, arrays and tensors."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from . import _flawtune

#: One image. See :func:`taken` for what is read how.
ImageLike = Union[str, "os.PathLike[str]", bytes, Any]
#: One image, or several.
Images = Union[ImageLike, Iterable[ImageLike]]

_CHANNELS = (1, 3, 4)


def _is_pillow(image: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _is_array(image: Any) -> bool:
    return hasattr(image, "__array__") or hasattr(image, "__dlpack__")


def each(images: Images) -> Iterator[ImageLike]:
    """One image after the other: of a single image that one, of an array of four dimensions its rows."""
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or _is_pillow(images):
        yield images
    elif _is_array(images):
        array = images if hasattr(images, "ndim") else _as_array(images)
        # paths may lie in an array too
        if getattr(array, "dtype", None) is not None and str(array.dtype)[:2] in ("ob", "<U"):
            yield from (item for item in array)
        elif array.ndim == 4:
            yield from array
        else:
            yield array
    elif isinstance(images, Iterable):
        yield from images
    else:
        raise ValueError(
            f"images are given as {type(images).__name__}\n"
            "hint: give a path, bytes, a Pillow image, an array, or several of them"
        )


def taken(image: ImageLike) -> Any:
    """What the library reads: a path as `str`, encoded `bytes`, or pixels `(H, W, 3)` uint8.

    - `str`, `Path`: the file.
    - `bytes`: an encoded image (PNG, JPEG, TIFF, BMP, WebP, …).
    - Pillow images: their pixels; Pillow's own decoding of a JPEG may differ by a step from the library's.
    - Arrays: `(H, W)` or `(H, W, C)` of 1 (grey), 3 (red, green, blue) or 4 channels (with alpha), uint8 or uint16, read as the
      PNG of the same pixels would be.
    - Tensors, and whatever else has DLPack and is no numpy array: as arrays, or `(C, H, W)` where the first side is 1, 3 or 4
      and the last is not.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if os.path.isdir(path):
            raise ValueError(f"{path}: is a folder, not an image\nhint: give its files, such as sorted(Path({path!r}).glob('*.png'))")
        return path
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if _is_pillow(image):
        return _of_array(_of_pillow(image))
    if isinstance(image, np.ndarray):
        return _of_array(image)
    if _is_array(image):
        return _of_array(_channels_last(_as_array(image)))
    raise ValueError(
        f"an image is given as {type(image).__name__}\n"
        "hint: give a path, bytes, a Pillow image, or an array of uint8 or uint16"
    )


def _as_array(image: Any) -> np.ndarray:
    detach = getattr(image, "detach", None)
    if detach is not None:
        image = detach().cpu()
    if hasattr(image, "__array__"):
        return np.asarray(image)
    return np.from_dlpack(image)


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS:
        return np.moveaxis(array, 0, 2)
    return array


def _of_pillow(image: Any) -> np.ndarray:
    if image.mode in ("L", "RGB", "RGBA"):
        return np.asarray(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB"))


def _of_array(array: np.ndarray) -> Any:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _CHANNELS or 0 in array.shape:
        raise ValueError(
            f"an image is an array of shape {array.shape}; it is (height, width) or (height, width, channels) of 1, 3 or 4 channels"
        )
    if array.dtype == np.uint8:
        if array.shape[2] == 3:
            return np.ascontiguousarray(array)
        if array.shape[2] == 1:
            return np.repeat(array, 3, axis=2)
    elif array.dtype == np.uint16:
        array = array.astype("=u2", copy=False)
    else:
        raise ValueError(
            f"an image is an array of {array.dtype}; it is uint8 or uint16\n"
            "hint: bring the values to 0 to 255 and use .astype('uint8')"
        )
    return _flawtune.png(np.ascontiguousarray(array))


def is_folder(images: Any) -> bool:
    """Whether it names a folder; a path that does not exist is an error."""
    if not isinstance(images, (str, os.PathLike)):
        return False
    if not os.path.exists(images):
        raise FileNotFoundError(f"{os.fspath(images)}: no such file or folder")
    return os.path.isdir(images)


def _put(image: ImageLike, folder: Path, position: int, name: Optional[str] = None) -> str:
    """Puts an image into the folder, and returns its name without an extension. Files are linked, and keep their bits."""
    found = taken(image)
    if isinstance(found, str):
        source = Path(found).absolute()
        if not source.is_file():
            raise FileNotFoundError(f"{found}: no such file")
        target = folder / (name or f"{position:06}_{source.name}")
        try:
            target.symlink_to(source)
        except OSError:
            shutil.copyfile(source, target)
        return target.stem
    if isinstance(found, np.ndarray):
        found = _flawtune.png(found)
    # the content of an encoded image says what it is
    target = folder / (name or f"{position:06}.png")
    target.write_bytes(found)
    return target.stem


def placed(images: Images, folder: Path) -> list[str]:
    """Puts images into the new folder; their names there, in order."""
    folder.mkdir(parents=True)
    names = [_put(image, folder, position) for position, image in enumerate(each(images))]
    if not names:
        raise ValueError("no images were given")
    return names


class Folders:
    """Good images, defects and masks as folders: those that were named, or ones below `scratch` that hold the images."""

    def __init__(self, scratch: Path, good: Any, defects: Any, masks: Any) -> None:
        self.good: Optional[str] = None
        self.defects: Optional[str] = None
        self.masks: Optional[str] = None
        if good is not None:
            self.good = self._folder(good, scratch / "good")
        if defects is None:
            if masks is not None:
                raise ValueError("masks were given without defects\nhint: masks mark the flaws of defects")
        elif is_folder(defects):
            self.defects = os.fspath(defects)
            if masks is not None:
                if not is_folder(masks):
                    raise ValueError("defects are a folder, masks are not\nhint: give the folder of the masks")
                self.masks = os.fspath(masks)
        else:
            self._of_types(scratch, defects, masks)

    @staticmethod
    def _folder(images: Images, into: Path) -> str:
        if is_folder(images):
            return os.fspath(images)
        placed(images, into)
        return str(into)

    def _of_types(self, scratch: Path, defects: Any, masks: Any) -> None:
        types = defects if isinstance(defects, Mapping) else {"defect": defects}
        if not types:
            raise ValueError("no defects were given")
        if masks is not None and isinstance(masks, (str, os.PathLike)):
            raise ValueError("masks are a folder, defects are not\nhint: give as many masks as defects, None where there is none")
        of_types = masks if isinstance(masks, Mapping) else {"defect": masks}
        if isinstance(masks, Mapping) != isinstance(defects, Mapping) and masks is not None:
            raise ValueError("defects or masks are given by type\nhint: give both by type, or neither")
        for kind, images in types.items():
            if not kind or "/" in kind or os.sep in kind or kind.startswith("."):
                raise ValueError(f"{kind!r} cannot be the name of a type\nhint: use a name that a folder can have")
            names = placed(images, scratch / "defects" / kind)
            self.defects = str(scratch / "defects")
            marks = of_types.get(kind)
            if marks is None:
                continue
            marks = list(marks) if not _is_array(marks) or getattr(marks, "ndim", 0) == 3 else list(each(marks))
            if len(marks) != len(names):
                raise ValueError(f"{len(names)} defects of the type {kind} have {len(marks)} masks\nhint: None is a mask that does not exist")
            into = scratch / "masks" / kind
            into.mkdir(parents=True)
            for position, (name, mark) in enumerate(zip(names, marks)):
                if mark is not None:
                    if isinstance(mark, np.ndarray) and mark.dtype == bool:
                        mark = mark.astype(np.uint8) * 255
                    _put(mark, into, position, f"{name}.png")
            self.masks = str(scratch / "masks")
