"""Coverage of captions: right numbers, the same in any order, lines that fit a terminal."""

import random
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest

from hnc_ds.captions.balance import Quotas
from hnc_ds.captions.caption_stats import Counts, read_counts, stats_json, stats_path_of, summary
from hnc_ds.captions.contents import inspect_captions
from hnc_ds.captions.coverage import (
    Coverage,
    Share,
    Yield,
    common,
    coverage_lines,
    coverage_of,
    median,
    quantile,
)
from hnc_ds.captions.first_pass import tally_of
from hnc_ds.captions.groups import caption_groups, captions_and_yields
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.config import InspectConfig
from hnc_ds.records import (
    CaptionGroup,
    ImageCaptions,
    Negative,
    Relation,
    SceneGraph,
    SceneObject,
)
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.drawing import draw_world

GRAPH = SceneGraph(
    "1",
    100,
    100,
    {
        "a": SceneObject("sky", 0, 0, 100, 50),
        "b": SceneObject("horse", 10, 30, 50, 50, ("white", "large")),
        "c": SceneObject("bench", 60, 60, 30, 20, ("wood",), (Relation("to the left of", "b"),)),
        "d": SceneObject("leg", 20, 70, 5, 10),
        "e": SceneObject("kite", 90, 0, 500, 20),  # 10 x 20 of it are in the image
        "f": SceneObject("dot", 5, 5, 0, 0),
        "g": SceneObject("dog", 0, 80, 20, 15),
    },
)
CAPTIONS = ImageCaptions(
    "1",
    (
        CaptionGroup(
            "The horse is white.",
            "attribute",
            (
                Negative("The horse is black.", "attribute", ("white", "black"), about="colour"),
                Negative("The bench is white.", "object", ("horse", "bench"), about="colour"),
            ),
            (1,),
        ),
        CaptionGroup(
            "The wooden bench is to the right of the horse.",
            "relation_attr",
            (
                Negative(
                    "The metal bench is to the right of the horse.",
                    "attribute_subg",
                    ("wooden", "metal"),
                    about="material",
                ),
                Negative(
                    "The wooden bench is to the left of the horse.",
                    "relation_attr_pred",
                    ("to the right of", "to the left of"),
                    about="to the left of",
                ),
                Negative(
                    "The wooden dog is to the right of the horse.",
                    "relation_attr_subj",
                    ("bench", "dog"),
                    about="to the right of",
                ),
            ),
            (2, 1),
        ),
        CaptionGroup(
            "There are two dogs.", "obj_count", (Negative("There is one dog.", "obj_count"),), (6,)
        ),
        CaptionGroup(
            "The dog is on the grass.",
            "relation",
            (
                Negative(
                    "The dog is above the grass.", "relation_pred", ("on", "above"), about="above"
                ),
            ),
            (6,),
        ),
    ),
)


def test_the_coverage_of_an_image_is_counted_by_hand() -> None:
    yields = {"attribute": Yield(3, 9, 4, 2), "swap": Yield(1, 1)}
    found = coverage_of(GRAPH, CAPTIONS, yields)
    assert found.pairs == found.pairs_where_related == {7: 1}
    assert found.predicates == {"to the left of": 1, "to the right of": 1, "above": 1}
    # Beside a changed predicate stands another one, beside a changed subject the same.
    assert found.positive_predicates == {"to the right of": 1, "on": 1}
    assert found.left_right_images == 1
    assert found.attribute_classes == {"colour": 2, "material": 1}
    # 'The bench is white.' states white, though 'bench' is what was put in.
    assert found.attribute_values == {"black": 1, "white": 1, "metal": 1}
    assert found.attributes == Share(2, 3)  # white and wood; nothing denies that it is large
    # sky, horse, bench, dog, kite: the leg is smaller, and what lies outside does not count
    assert found.largest == Share(3, 5)
    assert found.largest_things == Share(3, 4)  # sky and leg left out, the dot has no area
    assert found.yields["attribute"] == Yield(3, 9, 4, 2, 1)
    assert found.yields["attribute"].no_room == 1
    assert found.yields["swap"] == Yield(1, 1)
    assert found.yields["obj_count"].written == 1


@pytest.mark.parametrize("balance", ["data", "image"])
def test_every_possible_statement_has_one_outcome(balance: Literal["data", "image"]) -> None:
    """Written is what is refuted and neither balanced away nor without room; by type."""
    rng, options = random.Random(3), Options(balance=balance)
    graphs = [annotate(rng, draw_world(rng), str(i)) for i in range(12)]
    quotas = None
    if balance == "data":
        quotas = Quotas(tally_of(graphs, DEFAULT_TYPES, 0, options).balance())
    total = Coverage()
    for graph in graphs:
        captions, yields = captions_and_yields(graph, DEFAULT_TYPES, 0, options, quotas)
        assert captions == caption_groups(graph, DEFAULT_TYPES, 0, options, quotas)
        assert tuple(yields) == DEFAULT_TYPES
        covered = coverage_of(graph, captions, yields)
        for name, found in covered.yields.items():
            assert found.tried >= found.refuted >= found.balanced_away + found.written, name
            assert found.statements or not found.written, name
        total.add(covered)
    assert sum(found.written for found in total.yields.values()) > 12 * 20
    assert {name for name, found in total.yields.items() if found.refuted} >= {*MADE}
    assert total.yields["swap"].balanced_away == 0
    assert total.yields["attribute"].balanced_away > 0


MADE = ("attribute", "object", "relation_subj", "relation_pred", "obj_verify_count", "swap")


def test_without_a_graph_the_captions_alone_are_counted() -> None:
    found, whole = coverage_of(None, CAPTIONS), coverage_of(GRAPH, CAPTIONS)
    assert (found.pairs, found.predicates) == (whole.pairs, whole.predicates)
    assert not found.pairs_where_related
    assert found.largest == found.largest_things == found.attributes == Share()


def test_an_attribute_class_that_is_a_predicate_too() -> None:
    relation = Negative("The man is cooking the egg.", "relation_pred", about="cooking")
    attribute = Negative("The egg is fried.", "attribute", ("boiled", "fried"), about="cooking")
    groups = CaptionGroup("x", "x", (relation, attribute))
    found = coverage_of(None, ImageCaptions("1", (groups,)))
    assert found.predicates == found.attribute_classes == {"cooking": 1}
    assert found.attribute_values == {"fried": 1}


def some_images(count: int) -> list[Coverage]:
    rng = random.Random(0)
    made = []
    for place in range(count):
        groups = tuple(rng.sample(CAPTIONS.groups, rng.randint(0, 4)))
        graph = GRAPH if rng.random() < 0.8 else None
        yields = {"attribute": Yield(rng.randint(0, 9), 9, 4, 2), f"type {place % 7}": Yield(1)}
        made.append(coverage_of(graph, ImageCaptions(str(place), groups), yields))
    return made


def total(images: list[Coverage]) -> Coverage:
    found = Coverage()
    for image in images:
        found.add(image)
    return found


def test_sums_are_the_same_in_any_order_and_by_parts() -> None:
    images = some_images(60)
    whole = total(images)
    backwards = total(images[::-1])
    by_parts = total([total(images[:13]), total(images[13:40]), total(images[40:])])
    assert whole == backwards == by_parts
    written = [msgspec.json.encode(found.in_order()) for found in (whole, backwards, by_parts)]
    assert len({*written}) == 1
    assert whole.images == 60
    assert whole.yields["attribute"].statements == sum(
        one.yields["attribute"].statements for one in images
    )
    # What is kept follows the vocabulary: a thousand images take no more than sixty.
    many = total(some_images(1000))
    assert len(msgspec.json.encode(many)) < len(written[0]) + 300


def test_quantiles_are_those_of_the_images() -> None:
    rng = random.Random(1)
    for _ in range(50):
        values = [rng.randint(0, 20) for _ in range(rng.randint(1, 40))]
        counts = {value: values.count(value) for value in values}
        assert median(counts) == np.median(values)
        for share in (0.1, 0.25, 0.9):
            least = np.quantile(values, share, method="inverted_cdf")
            assert quantile(counts, share) == least


def test_common_predicates_are_the_most_frequent_ones() -> None:
    assert common({"on": 97, "in": 2, "near": 1}) == ("on", "in", "near")
    assert common({"on": 970, "in": 21, "near": 9}) == ("on", "in")


def test_lines_state_the_numbers_and_fit(tmp_path: Path) -> None:
    coverage = coverage_of(GRAPH, CAPTIONS, {"attribute": Yield(3, 9, 4, 2), "swap": Yield(1, 1)})
    lines = [*coverage_lines(coverage, ("attribute", "swap"))]
    text = "\n".join(lines)
    assert "7.0 on average, median 7, 10th percentile 7" in text
    assert "none in 0 of 1 image; at least 7 where relations are annotated" in text
    assert "66.7% of 3 negatives with a relation" in text
    assert "50.0% of 2 true captions of these negatives" in text
    assert "60.0% of 5 are in true captions" in text
    rows = [line.split() for line in lines]
    assert ["attribute", "3", "9", "4", "2", "1", "1"] in rows
    names = [row[0] for row in rows[-9:]]
    assert names[:2] == ["attribute", "swap"]  # then the others by name, then all
    assert names[2:-1] == sorted(names[2:-1])
    assert rows[-1] == ["all", "4", "10", "4", "2", "1", "7"]
    # GQA has 75,000 images; a hundred columns are enough for them.
    large = Coverage(pairs={61: 74_942}, largest=Share(300_000, 374_710))
    large.yields = {"obj_verify_count_attr": Yield(*[123_456_789] * 5)}
    assert max(map(len, [*lines, *coverage_lines(large)])) <= 100
    assert [*coverage_lines(Coverage())] == []
    # Where only what is written is known, there is no table.
    assert "refuted" not in "\n".join(coverage_lines(coverage_of(None, CAPTIONS)))


def write(tmp_path: Path, counts: Counts) -> Path:
    out = tmp_path / "c.jsonl"
    out.write_bytes(msgspec.json.encode(CAPTIONS) + b"\n")
    stats_path_of(out).write_bytes(stats_json({"seed": 0}, ("attribute", "swap"), counts))
    return out


def counts_of_captions() -> Counts:
    negatives = [n.type for group in CAPTIONS.groups for n in group.negatives]
    counted = {name: negatives.count(name) for name in negatives}
    return Counts(1, 0, {}, counted, {}, coverage_of(GRAPH, CAPTIONS))


def test_statistics_keep_the_coverage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = counts_of_captions()
    out = write(tmp_path, counts)
    assert read_counts(out).coverage == counts.coverage
    assert "60.0% of 5 are in true captions" in summary(out, ("attribute",), counts)
    inspect_captions(InspectConfig(shards=out))
    assert "60.0% of 5 are in true captions" in capsys.readouterr().out


@pytest.mark.parametrize("stale", ["other captions", "broken", "absent"])
def test_statistics_of_other_captions_are_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stale: str
) -> None:
    counts = counts_of_captions()
    if stale == "other captions":
        counts.negatives["swap"] = 5
    out = write(tmp_path, counts)
    if stale == "broken":
        stats_path_of(out).write_bytes(b'{"images": "many"}')
    if stale == "absent":
        stats_path_of(out).unlink()
    inspect_captions(InspectConfig(shards=out))
    shown = capsys.readouterr().out
    assert "7.0 on average" in shown
    assert "largest objects" not in shown
