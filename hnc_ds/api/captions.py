"""Captions and hard negatives of a single scene graph. No torch here."""

from collections.abc import Mapping, Sequence
from typing import Any

from hnc_ds.captions.formats.scene_graphs import convert_scene_graph
from hnc_ds.captions.formats.visual_genome import as_gqa, is_visual_genome
from hnc_ds.captions.generate import named_types
from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.config import GenerateConfig
from hnc_ds.config.checks import at_least, share
from hnc_ds.records import CaptionGroup


def captions_of(
    graph: Mapping[str, Any],
    image_id: str | None = None,
    *,
    types: str | Sequence[str] = (),
    per_image: int = GenerateConfig.per_image,
    by_colour: float = GenerateConfig.by_colour,
    open_world: bool = GenerateConfig.open_world,
    seed: int = GenerateConfig.seed,
) -> tuple[CaptionGroup, ...]:
    """True captions of an image, each with hard negatives that its graph proves false.

    They are those of ``hnc-ds generate --balance image`` for the same graph, id and settings: words
    are as frequent in the image's true captions as in its false ones.

    Args:
        graph: The value of an image in GQA's sceneGraphs.json, with objects by id; or an entry of
            Visual Genome's scene_graphs.json, or of its relationships.json and attributes.json,
            alone or joined, with lists of objects and relationships.
        image_id: Part of the seed; by default the graph's own image_id, or ''.
        types: Negative types or families; by default hnc and swaps.
        per_image: Maximum number of true captions.
        by_colour: Probability that a described noun carries its colour, if it has one.
        open_world: Also write negatives that the graph does not prove false, tagged as such.
        seed: Seed for all draws.

    Raises:
        UserError: The graph has neither layout, a type is unknown, or a value is out of range.
    """
    at_least(1, per_image=per_image)
    share(by_colour=by_colour)
    own = str(graph.get("image_id", "")) if image_id is None else image_id
    where = f"captions_of: image '{own}'" if own else "captions_of"
    gqa = as_gqa(where, graph) if is_visual_genome(graph) else graph
    options = Options(max_groups=per_image, by_colour=by_colour, open_world=open_world)
    names = (types,) if isinstance(types, str) else tuple(types)
    converted = convert_scene_graph(where, gqa, own)
    return caption_groups(converted, named_types(names), seed, options).groups
