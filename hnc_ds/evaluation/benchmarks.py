"""The table of benchmarks: what each is called in a report, and what guessing would score.

Add a benchmark: write its measure in a file of its own, add its line here, and call it from
evaluate.py. No torch here, so that reports read the table without it.
"""

from dataclasses import dataclass


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
