"""Blind twins of pairs: the same two captions with other images of the set.

A model that has learned which captions sound false is right with any image. *Blind accuracy* is how
often the true caption wins with an image that it was not written for; *sighted accuracy* is
accuracy - blind accuracy + 1/2: one half if the image adds nothing, 1 if the image decides all and
the captions nothing.

An image that the true caption is also known to be true of is no twin. Nothing is encoded for them.

P pairs, R draws of another image for each. NumPy only, no torch.
"""

import numpy as np

BLIND, SIGHTED = "blind_accuracy", "sighted_accuracy"

DRAWS = 5
"""Other images for each pair: the blind accuracy of a pair is a mean over them."""

TRIES = 20
"""Draws of another image until it is one that the caption is not known to be true of."""

NONE = -1
"""Stands for an image where there is none."""


def other_images(
    image_P: np.ndarray, caption_P: np.ndarray, true_2T: np.ndarray, images: int, seed: int
) -> np.ndarray:
    """Images for the twins of each pair, drawn uniformly among the others of the set.

    Args:
        image_P: Row of each pair's image.
        caption_P: Number of its true caption.
        true_2T: All T (image, caption) that are known to be true, as two rows.
        images: Number of images.
        seed: Seed of the draws.

    Returns:
        Rows of images, int64 [R, P]; NONE where no image was found.
    """
    if images < 2:
        return np.full((DRAWS, len(image_P)), NONE)
    captions = 1 + max(caption_P.max(initial=0), true_2T[1].max(initial=0))
    known = np.unique(true_2T[0] * captions + true_2T[1])
    rng = np.random.default_rng(seed)
    image_RP, caption_RP = (np.tile(part, (DRAWS, 1)) for part in (image_P, caption_P))
    found_RP = (image_RP + rng.integers(1, images, image_RP.shape)) % images
    for _ in range(TRIES):
        is_true_RP = np.isin(found_RP * captions + caption_RP, known)
        if not is_true_RP.any():
            return found_RP
        again = rng.integers(1, images, int(is_true_RP.sum()))
        found_RP[is_true_RP] = (image_RP[is_true_RP] + again) % images
    found_RP[np.isin(found_RP * captions + caption_RP, known)] = NONE
    return found_RP


def mean_of_twins(right_RP: np.ndarray, image_RP: np.ndarray) -> np.ndarray:
    """Blind accuracy of each pair, float [P]; not a number without a twin.

    Args:
        right_RP: Whether the true caption wins.
        image_RP: Result of ``other_images``.
    """
    is_twin_RP = image_RP != NONE
    count_P = is_twin_RP.sum(axis=0)
    sum_P = (right_RP & is_twin_RP).sum(axis=0)
    return np.where(count_P > 0, sum_P / np.maximum(count_P, 1), np.nan)


def columns(right_P: np.ndarray, blind_P: np.ndarray) -> dict[str, np.ndarray]:
    """Both accuracies of pairs that have a twin, by metric."""
    return {BLIND: blind_P, SIGHTED: right_P - blind_P + 0.5}
