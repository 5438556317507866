"""Which rows stand in one table, what they are called, what is drawn and what is folded."""

from pathlib import Path

from hnc_ds.report.runs import read_runs
from hnc_ds.report.tables import arrange, compare

from .conftest import results, row


def keys(benchmark: str, *rows: tuple[str, str]) -> list[tuple[str, str, str]]:
    return [(benchmark, metric, group) for metric, group in rows]


def test_the_first_metric_stands_by_group_and_the_others_in_one_table_below() -> None:
    groups = ("all", "Object", "Relation", "macro")
    rows = [(metric, group) for metric in ("text", "group") for group in groups]
    main, further, folded = arrange(keys("winoground", *rows, ("ties", "all")))
    assert main.title == "Winoground: text"
    assert [main.label_of(key) for key in main.keys] == list(groups)
    assert [group for _, _, group in main.bars] == ["Object", "Relation"]
    assert further.title == "Winoground: further scores"
    labels = [further.label_of(key) for key in further.keys]
    assert labels == ["group", "group, macro", "decided by a tie"]
    assert [folded.label_of(key) for key in folded.keys] == ["group, Object", "group, Relation"]
    assert [block.folded for block in (main, further, folded)] == [False, False, True]
    assert not further.bars
    assert not folded.bars


def test_the_note_on_a_benchmark_is_shown_once() -> None:
    rows = [(m, g) for m in ("itt", "tot") for g in ("all", "swap_obj", "swap_att")]
    main, *others = arrange(keys("sugarcrepe++", *rows))
    assert main.about.startswith("itt: both true captions")
    assert [block.about for block in others] == ["", ""]


def test_a_metric_without_groups_does_not_come_before_one_with_groups() -> None:
    main, further = arrange(
        keys("vsr", ("auroc", "all"), ("accuracy", "all"), ("accuracy", "at"), ("accuracy", "on"))
    )
    assert main.title == "VSR: accuracy"
    assert [further.label_of(key) for key in further.keys] == ["auroc"]


def test_scores_without_groups_are_called_by_their_metrics() -> None:
    (block,) = arrange(keys("zero-shot", ("acc1", "all"), ("mean_per_class_recall", "all")))
    assert [block.label_of(key) for key in block.keys] == ["acc1", "mean per class recall"]
    (block,) = arrange(keys("retrieval", ("image_to_text_R@1", "all")))
    assert block.label_of(block.keys[0]) == "image to text, R@1"


def test_predicates_and_classes_of_attributes_have_tables_of_their_own_rare_ones_folded() -> None:
    predicates = [f"predicate: {name}" for name in ("to the left of", *"abcdefghijklm")]
    groups = ("all", "swap", *predicates, "attribute: colour")
    rows = [("pair_accuracy", group) for group in groups]
    rows += [("margin", "all"), ("margin", "swap")]
    whole, by_predicate, further, by_class, margin = arrange(keys("hnc-shards", *rows))
    assert [group for _, _, group in whole.keys] == ["all", "swap"]
    assert by_predicate.title == "Hard negatives by predicate"
    assert "at least 50 pairs" in by_predicate.about
    labels = [by_predicate.label_of(key) for key in by_predicate.keys]
    assert labels == ["to the left of", *"abcdefghijk"]
    assert by_predicate.bars == by_predicate.keys
    assert [further.label_of(key) for key in further.keys] == ["l", "m"]
    assert by_class.title == "Hard negatives by class of attributes"
    assert [by_class.label_of(key) for key in by_class.keys] == ["colour"]
    assert margin.title.startswith("Margin")
    folded = [block.folded for block in (whole, by_predicate, further, by_class, margin)]
    assert folded == [False, False, True, False, True]


def test_many_groups_are_folded_and_not_drawn(tmp_path: Path) -> None:
    rows = [row("aro-relation", "accuracy", "all", 0.8)]
    rows += [row("aro-relation", "accuracy", f"relation {n}", 0.5) for n in range(60)]
    (run,) = read_runs([results(tmp_path / "x.json", rows)])
    whole, parts = compare([*run.measurements.values()], [None])
    assert (len(whole.rows), whole.folded, whole.chart) == (1, False, "")
    assert (len(parts.rows), parts.folded, parts.chart) == (60, True, "")
    assert parts.title.endswith("by group")


def test_of_many_groups_and_tags_those_stand_open_that_are_few() -> None:
    """What'sUp has six sub-sets and many prepositions, VSR many relations and seven kinds."""
    subsets, prepositions = list("abcdef"), [f"tag: {n}" for n in range(30)]
    relations, kinds = [f"{n}" for n in range(60)], ["tag: near", "tag: far"]
    for groups, open_ in ((subsets + prepositions, subsets), (relations + kinds, kinds)):
        keys = [("whatsup", "accuracy", group) for group in ("all", *groups)]
        first, folded = arrange(keys)
        assert [key[2] for key in first.keys] == ["all", *open_]
        assert (first.folded, folded.folded) == (False, True)
        assert [key[2] for key in folded.keys] == [g for g in groups if g not in open_]


def test_ties_are_reported_only_where_there_are_any(tmp_path: Path) -> None:
    for share, last in ((0.0, "accuracy"), (0.25, "decided by a tie")):
        rows = [row("cola", "accuracy", "all", 0.5), row("cola", "ties", "all", share)]
        (run,) = read_runs([results(tmp_path / f"{share}.json", rows)])
        (table,) = compare([*run.measurements.values()], [None])
        assert table.rows[-1].label == last
