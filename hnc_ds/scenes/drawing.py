"""Paint a composed scene and encode it, like a camera that is not quite perfect.

Background, hue, light, noise and JPEG quality differ from picture to picture, so that no two
red circles share their pixels. Nothing here changes what is where.
"""

import colorsys
import io
import math

import numpy as np
from PIL import Image, ImageFilter

from hnc_ds.scenes.layout import Scene, Thing
from hnc_ds.scenes.palette import COLOURS
from hnc_ds.scenes.shapes import PAD

RIM = 0.035
"""Width of the darker rim, in box sides."""

SHADOW = 0.3
"""Darkness of the soft shadow under each thing."""


def jpeg(scene: Scene, rng: np.random.Generator) -> bytes:
    """Paint a scene and encode it as JPEG; quality and chroma subsampling are drawn too."""
    quality = int(rng.integers(78, 97))
    subsampling = int(rng.choice([0, 2]))  # Pillow's codes for 4:4:4 and 4:2:0
    buffer = io.BytesIO()
    Image.fromarray(paint(scene, rng)).save(
        buffer, "JPEG", quality=quality, subsampling=subsampling
    )
    return buffer.getvalue()


def paint(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The picture as sRGB, uint8 [size, size, 3]."""
    canvas = _background(scene.size, rng)
    for thing in scene.things:
        _put(canvas, thing, rng)
    canvas *= rng.uniform(0.93, 1.05) * rng.uniform(0.98, 1.02, 3).astype(np.float32)
    sigma = np.float32(rng.uniform(1.0, 5.0))
    canvas += sigma * rng.standard_normal(canvas.shape, dtype=np.float32)
    return canvas.clip(0, 255).astype(np.uint8)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A soft gradient with a faint texture: of middle brightness and pale, so that it hides
    neither white nor black nor any colour. Float32 [size, size, 3]."""
    hue, value = rng.uniform(), rng.uniform(0.58, 0.8)
    corners = [
        colorsys.hsv_to_rgb(
            (hue + rng.uniform(-0.12, 0.12)) % 1,
            rng.uniform(0.04, 0.26),
            float(np.clip(value + rng.uniform(-0.1, 0.1), 0.5, 0.82)),
        )
        for _ in range(4)
    ]
    pixels = (np.array(corners).reshape(2, 2, 3) * 255).round().astype(np.uint8)
    canvas = np.stack(
        [_enlarged(pixels[..., channel].astype(np.float32), size) for channel in range(3)], axis=-1
    )
    return canvas + _texture(size, rng)[..., None]


def _enlarged(grid: np.ndarray, size: int) -> np.ndarray:
    """A small grid of numbers as a smooth float32 [size, size]."""
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Faint brightness changes: cloudy, grainy or woven. Float32 [size, size]."""
    kind = rng.integers(3)
    strength = np.float32(rng.uniform(2, 7))
    if kind < 2:
        cells = int(rng.integers(3, 9)) if kind == 0 else size // 3
        clouds = _enlarged(rng.standard_normal((cells, cells), dtype=np.float32), size)
        return strength * clouds
    angle, period = rng.uniform(0, math.pi), rng.uniform(0.04, 0.12)
    across, along = _grid(size, size, angle)
    waves = np.sin(across * (2 * math.pi / (period * size)))
    waves += np.sin(along * (2 * math.pi / (period * size)))
    return strength * np.float32(0.7) * waves


def _grid(w: int, h: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of each pixel along and across a direction, float32 [h, w] each."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _put(canvas: np.ndarray, thing: Thing, rng: np.random.Generator) -> None:
    """Paint one thing and its soft shadow onto the canvas."""
    mask = thing.sprite.mask
    left, top = thing.box.x - PAD, thing.box.y - PAD
    drop = max(1, round(0.045 * max(thing.box.w, thing.box.h)))
    roomy = Image.new("L", (mask.width + 4 * drop, mask.height + 4 * drop))
    roomy.paste(mask, (2 * drop, 2 * drop))
    shade = np.asarray(roomy.filter(ImageFilter.BoxBlur(drop)), dtype=np.float32) / 255 * SHADOW
    _blend(canvas, np.zeros(3, np.float32), shade, left - drop, top - drop)
    cover = np.asarray(mask, dtype=np.float32) / 255
    _blend(canvas, _surface(thing, rng), cover, left, top)


def _blend(canvas: np.ndarray, colour: np.ndarray, alpha: np.ndarray, left: int, top: int) -> None:
    """Mix colour ([3] or [h, w, 3]) into the canvas by alpha [h, w], cut at the canvas' edges."""
    size, (h, w) = len(canvas), alpha.shape
    rows = slice(max(0, -top), min(h, size - top))
    columns = slice(max(0, -left), min(w, size - left))
    if colour.ndim == 3:
        colour = colour[rows, columns]
    spot = canvas[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    spot += (colour - spot) * alpha[rows, columns, None]


def _surface(thing: Thing, rng: np.random.Generator) -> np.ndarray:
    """The colours of a thing's padded box, float32 [h, w, 3]: pattern, light and rim."""
    mask = thing.sprite.mask
    colour = _varied(COLOURS[thing.kind.colour], rng)
    luminance = float(colour @ np.array([0.299, 0.587, 0.114], np.float32))
    surface = np.broadcast_to(colour, (mask.height, mask.width, 3))
    if thing.kind.pattern:
        ink = _ink(colour, luminance)
        marks = PAINTED[thing.kind.pattern](mask.width, mask.height, rng)
        surface = surface + (ink - colour) * marks[..., None]
    across, _ = _grid(mask.width, mask.height, math.pi / 4)  # light falls from the upper left
    light = 1.05 - 0.13 * across / max(1.0, float(across.max()))
    radius = max(1.0, RIM * max(thing.box.w, thing.box.h))
    blurred = np.asarray(mask.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) / 255
    rim = np.clip((0.95 - blurred) / 0.4, 0, 1)[..., None]
    edge = _mixed(colour, 255 if luminance < 60 else 0, 0.36)
    return (surface + (edge - surface) * rim) * light[..., None]


def _ink(colour: np.ndarray, luminance: float) -> np.ndarray:
    """What marks are painted in: a paler tone of dark colours, a darker one of light colours."""
    if luminance < 150:
        return _mixed(colour, 255, 0.6)
    # Marks on white must not look like holes that show the background.
    return _mixed(colour, 0, 0.6 if luminance > 225 else 0.42)


def _varied(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A colour with slightly other hue, saturation and value, float32 [3]."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    hue = (hue + rng.uniform(-0.012, 0.012)) % 1
    saturation = min(1.0, saturation * rng.uniform(0.9, 1.05))
    value = min(1.0, value * rng.uniform(0.93, 1.05))
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32) * 255


def _mixed(colour: np.ndarray, grey: int, share: float) -> np.ndarray:
    return colour + (grey - colour) * np.float32(share)


def _stripes(w: int, h: int, rng: np.random.Generator) -> np.ndarray:
    """1 on stripes, 0 between, soft edges: float32 [h, w]."""
    period = rng.uniform(0.3, 0.36) * max(w, h)
    across, _ = _grid(w, h, rng.uniform(0, math.pi))
    wave = np.sin(across * (2 * math.pi / period) + rng.uniform(0, 2 * math.pi))
    return np.clip(0.5 + (wave - 0.2) * (period / 6), 0, 1)


def _dots(w: int, h: int, rng: np.random.Generator) -> np.ndarray:
    """1 on dots, 0 between, soft edges: float32 [h, w]."""
    period = rng.uniform(0.3, 0.36) * max(w, h)
    start_x, start_y = rng.uniform(0, 1, 2)
    across, along = _grid(w, h, rng.uniform(0, math.pi / 2))
    u = (across / period + start_x) % 1 - 0.5
    v = (along / period + start_y) % 1 - 0.5
    return np.clip(0.5 + (0.29 - np.hypot(u, v)) * period, 0, 1)


PAINTED = {"striped": _stripes, "dotted": _dots}
"""Pattern -> (width, height, generator) -> where its marks are."""
