"""Drawn parts, a detector of them with the backbone inside the module, and the binary if it was built."""

import os
from pathlib import Path

import pytest

import flawtune

ROOT = Path(__file__).resolve().parents[3]
SIDE = 96
BACKBONE = {"backbone": "demo_vit_tiny16", "image_size": SIDE}


def _binary():
    named = os.environ.get("FLAWTUNE_BINARY")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for path in [named, target / "release/flawtune", target / "debug/flawtune"]:
        if path and Path(path).exists():
            return str(path)
    return None


@pytest.fixture(scope="session")
def binary():
    found = _binary()
    if found is None:
        pytest.skip("no binary: name it with FLAWTUNE_BINARY")
    return found


@pytest.fixture(scope="session")
def plate(tmp_path_factory):
    """A category of drawn plates: train/good, test/good and test/<type>."""
    numpy = pytest.importorskip("numpy")
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("plate")
    random = numpy.random.default_rng(7)

    def draw(path, flaw):
        pixels = numpy.full((SIDE, SIDE + 16, 3), 120, dtype=numpy.float64)
        rows, columns = numpy.mgrid[:SIDE, : SIDE + 16]
        pixels += 20 * numpy.sin(columns / 4.0)[..., None]
        pixels += random.normal(0, 4, pixels.shape)
        mask = numpy.zeros((SIDE, SIDE + 16), dtype=bool)
        if flaw:
            y, x = random.integers(24, SIDE - 24, 2)
            if flaw == "stain":
                mask = (rows - y) ** 2 + (columns - x) ** 2 < 14**2
                pixels[mask] = (60, 30, 20)
            else:
                mask = abs((rows - y) - (columns - x)) < 4
                pixels[mask] = (240, 240, 230)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path)
        if flaw:
            into = root / "masks" / flaw / path.name
            into.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray((mask * 255).astype("uint8")).save(into)

    for number in range(8):
        draw(root / f"train/good/{number:03}.png", None)
    for number in range(4):
        draw(root / f"test/good/{number:03}.png", None)
    for kind in ("stain", "scratch"):
        for number in range(3):
            draw(root / f"test/{kind}/{number:03}.png", kind)
    return root


@pytest.fixture(scope="session")
def detector(plate):
    return flawtune.Detector.fit(plate / "train/good", **BACKBONE)


@pytest.fixture(scope="session")
def paths(plate):
    return sorted((plate / "test").glob("*/*.png"))

