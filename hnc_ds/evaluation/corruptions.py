"""Pictures made worse in ten ways and five severities, as ImageNet-C makes them.

NumPy and Pillow alone. What is drawn at random follows from seed, picture, corruption and severity,
so neither order nor workers change it. Lengths in pixels are those of pictures of 224 on a side,
and grow with larger ones.

R pixels on a side; x is float64 [R, R, 3] in [0, 1].

Source: Hendrycks and Dietterich 2019; parameters of https://github.com/hendrycks/robustness,
ImageNet-C/imagenet_c/imagenet_c/corruptions.py. Motion blur there is ImageMagick's; here it is the
sum of moved pictures that it stands for.
"""

import hashlib
import io
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image

SEVERITIES = (1, 2, 3, 4, 5)
USUAL_SIDE = 224

T = TypeVar("T")
Draw = np.random.Generator


def corrupt(
    image_RR3: np.ndarray, corruption: str, severity: int, seed: int, name: str
) -> np.ndarray:
    """A picture as the model views it, made worse.

    Args:
        image_RR3: uint8.
        corruption: A name of CORRUPTIONS.
        severity: 1 to 5.
        seed: Of the whole evaluation.
        name: Of the picture, in its set.

    Returns:
        uint8 [R, R, 3].
    """
    told = f"{seed} {corruption} {severity} {name}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(told).digest()[:16], "big"))
    found = CORRUPTIONS[corruption](image_RR3 / 255, severity, rng)
    return np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Normal noise on every value."""
    return x + rng.normal(scale=_of(severity, 0.08, 0.12, 0.18, 0.26, 0.38), size=x.shape)


def shot_noise(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """As if so few photons had been counted."""
    photons = _of(severity, 60, 25, 12, 5, 3)
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Values that are black or white instead."""
    hit = rng.random(x.shape) < _of(severity, 0.03, 0.06, 0.09, 0.17, 0.27)
    return np.where(hit, rng.random(x.shape) < 0.5, x)


def defocus_blur(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Every point a disk, its edge a little softened; where the softening is cut off at the edge
    of the kernel, its sum is not quite 1, as in the source."""
    radius, softness = _of(severity, (3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    length = _scaled(radius, x)
    reach = max(_scaled(8, x), length)
    axis = np.arange(-reach, reach + 1)
    disk = (axis[:, None] ** 2 + axis**2 <= length**2).astype(float)
    disk /= disk.sum()
    taps = 1 if radius <= 8 else 2
    soft = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * softness**2))
    soft /= soft.sum()
    return _convolved(x, _filtered_once(_filtered_once(disk, soft, 0), soft, 1))


def motion_blur(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Moved along a line of a random angle from -45 to 45 degrees, less and less seen."""
    radius, sigma = _of(severity, (10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    steps = np.arange(2 * _scaled(radius, x) + 1)
    weight = np.exp(-(steps**2) / (2 * (sigma * len(x) / USUAL_SIDE) ** 2))
    angle = np.deg2rad(rng.uniform(-45, 45))
    down = -np.ceil(steps * np.sin(angle) - 0.5).astype(int)
    right = -np.ceil(steps * np.cos(angle) - 0.5).astype(int)
    places = np.arange(len(x))
    moved = [
        share * x[np.clip(places - dy, 0, len(x) - 1)][:, np.clip(places - dx, 0, len(x) - 1)]
        for share, dy, dx in zip(weight / weight.sum(), down, right, strict=True)
    ]
    return np.sum(moved, axis=0)


def fog(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """A cloud over the picture."""
    thickness, decay = _of(severity, (1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
    brightest = x.max()
    cloud = plasma(len(x), decay, rng)[..., None]
    return (x + thickness * cloud) * brightest / (brightest + thickness)


def brightness(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """More of HSV's value, hue and saturation as they were."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.clip(value + _of(severity, 0.1, 0.2, 0.3, 0.4, 0.5), 0, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def contrast(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Closer to the mean colour."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * _of(severity, 0.4, 0.3, 0.2, 0.1, 0.05) + mean


def pixelate(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """In large pixels."""
    side = len(x)
    small = max(1, int(side * _of(severity, 0.6, 0.5, 0.4, 0.3, 0.25)))
    picture = _picture(x).resize((small, small), Image.Resampling.BOX)
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX)) / 255


def jpeg_compression(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Written as a JPEG of low quality."""
    written = io.BytesIO()
    _picture(x).save(written, "JPEG", quality=_of(severity, 25, 18, 15, 10, 7))
    with Image.open(written) as picture:
        return np.asarray(picture.convert("RGB")) / 255


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, Draw], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "motion_blur": motion_blur,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
"""In the order of tables."""


def plasma(side: int, decay: float, rng: Draw) -> np.ndarray:
    """A cloud [side, side] in [0, 1]: heights of the diamond-square algorithm.

    Args:
        side: Pixels.
        decay: By which the noise shrinks from one scale to the next.
        rng: Of the noise.
    """
    size = 1 << max(1, (side - 1).bit_length())
    heights, step, noise = np.zeros((size, size)), size, 100.0
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        rows = corners + np.roll(corners, -1, axis=0)
        centres = (rows + np.roll(rows, -1, axis=1)) / 4
        heights[half::step, half::step] = centres + _jitter(centres.shape, noise, rng)
        middles = heights[half::step, half::step]
        across = (middles + np.roll(middles, 1, axis=0)) + (corners + np.roll(corners, -1, axis=1))
        heights[::step, half::step] = across / 4 + _jitter(across.shape, noise, rng)
        along = (middles + np.roll(middles, 1, axis=1)) + (corners + np.roll(corners, -1, axis=0))
        heights[half::step, ::step] = along / 4 + _jitter(along.shape, noise, rng)
        step, noise = half, noise / decay
    heights -= heights.min()
    return heights[:side, :side] / heights.max()


def _jitter(shape: tuple[int, ...], noise: float, rng: Draw) -> np.ndarray:
    return noise * rng.uniform(-noise, noise, shape)


def _of(severity: int, *values: T) -> T:
    return values[severity - 1]


def _scaled(pixels: int, x: np.ndarray) -> int:
    return max(1, round(pixels * len(x) / USUAL_SIDE))


def _picture(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def _filtered_once(plane: np.ndarray, taps: np.ndarray, axis: int) -> np.ndarray:
    """A plane filtered along one axis, mirrored at its edges."""
    reach = len(taps) // 2
    width = [(reach, reach) if a == axis else (0, 0) for a in range(plane.ndim)]
    padded = np.pad(plane, width, mode="reflect")
    length = plane.shape[axis]
    return np.sum(
        [tap * np.take(padded, range(n, n + length), axis) for n, tap in enumerate(taps)], axis=0
    )


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A picture filtered by a symmetric square kernel, mirrored at its edges."""
    reach = len(kernel) // 2
    edge = min(reach, len(x) - 1)
    padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)), mode="reflect")
    padded = np.pad(padded, ((reach - edge,) * 2, (reach - edge,) * 2, (0, 0)), mode="edge")
    shape = [side + len(kernel) - 1 for side in padded.shape[:2]]
    spectrum = np.fft.rfft2(padded, shape, axes=(0, 1))
    spectrum *= np.fft.rfft2(kernel, shape)[..., None]
    whole = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    first = 2 * reach
    found: np.ndarray = whole[first : first + len(x), first : first + len(x)]
    return found
