"""The comparison with the published generator: captions read back, judged, tables completed."""

import json
from pathlib import Path

import pytest

from experiments import published_captions
from experiments.caption_reader import CaptionReader
from hnc_ds.captions.balance import Quotas
from hnc_ds.captions.first_pass import tally_of
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.language import predicates
from hnc_ds.captions.language.attribute_classes import CLASSES
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.truth.claims import (
    Both,
    Claim,
    Compared,
    Counted,
    Either,
    HasAttribute,
    Not,
    Phrase,
    Related,
)
from hnc_ds.captions.truth.holds import Truth
from hnc_ds.errors import UserError
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, Relation, SceneGraph, SceneObject
from speed.graphs import write_graphs

NAMES = frozenset({"horse", "pizza slice", "stop sign", "sign", "bench", "benches", "stop"})
READER = CaptionReader(
    NAMES | {"zebra"},
    {"red", "blue", "wood", "black", "black and white", "walking", "stop"},
    {"on", "on top of", "to the left of", "of", "walking"},
)
HORSE, BENCH, ZEBRA = Phrase("horse"), Phrase("bench"), Phrase("zebra")
SIGN = Phrase("stop sign")


@pytest.mark.parametrize(
    ("caption", "claim"),
    [
        ("The horse is walking.", HasAttribute(HORSE, "walking")),
        ("The bench is made of wood.", HasAttribute(BENCH, "wood")),
        ("The table is wood.", None),
        ("The benches are on the horse.", Related(Phrase("benches"), "on", HORSE)),
        (
            "The black and white horse is on top of the wooden bench.",
            Related(Phrase("horse", ("black and white",)), "on top of", Phrase("bench", ("wood",))),
        ),
        ("A pizza slice is to the left of the stop sign.",
         Related(Phrase("pizza slice"), "to the left of", SIGN)),
        ("There are twelve horses.", Counted("horse", 12)),
        ("There are four horse.", Counted("horse", 4)),
        ("There are as many horses as benches.", Compared("horse", "as many", "bench")),
        ("There is no zebra that is red.", Not(HasAttribute(ZEBRA, "red"))),
        ("There are some benches that are on the horse.", Related(Phrase("benches"), "on", HORSE)),
        ("There is both a red horse and a blue bench.",
         Both(HasAttribute(HORSE, "red"), HasAttribute(BENCH, "blue"))),
        ("There is both a red and a black and white horse.",
         Both(HasAttribute(HORSE, "red"), HasAttribute(HORSE, "black and white"))),
        ("There are both a horse and a zebra on the bench.",
         Both(Related(HORSE, "on", BENCH), Related(ZEBRA, "on", BENCH))),
        ("There is both a horse on a bench and a zebra on another bench.",
         Both(Related(HORSE, "on", BENCH), Related(ZEBRA, "on", BENCH))),
        ("The horse is both on the bench and to the left of the zebra.",
         Both(Related(HORSE, "on", BENCH), Related(HORSE, "to the left of", ZEBRA))),
        ("The horse is both red and on the bench.",
         Both(HasAttribute(HORSE, "red"), Related(HORSE, "on", BENCH))),
        ("There is either a red horse or a blue bench.",
         Either(HasAttribute(HORSE, "red"), HasAttribute(BENCH, "blue"))),
        ("The horse is on either the bench or the zebra.",
         Either(Related(HORSE, "on", BENCH), Related(HORSE, "on", ZEBRA))),
        ("There is both a horse and a bench.", None),
        ("The unicorn is red.", None),
        ("Horses!", None),
    ],
)  # fmt: skip
def test_templates_are_read(caption: str, claim: Claim | None) -> None:
    assert READER.claim_of(caption, NAMES) == claim


def test_all_captions_of_ours_are_read_and_judged_right(tmp_path: Path) -> None:
    path = write_graphs(tmp_path / "graphs.json", 40, seed=3)
    graphs = list(read_scene_graphs(path))
    options = Options(balance="data")
    quotas = Quotas(tally_of(graphs, DEFAULT_TYPES, 0, options).balance())
    made = [caption_groups(graph, DEFAULT_TYPES, 0, options, quotas) for graph in graphs]
    objects = [found for graph in graphs for found in graph.objects.values()]
    reader = CaptionReader(
        {found.name for found in objects},
        {value for cls in CLASSES for cell in cls.cells for value in cell},
        {*predicates.known(), *(r.name for found in objects for r in found.relations)},
    )
    pairs = list(published_captions._judged(made, graphs, reader))
    assert len(pairs) > 1000
    for pair in pairs:
        assert pair.positive_truth is Truth.TRUE, pair
        assert pair.negative_truth is Truth.FALSE, pair


GRAPH = SceneGraph(
    "1",
    100,
    100,
    {
        "a": SceneObject("horse", 0, 0, 20, 20, ("red",), (Relation("on", "b"),)),
        "b": SceneObject("bench", 60, 0, 20, 20, ("blue",)),
    },
)


def test_pairs_are_wrong_unproven_or_neither() -> None:
    def negative(caption: str) -> Negative:
        return Negative(caption, "attribute")

    texts = (
        "The bench is red.",
        "The bench is blue.",
        "The horse is walking.",
        "The horse is red.",
    )
    group = CaptionGroup("The horse is red.", "attribute", tuple(map(negative, texts)))
    false = CaptionGroup("The bench is black.", "attribute", (negative("The bench is wet."),))
    captions = ImageCaptions("1", (group, false))
    pairs = list(published_captions._judged([captions], [GRAPH], READER))
    assert [published_captions._is_wrong(pair) for pair in pairs] == [
        False,  # proven false
        True,  # true
        False,  # of which the graph has no annotation
        True,  # the same text
        True,  # its true caption is false
    ]
    assert [published_captions._is_unproven(pair) for pair in pairs] == [0, 0, 1, 0, 0]
    assert published_captions._is_unread(pairs[-1])  # 'wet' is no word of this reader
    lines = list(published_captions._table({"one": pairs, "two": pairs[:1]}, 1))
    assert max(map(len, lines)) <= 100
    last = next(line for line in lines if line.startswith("all types"))
    assert last.split()[2:] == "5.0 60.0% 20.0% 20.0% 1.0 0.0% 0.0% 0.0%".split()


def test_tables_are_completed_and_what_they_hold_is_kept(tmp_path: Path) -> None:
    held = {
        "all_obj_counts": {"horse": {"1": 7}},
        "obj_counts": {"horse": 7},
        "obj_to_attr_counts": {"horse": {"brown": 5}, "dog": {"wet": 1}},
        "pred_to_subj_counts": {"on": {"dog": 9}},
        "pred_to_obj_counts": {},
        "obj2predicate2obj": {"theirs": {}},
    }
    for name, content in held.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    published_captions._complete_tables(tmp_path, [GRAPH])
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert found["all_obj_counts"] == {"horse": {"1": 7}, "bench": {"1": 1}}
    assert found["obj_counts"] == {"horse": 7, "bench": 1}
    assert found["obj_to_attr_counts"] == {
        "horse": {"brown": 5, "red": 1},
        "bench": {"blue": 1},
        "dog": {"wet": 1},
    }
    assert found["pred_to_subj_counts"] == {"on": {"dog": 9, "horse": 1}}
    assert found["obj2predicate2obj"] == {"theirs": {}}
    assert found["pred_obj_to_subj_counts"] == {"on_bench": {"horse": 1}}
    assert found["subj_pred_to_obj_counts"] == {"horse_on": {"bench": 1}}
    assert found["subj_obj_to_pred_counts"] == {"horse_bench": {"on": 1}}


def test_their_records_become_groups() -> None:
    records = {
        "7": {"caption": "The cup is red.", "label": 1, "type": "attribute", "cpt_p_id": None},
        "8": {"caption": "The cup is blue.", "label": 0, "type": "attribute", "cpt_p_id": 7},
        "9": {"caption": "The box is red.", "label": 0, "type": "object", "cpt_p_id": 7},
    }
    negatives = (Negative("The cup is blue.", "attribute"), Negative("The box is red.", "object"))
    assert published_captions._paired("1", records).groups == (
        CaptionGroup("The cup is red.", "attribute", negatives),
    )


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    settings = published_captions.Settings(tmp_path, tmp_path / "graphs.json")
    with pytest.raises(UserError, match="is no checkout of the published generator; git clone"):
        published_captions.compare(settings)
