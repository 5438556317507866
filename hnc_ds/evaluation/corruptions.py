"""Ten corruptions of ImageNet-C in five severities, with NumPy and Pillow only, and scores on them.

Random draws depend on seed, image, corruption and severity, not on order or workers. Lengths are in
pixels of images of 224 on a side, and scale with the size. mPC is the mean score over conditions,
rPC is mPC divided by the score on clean images.

R pixels on a side; x is float64 [R, R, 3] in [0, 1].

Source: Hendrycks and Dietterich 2019; parameters of https://github.com/hendrycks/robustness,
ImageNet-C/imagenet_c/imagenet_c/corruptions.py. Motion blur there is ImageMagick's; here it is a
weighted sum of shifted images. mPC and rPC are those of Michaelis et al. 2019.
"""

import hashlib
import io
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.released.rules import Outcome, Question, first_images
from hnc_ds.evaluation.statistics import Interval, bootstrap_mean, bootstrap_ratio

SEVERITIES = (1, 2, 3, 4, 5)
USUAL_SIDE = 224

T = TypeVar("T")
Draw = np.random.Generator


def corrupt(
    image_RR3: np.ndarray, corruption: str, severity: int, seed: int, name: str
) -> np.ndarray:
    """Corrupt an image after resizing and cropping.

    Args:
        image_RR3: uint8.
        corruption: A name of CORRUPTIONS.
        severity: 1 to 5.
        seed: Seed of the evaluation.
        name: Unique name of the image in its set.

    Returns:
        uint8 [R, R, 3].
    """
    key = f"{seed} {corruption} {severity} {name}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16], "big"))
    x = CORRUPTIONS[corruption](image_RR3 / 255, severity, rng)
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Add normal noise to every value."""
    return x + rng.normal(scale=_of(severity, 0.08, 0.12, 0.18, 0.26, 0.38), size=x.shape)


def shot_noise(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Poisson noise of few photons."""
    photons = _of(severity, 60, 25, 12, 5, 3)
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Replace values by 0 or 1."""
    hit = rng.random(x.shape) < _of(severity, 0.03, 0.06, 0.09, 0.17, 0.27)
    return np.where(hit, rng.random(x.shape) < 0.5, x)


def defocus_blur(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Convolve with a disk whose edge is softened; its sum is not exactly 1, as in the source."""
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
    """Sum images shifted along a line at a random angle from -45 to 45 degrees, with decaying
    weights."""
    radius, sigma = _of(severity, (10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    steps = np.arange(2 * _scaled(radius, x) + 1)
    weight = np.exp(-(steps**2) / (2 * (sigma * len(x) / USUAL_SIDE) ** 2))
    angle = np.deg2rad(rng.uniform(-45, 45))
    down = -np.ceil(steps * np.sin(angle) - 0.5).astype(int)
    right = -np.ceil(steps * np.cos(angle) - 0.5).astype(int)
    places = np.arange(len(x))
    shifted = [
        weight_of_shift
        * x[np.clip(places - dy, 0, len(x) - 1)][:, np.clip(places - dx, 0, len(x) - 1)]
        for weight_of_shift, dy, dx in zip(weight / weight.sum(), down, right, strict=True)
    ]
    return np.sum(shifted, axis=0)


def fog(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Add a plasma cloud."""
    thickness, decay = _of(severity, (1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
    brightest = x.max()
    cloud = plasma(len(x), decay, rng)[..., None]
    return (x + thickness * cloud) * brightest / (brightest + thickness)


def brightness(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Increase the value of HSV."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.clip(value + _of(severity, 0.1, 0.2, 0.3, 0.4, 0.5), 0, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def contrast(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Move values toward the mean colour."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * _of(severity, 0.4, 0.3, 0.2, 0.1, 0.05) + mean


def pixelate(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Reduce and enlarge with a box filter."""
    side = len(x)
    small = max(1, int(side * _of(severity, 0.6, 0.5, 0.4, 0.3, 0.25)))
    image = _image(x).resize((small, small), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX)) / 255


def jpeg_compression(x: np.ndarray, severity: int, rng: Draw) -> np.ndarray:
    """Save as a JPEG of low quality."""
    file = io.BytesIO()
    _image(x).save(file, "JPEG", quality=_of(severity, 25, 18, 15, 10, 7))
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")) / 255


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
"""By name, in the order of tables."""


def plasma(side: int, decay: float, rng: Draw) -> np.ndarray:
    """A cloud [side, side] in [0, 1] from the diamond-square algorithm.

    Args:
        side: Pixels.
        decay: Factor by which noise decreases from one scale to the next.
        rng: Source of the noise.
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


def _image(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def _filtered_once(plane: np.ndarray, taps: np.ndarray, axis: int) -> np.ndarray:
    """Filter a plane along one axis, mirrored at the edges."""
    reach = len(taps) // 2
    width = [(reach, reach) if a == axis else (0, 0) for a in range(plane.ndim)]
    padded = np.pad(plane, width, mode="reflect")
    length = plane.shape[axis]
    return np.sum(
        [tap * np.take(padded, range(n, n + length), axis) for n, tap in enumerate(taps)], axis=0
    )


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter an image with a symmetric square kernel, mirrored at the edges."""
    reach = len(kernel) // 2
    edge = min(reach, len(x) - 1)
    padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)), mode="reflect")
    padded = np.pad(padded, ((reach - edge,) * 2, (reach - edge,) * 2, (0, 0)), mode="edge")
    shape = [side + len(kernel) - 1 for side in padded.shape[:2]]
    spectrum = np.fft.rfft2(padded, shape, axes=(0, 1))
    spectrum *= np.fft.rfft2(kernel, shape)[..., None]
    whole = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    first = 2 * reach
    filtered: np.ndarray = whole[first : first + len(x), first : first + len(x)]
    return filtered


Condition = tuple[str, int]
"""Corruption and severity."""

ALL = "all"
MEAN_SCORE, RELATIVE_SCORE = "mPC", "rPC"

K = TypeVar("K", bound=Hashable)
"""Key of a metric."""


class Judged(NamedTuple):
    """Correctness of Q queries by one metric."""

    right_Q: np.ndarray
    """bool, or weighted: float with the score as its mean."""
    cluster_Q: np.ndarray
    """Labels; queries of one label are drawn together."""


def read_conditions(given: Sequence[str]) -> list[Condition]:
    """``all``, ``fog`` for its five severities, ``fog:3`` for one; distinct, in the order of the
    table.

    Raises:
        UserError: A corruption or severity does not exist.
    """
    wanted: set[Condition] = set()
    for part in given:
        name, colon, severity = part.partition(":")
        names = list(CORRUPTIONS) if name == ALL else [name]
        if names[0] not in CORRUPTIONS:
            raise UserError(
                f"corruptions: there is no '{name}'{did_you_mean(name, CORRUPTIONS)}; there are "
                f"{', '.join(CORRUPTIONS)}, and {ALL}"
            )
        if colon and severity not in map(str, SEVERITIES):
            raise UserError(f"corruptions: '{part}': severities are 1 to 5, as in fog:3")
        severities = (int(severity),) if colon else SEVERITIES
        wanted.update((each, number) for each in names for number in severities)
    every = [(name, number) for name in CORRUPTIONS for number in SEVERITIES]
    return [condition for condition in every if condition in wanted]


def condition_of(group: str) -> Condition | None:
    """Condition of a row by its group; None for other rows."""
    name, _, severity = group.rpartition(" ")
    known = name in CORRUPTIONS and severity in map(str, SEVERITIES)
    return (name, int(severity)) if known else None


def is_of_conditions(group: str) -> bool:
    """Whether a row is of corrupted images: of one condition, or of all."""
    return group in (MEAN_SCORE, RELATIVE_SCORE) or condition_of(group) is not None


def robustness(
    clean: Mapping[K, Judged],
    conditions: Sequence[Condition],
    judge_corrupted: Callable[[Condition], Mapping[K, Judged]],
    seed: int,
) -> Iterator[tuple[K, str, Interval]]:
    """(metric, group, value) of each condition and of all together, for every metric.

    Args:
        clean: Correctness on clean images, by metric.
        conditions: At least one.
        judge_corrupted: Correctness of the same queries under a condition.
        seed: Seed of the bootstrap over the clusters of the clean images.
    """
    total = {metric: np.zeros(len(judged.right_Q)) for metric, judged in clean.items()}
    for name, severity in conditions:
        for metric, judged in judge_corrupted((name, severity)).items():
            total[metric] += judged.right_Q
            yield metric, f"{name} {severity}", bootstrap_mean(*judged, seed=seed)
    for metric, (right_Q, cluster_Q) in clean.items():
        mean_Q = total[metric] / len(conditions)
        yield metric, MEAN_SCORE, bootstrap_mean(mean_Q, cluster_Q, seed=seed)
        if np.any(right_Q):
            yield metric, RELATIVE_SCORE, bootstrap_ratio(mean_Q, right_Q, cluster_Q, seed=seed)


def judged_outcomes(
    questions: Sequence[Question], outcomes: Sequence[Outcome]
) -> dict[str, Judged]:
    """Outcomes of questions by metric, clustered by image."""
    image_N = first_images(questions)
    return {
        metric: Judged(np.array([outcome.right[metric] for outcome in outcomes]), image_N)
        for metric in outcomes[0].right
    }
