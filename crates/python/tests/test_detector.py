"""Fit, save, open, predict, learn; images in every form; the same bits as the binary."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

import flawtune

from conftest import BACKBONE


def scores(found):
    return [(one.score, one.probability, one.flaw) for one in found]


def test_flaws_are_found_and_shown(detector, paths):
    found = detector.predict(paths)
    assert len(found) == len(paths) == 10
    for path, one in zip(paths, found):
        width, height = Image.open(path).size
        assert one.size == one.map.shape == (height, width)
        assert one.map.dtype == np.float32
        assert one.flaw == (one.score >= detector.threshold)
        assert 0 <= one.probability <= 1
        assert bool(one.regions) == one.flaw
    good = max(one.score for path, one in zip(paths, found) if path.parent.name == "good")
    stains = min(one.score for path, one in zip(paths, found) if path.parent.name == "stain")
    assert good < stains
    worst = max(found, key=lambda one: one.score)
    region = worst.regions[0]
    row, column = region.peak_at
    assert worst.map[row, column] == np.float32(region.peak)
    assert region.left <= column < region.left + region.width
    png = worst._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert "flaw" in worst._repr_html_() and "base64" in worst._repr_html_()
    assert "flaw" in repr(worst)


def test_scores_are_those_of_the_binary(detector, paths, binary, tmp_path):
    file = tmp_path / "parts.flaw"
    detector.save(file)
    command = [binary, "predict", str(file), "--format", "jsonl", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [row for row in rows if "score" in row]
    assert len(rows) == len(paths), done.stderr
    arrays = [np.asarray(Image.open(path)) for path in paths]
    opened = flawtune.Detector.open(file)
    for images in (paths, arrays):
        for batch_size in (1, 3, 8):
            found = opened.predict(images, batch_size=batch_size)
            assert [one.score for one in found] == [row["score"] for row in rows]
            assert [one.probability for one in found] == [row["probability"] for row in rows]


def test_images_come_in_every_form(detector, paths):
    path = paths[-1]
    wanted = scores(detector.predict(path))
    array = np.asarray(Image.open(path))
    with Image.open(path) as picture:
        forms = [str(path), path, path.read_bytes(), picture, array, [array], array[None], iter([path])]
        for form in forms:
            assert scores(detector.predict(form)) == wanted, type(form)
    alpha = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    assert scores(detector.predict(alpha)) == wanted
    turned = np.asfortranarray(array)
    assert scores(detector.predict(turned)) == wanted
    # 257 times a value of 8 bits is the value of 16 bits that is read as it
    assert scores(detector.predict(array.astype(np.uint16) * 257)) == wanted
    grey = array[:, :, 0]
    three = scores(detector.predict(np.dstack([grey] * 3)))
    assert scores(detector.predict(grey)) == scores(detector.predict(grey[:, :, None])) == three

    class Tensor:
        """What has DLPack and channels first, as torch has."""

        def __init__(self, values):
            self.values, self.ndim = values.copy(), values.ndim

        def __dlpack__(self, **options):
            return self.values.__dlpack__()

        def __dlpack_device__(self):
            return self.values.__dlpack_device__()

    assert scores(detector.predict(Tensor(np.moveaxis(array, 2, 0)))) == wanted
    assert scores(detector.predict(Tensor(array))) == wanted


def test_torch_tensors_are_images(detector, paths):
    torch = pytest.importorskip("torch")
    array = np.asarray(Image.open(paths[0]))
    wanted = scores(detector.predict(array))
    tensor = torch.from_numpy(array.copy())
    assert scores(detector.predict(tensor)) == wanted
    assert scores(detector.predict(tensor.permute(2, 0, 1))) == wanted


def test_wrong_input_is_refused(detector, tmp_path, plate):
    with pytest.raises(ValueError, match="(?s)float64.*hint:"):
        detector.predict(np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match="shape"):
        detector.predict(np.zeros((8, 8, 2), np.uint8))
    with pytest.raises(ValueError, match="(?s)folder.*hint:"):
        detector.predict(plate)
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        detector.predict(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="image 1"):
        detector.predict([plate / "train/good/000.png", b"no image"])
    with pytest.raises(OSError, match="nothing.flaw"):
        flawtune.Detector.open(tmp_path / "nothing.flaw")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        flawtune.Detector.fit(tmp_path / "nowhere", **BACKBONE)
    with pytest.raises(ValueError, match="no_such_model"):
        flawtune.Detector.fit(plate / "train/good", backbone="no_such_model")
    with pytest.raises(ValueError, match="progress"):
        flawtune.Detector.fit(plate / "train/good", progress="bars", **BACKBONE)
    with pytest.raises(ValueError, match="masks were given without defects"):
        flawtune.Detector.fit(plate / "train/good", masks=plate / "masks", **BACKBONE)
    assert detector.predict([]) == []


def test_arrays_are_fitted_as_their_files(plate, paths):
    """Folders, lists of paths and lists of arrays give one detector, with defects, types and masks."""
    good = sorted((plate / "train/good").glob("*.png"))
    kinds = {kind: sorted((plate / "test" / kind).glob("*.png"))[:2] for kind in ("scratch", "stain")}
    masks = {kind: [plate / "masks" / kind / path.name for path in of] for kind, of in kinds.items()}

    def read(path):
        return np.asarray(Image.open(path))

    files = flawtune.Detector.fit(good, kinds, masks, **BACKBONE)
    arrays = flawtune.Detector.fit(
        np.stack([read(path) for path in good]),
        {kind: [read(path) for path in of] for kind, of in kinds.items()},
        {kind: [read(path) > 0 for path in of] for kind, of in masks.items()},
        **BACKBONE,
    )
    assert files.threshold == arrays.threshold
    assert scores(files.predict(paths)) == scores(arrays.predict(paths))
    kinds_found = {one.kind for one in files.predict(paths) if one.flaw}
    assert kinds_found & {"scratch", "stain"}
    folder = flawtune.Detector.fit(plate / "train/good", **BACKBONE)
    listed = flawtune.Detector.fit(good, **BACKBONE)
    assert scores(folder.predict(paths)) == scores(listed.predict(paths))


def test_a_detector_learns_and_lasts(plate, paths, tmp_path):
    detector = flawtune.Detector.fit(plate / "train/good", plate / "test/stain", **BACKBONE)
    before = detector.predict(paths)
    scratches = sorted((plate / "test/scratch").glob("*.png"))
    taught = detector.learn({"scratch": scratches}, force=True)
    assert (taught.good, taught.defects) == (0, 3)
    assert taught.before.defects == taught.after.defects == 6
    after = detector.predict(paths)
    assert scores(after) != scores(before)
    detector.save(tmp_path / "taught.flaw")
    assert scores(flawtune.Detector.open(tmp_path / "taught.flaw").predict(paths)) == scores(after)
    assert scores(pickle.loads(pickle.dumps(detector)).predict(paths)) == scores(after)
    with pytest.raises(ValueError, match="does not know"):
        detector.learn({"scratch": scratches})


def test_progress_is_told_and_ends_the_work(plate):
    told = []
    flawtune.Detector.fit(plate / "train/good", progress=lambda *event: told.append(event), **BACKBONE)
    assert ("extracting", 8, 8) in told, told

    def enough(stage, done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        flawtune.Detector.fit(plate / "train/good", progress=enough, **BACKBONE)


def test_ctrl_c_ends_a_fit(plate):
    def interrupt(stage, done, total):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        flawtune.Detector.fit(plate / "train/good", progress=interrupt, **BACKBONE)


def test_other_threads_run_while_it_computes(detector, paths):
    ticks, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    begun = time.perf_counter()
    detector.predict(paths * 4, batch_size=40)
    elapsed = time.perf_counter() - begun
    stop.set()
    thread.join()
    # a thread that waits for the interpreter would tick a few times at most
    assert ticks[0] > elapsed / 0.001 * 0.1


def test_features_are_arrays(paths):
    tokens, patches = flawtune.features(paths[:3], **BACKBONE)
    assert tokens.shape[0] == patches.shape[0] == 3
    assert tokens.shape[1] == patches.shape[2]
    assert patches.shape[1] == (96 // 16) ** 2
    assert tokens.dtype == patches.dtype == np.float32
    assert np.isfinite(patches).all()


def test_import_needs_numpy_only():
    code = "import sys, flawtune; print([m for m in ('PIL', 'sklearn', 'torch', 'tqdm', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
