"""The captions of graphs, as hnc_ds makes them in all its ways: what the checks judge."""

from collections.abc import Iterator, Sequence

from hnc_ds.captions.balance import Balance, Proposal, Quotas
from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.records import CaptionGroup, SceneGraph


class Everything(Quotas):
    """No balance: all changes that are proposed are kept, as labels have to be right in each."""

    def __init__(self) -> None:
        super().__init__(Balance(0, ()))

    def kept(self, named: Sequence[tuple[str, Proposal]]) -> list[float]:
        return [1.0] * len(named)


def captions_of(
    graph: SceneGraph, types: tuple[str, ...], options: Options, seed: int = 0
) -> Iterator[CaptionGroup]:
    """The caption groups of an image.

    Args:
        graph: What is annotated.
        types: Of the negatives.
        options: With ``balance="data"`` all proposed changes come, up to ``most`` groups.
        seed: Of every draw.
    """
    yield from caption_groups(graph, types, seed, options, Everything()).groups
