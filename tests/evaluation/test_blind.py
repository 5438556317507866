"""Blind twins: which images they have, and what a model that does not look scores on them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hnc_ds.evaluation import blind
from hnc_ds.evaluation.blind import BLIND, NONE, SIGHTED, mean_of_twins, other_images
from hnc_ds.evaluation.held_out import HardNegatives
from hnc_ds.evaluation.paired import change_of, shared_items
from hnc_ds.evaluation.results import ItemsHeader, Measurement, key_of
from hnc_ds.evaluation.similarity import Cosines, ScoredSet
from hnc_ds.records import CaptionGroup, Negative, TrainingSample

IMAGES = 60


def test_a_twin_has_another_image_that_its_caption_is_not_known_to_be_true_of() -> None:
    """Caption 0 is true of images 0 to 3, the others of their own image alone."""
    image_P = np.arange(40) % 8
    caption_P = np.where(image_P < 4, 0, image_P)
    true_2T = np.unique(np.stack([image_P, caption_P]), axis=1)
    found_RP = other_images(image_P, caption_P, true_2T, 8, seed=0)
    assert found_RP.shape == (blind.DRAWS, 40)
    assert (found_RP[:, image_P < 4] >= 4).all()
    assert (found_RP != image_P).all()
    assert {*found_RP[:, image_P >= 4].flat} == {*range(8)}
    assert np.array_equal(found_RP, other_images(image_P, caption_P, true_2T, 8, seed=0))
    assert not np.array_equal(found_RP, other_images(image_P, caption_P, true_2T, 8, seed=1))


@pytest.mark.parametrize("images", [1, 2])
def test_without_another_image_there_is_no_twin(images: int) -> None:
    image_P = np.zeros(3, dtype=np.int64)
    true_2T = np.array([[0, 1], [0, 0]])  # the caption is true of both images
    found_RP = other_images(image_P, image_P, true_2T, images, seed=0)
    assert (found_RP == NONE).all()
    assert np.isnan(mean_of_twins(np.ones_like(found_RP, dtype=bool), found_RP)).all()


def samples() -> list[TrainingSample]:
    """Two pairs for each image."""
    return [
        TrainingSample(
            f"{n}",
            48,
            48,
            tuple(
                CaptionGroup(f"{n} {k}", "relation", (Negative(f"not {n} {k}", kind),))
                for k, kind in enumerate(("swap", "attribute"))
            ),
        )
        for n in range(IMAGES)
    ]


def measured(sees: float, knows: float, seed: int = 0) -> Measurement:
    """Scores of a model of which some captions' embeddings agree with their image (``sees``), and
    which prefers true captions with any image (``knows``)."""
    captions: dict[str, int] = {}
    measure = HardNegatives(samples(), captions)
    draw = torch.Generator().manual_seed(seed)
    image_ND = torch.randn(IMAGES, 64, generator=draw)
    image_ND[:, 0] = 1
    text_TD = torch.randn(len(captions), 64, generator=draw)
    for caption, row in captions.items():
        number = int(caption.split()[-2])
        sign = -1 if caption.startswith("not") else 1
        text_TD[row] += sign * sees * image_ND[number]
        text_TD[row, 0] = 1000 * sign * knows
    images = [(n, f"{n}") for n in range(IMAGES)]
    scored = ScoredSet(images, list(captions), Cosines(image_ND, text_TD))
    rows, items = measure.score(scored, "model", seed=0)
    header = ItemsHeader(model="model", fingerprint="same")
    return Measurement({key_of(row): row for row in rows}, Path(), header, list(items))


@pytest.mark.parametrize(
    ("sees", "knows", "accuracy", "blind_accuracy"),
    [(0.0, 0.0, 0.5, 0.5), (9.0, 0.0, 1.0, 0.5), (0.0, 1.0, 1.0, 1.0)],
    ids=["guesses", "looks", "knows captions"],
)
def test_what_captions_alone_give_away_is_not_sight(
    sees: float, knows: float, accuracy: float, blind_accuracy: float
) -> None:
    rows = measured(sees, knows).rows
    for group in ("all", "swap", "attribute"):
        found = {
            metric: rows["hnc-shards", metric, group]
            for metric in ("pair_accuracy", BLIND, SIGHTED)
        }
        assert found["pair_accuracy"].value == pytest.approx(accuracy, abs=0.15)
        assert found[BLIND].value == pytest.approx(blind_accuracy, abs=0.15)
        assert found[SIGHTED].value == pytest.approx(
            found["pair_accuracy"].value - found[BLIND].value + 0.5
        )
        assert found[SIGHTED].low <= found[SIGHTED].value <= found[SIGHTED].high


def test_two_models_are_compared_by_sight_too() -> None:
    looks, knows = measured(9.0, 0.0), measured(0.0, 1.0)
    shared = shared_items(knows, looks)
    change = change_of(shared, ("hnc-shards", SIGHTED, "all"))
    assert change is not None
    rows = [of.rows["hnc-shards", SIGHTED, "all"].value for of in (knows, looks)]
    assert change.difference.value == pytest.approx(rows[1] - rows[0])
    assert change.difference.value > 0.4
