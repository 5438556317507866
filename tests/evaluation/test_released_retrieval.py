"""Hit rates of captioned images, by brute force and with ties."""

import numpy as np
import torch

from hnc_ds.evaluation.released.measure import Encoded, judge_retrieval, measure_retrieval
from hnc_ds.evaluation.released.rules import ImageRef, Question
from hnc_ds.evaluation.results import Coverage
from hnc_ds.evaluation.similarity import Cosines


def gallery(image_ND: torch.Tensor, text_TD: torch.Tensor, owner: list[int]) -> Encoded:
    """Captions 0, 1, ... each of the image that ``owner`` gives."""
    questions = []
    for image in range(len(image_ND)):
        captions = tuple(str(text) for text, of in enumerate(owner) if of == image)
        match = frozenset((0, column) for column in range(len(captions)))
        ref = ImageRef("coco2014", f"{image}.jpg")
        questions.append(Question(str(image), (ref,), captions, match, "all"))
    rows = {question.images[0]: row for row, question in enumerate(questions)}
    texts = {str(text): text for text in range(len(owner))}
    return Encoded([], questions, rows, texts, Cosines(image_ND, text_TD), Coverage(0, 0, 0, ""))


def rates(encoded: Encoded) -> dict[tuple[str, str], float]:
    return {
        (metric, group): found.value
        for metric, group, found in measure_retrieval(encoded, seed=0)[0]
    }


def test_hit_rates_are_those_of_sorting_every_query() -> None:
    draw = torch.Generator().manual_seed(0)
    image_ND = torch.nn.functional.normalize(torch.randn(12, 4, generator=draw), dim=1)
    owner = [n // 3 for n in range(36)]
    text_TD = image_ND[owner] + 0.8 * torch.randn(36, 4, generator=draw)
    text_TD = torch.nn.functional.normalize(text_TD, dim=1)
    found = rates(gallery(image_ND, text_TD, owner))
    _, ranks = measure_retrieval(gallery(image_ND, text_TD, owner), seed=0)
    scores = (image_ND @ text_TD.T).numpy()
    for cutoff in (1, 5, 10):
        best_texts = np.argsort(-scores, axis=1)[:, :cutoff]
        hits = [any(owner[text] == n for text in row) for n, row in enumerate(best_texts)]
        assert found[f"image_to_text_R@{cutoff}", "all"] == np.mean(hits)
        best_images = np.argsort(-scores.T, axis=1)[:, :cutoff]
        hits = [owner[text] in row for text, row in enumerate(best_images)]
        assert found[f"text_to_image_R@{cutoff}", "all"] == np.mean(hits)
        of_texts = [rank < cutoff for n in range(12) for rank in ranks[f"{n}"]["text_to_image"]]
        assert of_texts == hits
    ranks_N = [ranks[f"{n}"]["image_to_text"] for n in range(12)]
    best_N = np.argsort(-scores, axis=1)
    assert ranks_N == [
        (next(place for place, text in enumerate(row) if owner[text] == n),)
        for n, row in enumerate(best_N)
    ]
    assert found["ties", "image_to_text"] == 0
    judged = judge_retrieval(gallery(image_ND, text_TD, owner))
    assert {metric: one.right_Q.mean() for metric, one in judged.items()} == {
        metric: value for (metric, _), value in found.items() if metric != "ties"
    }
    assert judged["text_to_image_R@1"].cluster_Q.tolist() == owner


def test_of_equal_similarities_the_wrong_one_comes_first_and_is_counted() -> None:
    image_ND = torch.eye(2)
    text_TD = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # the same for both images
    found = rates(gallery(image_ND, text_TD, [0, 1]))
    assert found["image_to_text_R@1", "all"] == 0
    assert found["image_to_text_R@5", "all"] == 1
    assert found["ties", "image_to_text"] == 1
    assert found["text_to_image_R@1", "all"] == 0.5
    assert found["ties", "text_to_image"] == 0
