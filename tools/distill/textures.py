"""Generated images to distil on: grey or coloured surfaces and parts, with and without something wrong.

Every function takes a generator and a side in pixels and gives a field [side, side] in 0..1 (or nearly); `picture`
dresses fields with colour, light, flaws, blur and noise, and gives bytes [side, side, 3]. None imitates an image of a
data set that flawtune is measured on.
"""

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

Rng = np.random.Generator


def unit(field: np.ndarray) -> np.ndarray:
    low, high = field.min(), field.max()
    return (field - low) / (high - low + 1e-9)


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.linspace(-1, 1, side)
    return np.meshgrid(at, at, indexing="ij")


def turned(r: Rng, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in periods of a random length and direction."""
    y, x = grid(side)
    a, n = r.choice([0, np.pi / 2, r.uniform(0, np.pi)], p=[0.3, 0.2, 0.5]), np.exp(r.uniform(0.3, 3.2))
    return n * (x * np.cos(a) + y * np.sin(a)), n * (y * np.cos(a) - x * np.sin(a))


def noise(r: Rng, side: int) -> np.ndarray:
    """Random phases under a falling spectrum, stretched in some direction."""
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    a, stretch = r.uniform(0, np.pi), np.exp(r.choice([0, r.uniform(0, 2.5)]))
    u, v = (fx * np.cos(a) + fy * np.sin(a)) * stretch, fy * np.cos(a) - fx * np.sin(a)
    f = np.sqrt(u * u + v * v) + 1 / side
    spectrum = f ** -r.uniform(0.5, 2.5)
    if r.random() < 0.4:  # a band
        spectrum = spectrum * np.exp(-((np.log(f) - np.log(r.uniform(0.02, 0.35))) ** 2) / 0.3)
    phase = r.normal(size=f.shape) + 1j * r.normal(size=f.shape)
    return unit(np.fft.irfft2(spectrum * phase, s=(side, side)))


def bent(r: Rng, field: np.ndarray, strength: float) -> np.ndarray:
    side = len(field)
    at = np.mgrid[:side, :side].astype(float)
    for axis in at:
        axis += strength * side * (gaussian_filter(r.normal(size=(side, side)), side / r.uniform(5, 20)) * side / 8)
    return map_coordinates(field, at, order=1, mode="reflect")


def stripes(r: Rng, side: int) -> np.ndarray:
    u, v = turned(r, side)
    field = np.sin(np.pi * u * r.uniform(0.5, 2)) + r.choice([0, 1]) * np.sin(np.pi * v)
    return unit(np.tanh(field * np.exp(r.uniform(-1, 2))))


def cells(r: Rng, side: int) -> np.ndarray:
    """Grains: a shade each, dark or bright borders, or the distance to the nearest centre."""
    n = int(np.exp(r.uniform(2, 7)))
    tree = cKDTree(r.uniform(-1.1, 1.1, (n, 2)) * [1, np.exp(r.uniform(-0.7, 0.7))])
    distance, which = tree.query(np.stack(grid(side), -1).reshape(-1, 2), k=2)
    edge = (distance[:, 1] - distance[:, 0]) * np.sqrt(n)
    kind = r.integers(4)
    if kind == 0:
        field = r.random(n)[which[:, 0]]
    elif kind == 1:
        field = np.clip(edge * np.exp(r.uniform(-0.5, 2)), 0, 1)
    elif kind == 2:
        field = r.random(n)[which[:, 0]] * 0.5 + np.clip(edge * 3, 0, 1)
    else:
        field = distance[:, 0]
    return unit(field.reshape(side, side))


def bricks(r: Rng, side: int) -> np.ndarray:
    u, v = turned(r, side)
    v = v * r.uniform(0.3, 1)
    row = np.floor(v)
    u = u / r.uniform(1, 3) + r.choice([0, 0.5, r.random()]) * (row % 2)
    gap = r.uniform(0.02, 0.12)
    inside = ((u % 1) > gap) & ((v % 1) > gap * 1.5)
    shade = np.sin(np.floor(u) * 12.9898 + row * 78.233) * 43758.5453 % 1
    return unit(inside * (0.6 + r.uniform(0, 0.5) * shade) + 0.1 * noise(r, side))


def weave(r: Rng, side: int) -> np.ndarray:
    u, v = turned(r, side)
    over, shift = int(r.integers(1, 4)), int(r.integers(1, 3))
    warp = (np.floor(u) + shift * np.floor(v)) % (over + 1) < 1
    thread = np.where(warp, np.sin(np.pi * (u % 1)), np.sin(np.pi * (v % 1)))
    return unit(thread * np.where(warp, 1, r.uniform(0.5, 1)) + r.uniform(0, 0.3) * noise(r, side))


def holes(r: Rng, side: int) -> np.ndarray:
    u, v = turned(r, side)
    u = u + 0.5 * r.integers(2) * (np.floor(v) % 2)
    d = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return np.clip((d - r.uniform(0.15, 0.4)) * np.exp(r.uniform(1.5, 4)), 0, 1)


def rings(r: Rng, side: int) -> np.ndarray:
    y, x = grid(side)
    d = np.hypot(x - r.normal(), (y - r.normal()) * np.exp(r.uniform(-1, 1)))
    return unit(np.sin(d * np.exp(r.uniform(1.5, 4.5)) + r.uniform(0, 8) * noise(r, side)))


def brushed(r: Rng, side: int) -> np.ndarray:
    lines = gaussian_filter(r.normal(size=(side, side)), (0.4, side * r.uniform(0.02, 0.5)))
    return np.ascontiguousarray(np.rot90(unit(lines), int(r.integers(2))))


def leaves(r: Rng, side: int) -> np.ndarray:
    """Shapes of all sizes over each other (dead leaves)."""
    image = Image.new("L", (side, side), int(r.integers(256)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(np.exp(r.uniform(2, 6)))):
        size = side * min(0.5, 0.02 * r.random() ** -0.7)
        x, y = r.uniform(0, side, 2)
        shape(r, draw, x, y, size, int(r.integers(256)))
    return np.asarray(image) / 255


def shape(r: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, size: float, fill: int) -> None:
    kind = r.integers(3)
    if kind == 0:
        w, h = size * r.uniform(0.3, 1, 2)
        draw.ellipse([x - w, y - h, x + w, y + h], fill=fill)
    else:
        n = 4 if kind == 1 else int(r.integers(3, 9))
        at = np.sort(r.uniform(0, 2 * np.pi, n)) if kind == 2 else np.arange(4) * np.pi / 2 + r.random()
        radius = size * (r.uniform(0.4, 1, n) if kind == 2 else np.ones(n))
        draw.polygon([(x + d * np.cos(a), y + d * np.sin(a)) for a, d in zip(at, radius)], fill=fill)


def board(r: Rng, side: int) -> np.ndarray:
    """Straight traces, pads and letters."""
    image = Image.new("L", (side, side), int(r.integers(256)))
    draw = ImageDraw.Draw(image)
    step = int(r.integers(5, 30))
    for _ in range(int(r.integers(10, 80))):
        x, y = (r.integers(0, side // step + 1, 2) * step).tolist()
        dx, dy = [(1, 0), (0, 1), (1, 1), (1, -1)][r.integers(4)]
        n, fill = int(r.integers(1, 8)) * step, int(r.integers(256))
        kind = r.integers(4)
        if kind < 2:
            draw.line([x, y, x + dx * n, y + dy * n], fill=fill, width=int(r.integers(1, max(2, step // 3))))
        elif kind == 2:
            d = step * 0.3
            draw.ellipse([x - d, y - d, x + d, y + d], fill=fill)
        else:
            letters = "".join(chr(c) for c in r.integers(48, 91, int(r.integers(1, 7))))
            draw.text((x, y), letters, fill=fill, font_size=int(r.integers(8, 40)))
    return np.asarray(image) / 255


def part(r: Rng, side: int) -> np.ndarray:
    """A turned or milled part on a background: nested outlines, bores on a circle, soft shading."""
    big = side * 2
    image = Image.new("L", (big, big), int(r.integers(0, 256)))
    draw = ImageDraw.Draw(image)
    cx, cy = big * r.uniform(0.3, 0.7, 2)
    outer, corners = big * r.uniform(0.2, 0.48), int(r.choice([0, 0, 4, 6]))
    angle = r.uniform(0, 360)
    for scale in np.sort(r.uniform(0.2, 1, int(r.integers(1, 5))))[::-1]:
        fill, d = int(r.integers(40, 256)), outer * scale
        if corners:
            draw.regular_polygon((cx, cy, d), corners, rotation=angle, fill=fill)
        else:
            draw.ellipse([cx - d, cy - d, cx + d, cy + d], fill=fill)
    bores, fill = int(r.integers(0, 9)), int(r.integers(0, 256))
    for i in range(bores):
        a = np.radians(angle) + 2 * np.pi * i / bores
        x, y, d = cx + 0.65 * outer * np.cos(a), cy + 0.65 * outer * np.sin(a), outer * 0.09
        draw.ellipse([x - d, y - d, x + d, y + d], fill=fill)
    small = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)) / 255
    return np.clip(small + r.uniform(0, 0.25) * (noise(r, side) - 0.5), 0, 1)


def strips(r: Rng, side: int) -> np.ndarray:
    """A plate with a few wide bars and many fine lines across, over a cloudy or grainy ground."""
    y, x = grid(side)
    ground = r.choice([noise, cells])(r, side) * r.uniform(0.1, 0.7) + 0.3
    ground *= 1 - r.uniform(0, 0.5) * (x * x + y * y)
    bars = int(r.integers(0, 5))
    for at in np.linspace(-1, 1, bars + 2)[1:-1]:
        ground[np.abs(y - at) < r.uniform(0.01, 0.05)] *= r.uniform(0, 2)
    ground *= 1 - r.uniform(0, 0.3) * (np.sin(np.pi * x * r.uniform(10, 60)) > 0.7)
    return unit(ground if r.random() < 0.5 else ground.T)


def bumps(r: Rng, side: int) -> np.ndarray:
    """A height field lit from one side."""
    height = gaussian_filter(r.choice([noise, cells, leaves, holes])(r, side), r.uniform(0.3, 2))
    gy, gx = np.gradient(height * side * 0.15)
    a = r.uniform(0, 2 * np.pi)
    return np.clip(0.5 + r.uniform(0.1, 0.5) * (gx * np.cos(a) + gy * np.sin(a)), 0, 1)


FIELDS = [noise, stripes, cells, bricks, weave, holes, rings, brushed, leaves, board, part, strips, bumps]


def mixed(r: Rng, side: int) -> np.ndarray:
    """One field, or two through a third."""
    field = r.choice(FIELDS)(r, side)
    if r.random() < 0.35:
        window = np.clip((r.choice([noise, leaves, part])(r, side) - r.uniform(0.3, 0.7)) * 20, 0, 1)
        field = field * (1 - window) + r.choice(FIELDS)(r, side) * window
    if r.random() < 0.4:
        field = field * r.uniform(0.5, 1) + noise(r, side) * r.uniform(0, 0.6)
    if r.random() < 0.3:
        field = bent(r, field, r.uniform(0, 0.04))
    return field


def flawed(r: Rng, light: np.ndarray) -> np.ndarray:
    """Lines, spots, clouds and foreign patches, sharp or soft, brighter or darker than what they lie on."""
    side = len(light)
    image = Image.new("L", (side * 2, side * 2))
    draw = ImageDraw.Draw(image)
    for _ in range(int(r.integers(1, 5))):
        x, y = r.uniform(0, 2 * side, 2)
        if r.random() < 0.5:  # a scratch or a crack
            points, a = [(x, y)], r.uniform(0, 2 * np.pi)
            jitter, step = r.uniform(0, 0.8), side * r.uniform(0.01, 0.1)
            for _ in range(int(r.integers(2, 25))):
                a += r.normal() * jitter
                x, y = x + step * np.cos(a), y + step * np.sin(a)
                points.append((x, y))
            draw.line(points, fill=255, width=int(r.integers(1, 7)))
        else:
            shape(r, draw, x, y, side * np.exp(r.uniform(-4, -1)), 255)
    mask = np.asarray(image.resize((side, side), Image.Resampling.BOX)) / 255
    mask = gaussian_filter(mask, r.choice([0, r.uniform(0, 4)]))[..., None]
    kind = r.integers(3)
    if kind == 0:
        other = np.clip(light + r.uniform(0.15, 0.7) * r.choice([-1, 1]), 0, 1)
    elif kind == 1:
        other = np.roll(light, r.integers(0, side, 2), (0, 1))
    else:
        other = coloured(r, r.choice(FIELDS)(r, side))
    return light * (1 - mask) + other * mask


def coloured(r: Rng, field: np.ndarray) -> np.ndarray:
    """[side, side, 3]: grey for a half, else between two or three colours."""
    if r.random() < 0.5:
        return np.repeat(field[..., None], 3, 2)
    grey = r.random(3)
    stops = np.clip(grey[:, None] + r.normal(size=(3, 3)) * r.choice([0.08, 0.3]), 0, 1)
    return np.stack([np.interp(field, [0, 0.5, 1], stops[:, c]) for c in range(3)], -1)


def finished(r: Rng, light: np.ndarray) -> np.ndarray:
    """Contrast, uneven light, focus and sensor noise; bytes."""
    side = len(light)
    low, span = r.uniform(0, 0.6), r.uniform(0.15, 1)
    light = low + light * min(span, 1.05 - low)
    if r.random() < 0.4:
        y, x = grid(side)
        light = light * np.clip(1 + 0.4 * (r.normal() * x + r.normal() * y), 0.2, 2)[..., None]
    if r.random() < 0.3:
        light = gaussian_filter(light, (sigma := r.uniform(0.3, 2.5), sigma, 0))
    if r.random() < 0.5:
        light = light + r.uniform(0, 0.08) * r.normal(size=(side, side, 1))
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)


def cut(r: Rng, photo: Image.Image, side: int) -> np.ndarray:
    """A turned, mirrored cut-out of a photograph at some scale, in its colours or grey, [side, side, 3] in 0..1."""
    edge = min(photo.size)
    size = edge * np.exp(r.uniform(np.log(min(0.9, side / edge * 0.7)), np.log(0.95)))
    cx, cy = (r.uniform(size / 2, n - size / 2) for n in photo.size)
    a = r.choice([0, np.pi / 2, np.pi, r.uniform(0, 2 * np.pi)])
    c, s = size / side * np.cos(a), size / side * np.sin(a)
    h = side / 2
    mirror = r.choice([-1, 1])
    matrix = (c * mirror, -s, cx - c * mirror * h + s * h, s * mirror, c, cy - s * mirror * h - c * h)
    small = photo.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    light = np.asarray(small, dtype=np.float64) / 255
    return light if r.random() < 0.5 else np.repeat(light.mean(2, keepdims=True), 3, 2)


def picture(seed: tuple[int, ...], side: int, photos: list[Image.Image]) -> np.ndarray:
    """The image of this seed: bytes [side, side, 3]; three in ten are cut from `photos`."""
    r = np.random.default_rng(seed)
    if photos and r.random() < 0.3:
        light = cut(r, photos[r.integers(len(photos))], side)
    else:
        light = coloured(r, mixed(r, side))
    if r.random() < 0.5:
        light = flawed(r, light)
    return finished(r, light)
