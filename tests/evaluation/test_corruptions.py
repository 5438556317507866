"""Corrupted images: repeatable, by published amounts, and what each corruption is."""

import numpy as np
import pytest

from hnc_ds.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt, plasma

SIDE = 64
RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Smooth, with an edge; no value at either end."""
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    red, green = 60 + 2 * across, 60 + 2 * down
    blue = np.where(across > SIDE // 2, 170, 80)
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_follows_from_its_names_and_grows_with_severity(
    name: str, image: np.ndarray
) -> None:
    before = image.copy()
    found = [corrupt(image, name, severity, 3, "a/1.jpg") for severity in SEVERITIES]
    again = corrupt(image, name, 5, 3, "a/1.jpg")
    assert np.array_equal(image, before)
    assert all(one.dtype == np.uint8 and one.shape == image.shape for one in found)
    assert np.array_equal(found[4], again)
    changed = [np.abs(one.astype(float) - image).mean() for one in found]
    assert changed[0] > 0
    assert changed[4] > changed[0] or name == "fog"  # whose cloud is another each time
    other = corrupt(image, name, 5, 3, "a/2.jpg")
    assert np.array_equal(other, again) is (name not in RANDOM)
    seed = corrupt(image, name, 5, 4, "a/1.jpg")
    assert np.array_equal(seed, again) is (name not in RANDOM)


def grey(value: int, side: int = 256) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_noise_has_the_published_amounts() -> None:
    gaussian = corrupt(grey(128), "gaussian_noise", 1, 0, "x") / 255
    assert gaussian.std() == pytest.approx(0.08, rel=0.02)
    assert gaussian.mean() == pytest.approx(128 / 255, abs=0.002)
    shot = corrupt(grey(102), "shot_noise", 3, 0, "x") / 255  # 0.4, of 12 photons
    assert shot.std() == pytest.approx(np.sqrt(0.4 / 12), rel=0.05)
    impulse = corrupt(grey(128), "impulse_noise", 5, 0, "x")
    assert (impulse == 0).mean() == pytest.approx(0.27 / 2, rel=0.05)
    assert (impulse == 255).mean() == pytest.approx(0.27 / 2, rel=0.05)


def test_contrast_and_brightness_are_their_formulas(image: np.ndarray) -> None:
    x = image / 255
    mean = x.mean(axis=(0, 1))
    expected = np.rint((0.2 * (x - mean) + mean) * 255)
    assert np.array_equal(corrupt(image, "contrast", 3, 0, "x"), expected)
    colour = np.full((8, 8, 3), (51, 102, 153), np.uint8)  # HSV value 0.6
    brighter = corrupt(colour, "brightness", 2, 0, "x")[0, 0]
    assert brighter.tolist() == [68, 136, 204]  # value 0.8, hue and saturation as before
    assert corrupt(grey(0, 8), "brightness", 2, 0, "x")[0, 0].tolist() == [51, 51, 51]


def test_pixels_become_blocks_of_their_mean() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    found = corrupt(np.repeat(checks[..., None], 3, 2).astype(np.uint8), "pixelate", 5, 0, "x")
    assert set(np.unique(found)) <= {127, 128}


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur"])
@pytest.mark.parametrize("severity", [1, 5])
def test_a_blur_keeps_a_plane_nearly_and_spreads_a_point(name: str, severity: int) -> None:
    plane = corrupt(grey(200, 224), name, severity, 0, "x").astype(float)
    assert np.abs(plane - 200).max() <= 12  # a softened disk that is cut off sums to almost 1
    point = np.zeros((224, 224, 3), np.uint8)
    point[112, 112] = 255
    spread = np.count_nonzero(corrupt(point, name, severity, 0, "x")[..., 0])
    assert spread > 5


def test_a_disk_has_the_radius_of_its_severity() -> None:
    point = np.zeros((224, 224, 3), np.uint8)
    point[112, 112] = 255
    for severity, radius in ((1, 3), (3, 6)):
        seen = corrupt(point, "defocus_blur", severity, 0, "x")[..., 0]
        rows = np.flatnonzero(seen.sum(axis=1))
        assert abs((rows[-1] - rows[0]) / 2 - radius) <= 1


def test_fog_lies_over_all_of_the_image_and_keeps_its_brightest_value() -> None:
    found = corrupt(grey(255, 64), "fog", 5, 0, "x")
    assert found.max() == 255
    assert found.std() > 5


@pytest.mark.parametrize("side", [1, 2, 31, 224, 257])
def test_a_cloud_has_any_side_and_reaches_from_0_to_1(side: int) -> None:
    cloud = plasma(side, 2.0, np.random.default_rng(0))
    assert cloud.shape == (side, side)
    assert cloud.min() >= 0
    assert cloud.max() <= 1
