"""The table of measures on shards: what each is called in a report, and what guessing would score.

Add one: write its measure in a file of its own, add its line here and one to MEASURES of
on_shards.py. Benchmarks of released files are in question_sets.py. No torch here, so that reports
read the table without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hnc_ds.errors import UserError, did_you_mean


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark, as reports name it."""

    title: str

    version: int
    """Raise it when the same model would now score differently."""

    about: str
    """What is measured, and how ties count, in a sentence or two."""

    chance: float | None
    """Score of guessing; None where it depends on the size of the set."""


HARD_NEGATIVES = "hnc-shards"
RETRIEVAL = "retrieval"

BENCHMARKS = {
    HARD_NEGATIVES: Benchmark(
        title="Hard negatives",
        version=1,
        about="Share of pairs in which the image is more similar to its true caption than to the "
        "hard negative made from it. A tie counts as wrong.",
        chance=0.5,
    ),
    RETRIEVAL: Benchmark(
        title="Image-text retrieval",
        version=1,
        about="Each image with its longest true caption among those of all images: share of "
        "queries with a right answer among the first 1, 5 or 10. Any caption written for the "
        "image is right; of equal scores the wrong answer comes first.",
        chance=None,
    ),
}

IN_WORDS = {
    "vqav2": Benchmark(
        title="VQA v2.0",
        version=1,
        about="What an answer in words is worth against those of ten people, mean over questions; "
        "vqa_official is what papers report.",
        chance=None,
    ),
    "textvqa": Benchmark(
        title="TextVQA",
        version=1,
        about="What an answer in words is worth against those of ten people, mean over questions; "
        "m4c is what papers report.",
        chance=None,
    ),
}
"""Answers of a LLaVA, which 'hnc-ds score' measures."""

HEADLINE_SCORER = {"vqav2": "vqa_official", "textvqa": "m4c"}
"""What papers report of each; the other scorers are shown over all questions only."""

HEADLINES = (
    ("hard negatives", (HARD_NEGATIVES, "pair_accuracy", "all")),
    ("image to text, R@1", (RETRIEVAL, "image_to_text_R@1", "all")),
    ("text to image, R@1", (RETRIEVAL, "text_to_image_R@1", "all")),
)
"""The few numbers that are shown first: a title, and benchmark, metric and group of the row."""


def chosen_benchmarks(names: Sequence[str]) -> tuple[str, ...]:
    """The named benchmarks in the order of the table; all of them when none is named.

    Raises:
        UserError: No benchmark is called so.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(
                f"benchmarks: there is no '{name}'{did_you_mean(name, BENCHMARKS)}; "
                f"there are {', '.join(BENCHMARKS)}"
            )
    return tuple(name for name in BENCHMARKS if not names or name in names)
