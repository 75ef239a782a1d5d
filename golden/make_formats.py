#!/usr/bin/env python3
"""Image files of many formats, and the RGB bytes that independent readers give for them.

    pip install pillow==13.0.0 numpy tifffile imagecodecs
    python make_formats.py formats
    python make_formats.py --check formats      # what Pillow reads today in the files that are there; needs Pillow alone

Judges: Pillow for all of 8 bits (`Image.open(file).convert("RGB")`, of several frames the first), tifffile and imagecodecs
for 16 bits a channel, of which `(v + 128) // 257` is taken because Pillow halves nothing evenly there. `expected.safetensors`
holds [rows, columns, 3] bytes by file name, stored as `file_name -> array`; `formats.json` holds versions, the EXIF
orientation of files that have one, and by name what is refused.
"""
import json, os, struct, sys

import numpy as np
import PIL
from PIL import Image, features


def check(folder):
    """Compares the files with what Pillow reads now; 16 bits and turned TIFF have other judges. Returns what differs."""
    with open(os.path.join(folder, "expected.safetensors"), "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    wrong = []
    for name, tensor in head.items():
        if "16" in name.replace("16x", "") or name.startswith("tiff_turned") or name.endswith(".btf"):
            continue
        start, end = tensor["data_offsets"]
        wanted = np.frombuffer(data[start:end], "u1").reshape(tensor["shape"])
        read = np.asarray(Image.open(os.path.join(folder, name)).convert("RGB"))
        if read.shape != wanted.shape or (read != wanted).any():
            wrong.append(name)
    return len(head), wrong


if sys.argv[1:2] == ["--check"]:
    count, wrong = check(sys.argv[2])
    print(f"{count} files, Pillow {PIL.__version__}: " + (f"differs in {', '.join(wrong)}" if wrong else "as expected"))
    sys.exit(1 if wrong else 0)

import imagecodecs
import tifffile

out = sys.argv[1] if len(sys.argv) > 1 else "formats"
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(24)
expected, orientation, refused = {}, {}, {}


def drawn(height, width, channels=3):
    """Slopes, an edge and noise: something for every filter of a codec."""
    y, x = np.mgrid[:height, :width].astype(float)
    planes = [127 + 90 * np.sin(x / (3 + c) + y / (5 - c)) + 30 * ((x + 2 * y) % 17 < 4) for c in range(channels)]
    image = np.stack(planes, -1) + rng.normal(0, 8, (height, width, channels))
    return image.clip(0, 255).astype("u1")


def path(name):
    return os.path.join(out, name)


def judged(name, array=None):
    """Remembers what the judge reads: Pillow, or for 16 bits the array as it was read back."""
    if array is None:
        array = np.asarray(Image.open(path(name)).convert("RGB"))
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, -1)
    array = array[..., :1].repeat(3, -1) if array.shape[-1] < 3 else array[..., :3]
    if array.dtype == np.uint16:
        array = ((array.astype(int) + 128) // 257).astype("u1")
    assert array.dtype == np.uint8 and array.shape[-1] == 3, (name, array.dtype, array.shape)
    expected[name] = np.ascontiguousarray(array)


def pillow(name, image, **options):
    image.save(path(name), **options)
    judged(name)


# JPEG: baseline and progressive, every sampling, odd sizes, grey, CMYK, restarts, RGB
for height, width in ((48, 67), (17, 2), (1, 1), (9, 33)):
    image = Image.fromarray(drawn(height, width))
    size = f"{height}x{width}"
    for sampling, word in ((0, "444"), (1, "422"), (2, "420")):
        pillow(f"jpeg_{word}_{size}.jpg", image, quality=90, subsampling=sampling)
        pillow(f"jpeg_{word}_{size}_progressive.jpg", image, quality=75, subsampling=sampling, progressive=True)
    for word in ("440", "411"):
        with open(path(f"jpeg_{word}_{size}.jpg"), "wb") as file:
            file.write(imagecodecs.jpeg8_encode(np.asarray(image), level=88, subsampling=word))
        judged(f"jpeg_{word}_{size}.jpg")
    pillow(f"jpeg_grey_{size}.jpg", image.convert("L"), quality=85)
    pillow(f"jpeg_cmyk_{size}.jpg", image.convert("CMYK"), quality=85)
image = Image.fromarray(drawn(40, 56))
pillow("jpeg_restart.jpg", image, quality=60, restart_marker_blocks=2)
pillow("jpeg_rgb.jpg", image, quality=85, keep_rgb=True)
pillow("jpeg_optimized.jfif", image, format="JPEG", quality=95, optimize=True)
for turn in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = turn
    pillow(f"jpeg_turned_{turn}.jpe", Image.fromarray(drawn(12, 20)), format="JPEG", quality=90, exif=exif)
    orientation[f"jpeg_turned_{turn}.jpe"] = turn

# depth × channels × alpha × size, in PNG
for height, width in ((21, 37), (1, 5)):
    size = f"{height}x{width}"
    rgb = drawn(height, width)
    alpha = drawn(height, width, 1)
    for bits in (1, 2, 4, 8):
        name = f"png_palette{bits}_{size}.png"
        few = Image.fromarray(rgb).quantize(min(2**bits, 200))
        pillow(name, few, bits=bits)
    pillow(f"png_bilevel_{size}.png", Image.fromarray(rgb).convert("1"))
    pillow(f"png_grey_{size}.png", Image.fromarray(rgb).convert("L"))
    pillow(f"png_grey_alpha_{size}.png", Image.fromarray(np.concatenate([rgb[..., :1], alpha], -1), "LA"))
    pillow(f"png_rgb_{size}.png", Image.fromarray(rgb))
    pillow(f"png_rgba_{size}.png", Image.fromarray(np.concatenate([rgb, alpha], -1)))
    few = Image.fromarray(rgb).quantize(16)
    pillow(f"png_palette_clear_{size}.png", few, transparency=3)
    for channels, word in ((1, "grey"), (2, "grey_alpha"), (3, "rgb"), (4, "rgba")):
        wide = rng.integers(0, 65536, (height, width, channels), dtype="u2")
        name = f"png_{word}16_{size}.png"
        with open(path(name), "wb") as file:
            file.write(imagecodecs.png_encode(wide))
        judged(name, imagecodecs.png_decode(open(path(name), "rb").read()).reshape(wide.shape))
png_exif = Image.Exif()
png_exif[0x0112] = 6
pillow("png_turned_6.png", Image.fromarray(drawn(10, 14)), exif=png_exif)
orientation["png_turned_6.png"] = 6

# TIFF: compressions, tiles, planes, byte orders, BigTIFF, pages
rgb = drawn(35, 50)
for word, compression in (("raw", None), ("lzw", "tiff_lzw"), ("deflate", "tiff_adobe_deflate"), ("packbits", "packbits")):
    pillow(f"tiff_{word}.tif", Image.fromarray(rgb), compression=compression)
    pillow(f"tiff_grey_{word}.tif", Image.fromarray(rgb[..., 0]), compression=compression)
pillow("tiff_bilevel.tif", Image.fromarray(rgb).convert("1"))
pillow("tiff_group4.tif", Image.fromarray(rgb).convert("1"), compression="group4")
pillow("tiff_rgba.tiff", Image.fromarray(np.concatenate([rgb, rgb[..., :1]], -1)))
pillow("tiff_cmyk.tif", Image.fromarray(rgb).convert("CMYK"))
pillow("tiff_pages.tif", Image.fromarray(rgb), save_all=True, append_images=[Image.fromarray(255 - rgb)])
pillow("tiff_jpeg.tif", Image.fromarray(rgb), compression="jpeg", quality=90)
for turn in (3, 6):
    pillow(f"tiff_turned_{turn}.tif", Image.fromarray(drawn(9, 15)), tiffinfo={274: turn})
    # Pillow turns TIFF itself
    expected[f"tiff_turned_{turn}.tif"] = tifffile.imread(path(f"tiff_turned_{turn}.tif"))
    orientation[f"tiff_turned_{turn}.tif"] = turn
wide = rng.integers(0, 65536, (35, 50, 3), dtype="u2")
for name, array, options in (
    ("tiff_big.tif", rgb, dict(bigtiff=True)),
    ("tiff_big_grey16.btf", wide[..., 0], dict(bigtiff=True, photometric="minisblack")),
    ("tiff_tiled.tif", rgb, dict(tile=(16, 16), compression="zlib")),
    ("tiff_planes.tif", np.moveaxis(rgb, -1, 0), dict(planarconfig="separate", photometric="rgb")),
    ("tiff_grey16.tif", wide[..., 0], dict(photometric="minisblack")),
    ("tiff_grey16_motorola.tif", wide[..., 0], dict(photometric="minisblack", byteorder=">")),
    ("tiff_rgb16.tif", wide, dict(photometric="rgb", compression="lzw", predictor=True)),
    ("tiff_white_is_zero.tif", rgb[..., 0], dict(photometric="miniswhite")),
):
    tifffile.imwrite(path(name), array, **options)
    read = tifffile.imread(path(name))
    if "planes" in name:
        read = np.moveaxis(read, 0, -1)
    judged(name, None if name == "tiff_white_is_zero.tif" else read)

# JPEG inside of TIFF, in YCbCr: as tifffile and as libtiff write it, which takes half of the colours away
tifffile.imwrite(path("tiff_ycbcr.tif"), rgb, compression="jpeg", photometric="ycbcr")
judged("tiff_ycbcr.tif")
pillow("tiff_ycbcr_strips.tif", Image.fromarray(np.tile(rgb, (3, 2, 1))).convert("YCbCr"), compression="jpeg", quality=85, tiffinfo={278: 32})

# the rest
pillow("bmp_rgb.bmp", Image.fromarray(rgb))
pillow("bmp_grey.bmp", Image.fromarray(rgb[..., 0]))
pillow("bmp_palette.dib", Image.fromarray(rgb).quantize(100), format="BMP")
pillow("bmp_bilevel.bmp", Image.fromarray(rgb).convert("1"))
pillow("webp_lossless.webp", Image.fromarray(rgb), lossless=True)
pillow("webp_lossy.webp", Image.fromarray(rgb), quality=80)
pillow("webp_alpha.webp", Image.fromarray(np.concatenate([rgb, rgb[..., :1]], -1)), lossless=True, exact=True)
pillow("gif.gif", Image.fromarray(rgb).quantize(128))
pillow("gif_frames.gif", Image.fromarray(rgb).quantize(64), save_all=True, append_images=[Image.fromarray(255 - rgb).quantize(64)])
pillow("gif_interlaced_clear.gif", Image.fromarray(rgb).quantize(32), transparency=5, interlace=1)
pillow("pnm_grey.pgm", Image.fromarray(rgb[..., 0]))
pillow("pnm_rgb.ppm", Image.fromarray(rgb))
pillow("pnm_bilevel.pbm", Image.fromarray(rgb).convert("1"))
with open(path("pnm_ascii.pgm"), "w") as file:
    file.write("P2\n# a remark\n3 2\n255\n0 1 2\n100 200 255\n")
judged("pnm_ascii.pgm")
with open(path("pnm_grey16.pgm"), "wb") as file:
    file.write(b"P5\n50 35\n65535\n" + wide[..., 0].astype(">u2").tobytes())
judged("pnm_grey16.pgm", wide[..., 0])

# what is refused
for name, word in (("heic.heic", "HEIC"), ("avif.avif", "AVIF"), ("jpeg2000.jp2", "JPEG 2000"), ("float.tif", "float"), ("tiff_palette.tif", "palette")):
    refused[name] = word
with open(path("heic.heic"), "wb") as file:
    file.write(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(64))
Image.fromarray(rgb).save(path("avif.avif"), quality=50)
Image.fromarray(rgb).save(path("jpeg2000.jp2"))
Image.fromarray(rgb).quantize(64).save(path("tiff_palette.tif"))
tifffile.imwrite(path("float.tif"), (rgb[..., 0] / 255).astype("f4"))

header, at = {}, 0
for name, array in sorted(expected.items()):
    header[name] = {"dtype": "U8", "shape": list(array.shape), "data_offsets": [at, at + array.size]}
    at += array.size
head = json.dumps(header).encode()
head += b" " * (-len(head) % 8)
with open(path("expected.safetensors"), "wb") as file:
    file.write(struct.pack("<Q", len(head)) + head)
    for _, array in sorted(expected.items()):
        file.write(array.tobytes())
versions = {
    "pillow": PIL.__version__,
    "libjpeg_turbo": features.version("libjpeg_turbo"),
    "tifffile": tifffile.__version__,
    "imagecodecs": imagecodecs.__version__,
    "numpy": np.__version__,
}
with open(path("formats.json"), "w") as file:
    json.dump({"versions": versions, "orientation": orientation, "refused": refused}, file, indent=1)
    file.write("\n")
print(len(expected), "files judged,", at, "bytes")
