"""Two runs measured on the same two images, small enough to check by eye."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from hnc_ds.config import PackConfig
from hnc_ds.evaluation.benchmarks import RELEASED
from hnc_ds.evaluation.results import (
    AnsweredItem,
    Coverage,
    ItemsHeader,
    PairItem,
    RankItem,
    fingerprint,
    write_results,
)
from hnc_ds.records import CaptionGroup, ImageCaptions, Negative, Result
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader

MakeRun = Callable[..., Path]


def pair(
    key: str,
    margin: float,
    type: str = "swap",
    positive: str = "a red dog",
    negative: str = "a dog",
) -> PairItem:
    """A pair whose positive scores 0.5."""
    return PairItem("ab".find(key[0]), key, "relation", type, positive, negative, 0.5, 0.5 - margin)


def accuracy(pairs: Sequence[PairItem], group: str) -> Result:
    right = [p.margin > 0 for p in pairs if group in ("all", p.type)]
    value = sum(right) / len(right)
    return Result("m", "hnc-shards", 1, "pair_accuracy", group, value, value, value, len(right))


def row(benchmark: str, metric: str, group: str, value: float, model: str = "m") -> Result:
    return Result(model, benchmark, 1, metric, group, value, value, value, 4)


def results(
    path: Path,
    rows: Sequence[Result],
    items: Sequence[AnsweredItem] = (),
    questions: str = "q",
) -> Path:
    """A results file; its header identifies the questions of every benchmark."""
    folder = str(path.parent / "images")
    header = ItemsHeader(
        model=rows[0].model,
        folders={"coco2017": (folder,), "vg": (folder,)},
        sets={r.benchmark: Coverage(4, 4, 8, questions) for r in rows if r.benchmark in RELEASED},
    )
    write_results(path, list(rows), header, items)
    return path


def of_shards(pairs: float, recall: float) -> list[Result]:
    ways = ("image_to_text_R@1", "text_to_image_R@1")
    found = [row("retrieval", way, "all", recall) for way in ways]
    return [row("hnc-shards", "pair_accuracy", "all", pairs), *found]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for key, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 48), colour).save(images / f"{key}.jpg")
        group = CaptionGroup("a red dog", "relation", (Negative("a dog", "swap"),))
        lines.append(msgspec.json.encode(ImageCaptions(key, (group,))))
    captions = tmp_path / "captions.jsonl"
    captions.write_bytes(b"\n".join(lines) + b"\n")
    pack(PackConfig(captions=captions, images=(images,), out=tmp_path / "shards", workers=1))
    return tmp_path / "shards"


@pytest.fixture
def make_run(tmp_path: Path, shards: Path) -> MakeRun:
    """Write a run folder: pairs, ranks of images a and b, settings and a log."""

    def make(
        name: str,
        pairs: Sequence[PairItem] = (),
        ranks: Sequence[int] = (0, 0),
        settings: dict[str, object] | None = None,
        log: str = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n',
    ) -> Path:
        pairs = pairs or [pair("a", 0.25), pair("b", -0.25)]
        run = tmp_path / "runs" / name
        results = [accuracy(pairs, g) for g in ("all", *sorted({p.type for p in pairs}))]
        recall = sum(rank < 1 for rank in ranks) / len(ranks)
        results.append(
            Result(
                "m", "retrieval", 1, "text_to_image_R@1", "all", recall, recall, recall, len(ranks)
            )
        )
        header = ItemsHeader("m", "../../../shards", fingerprint(ShardReader(shards).index), 2, 2)
        items = [RankItem(i, "ab"[i % 2], "text", rank, rank) for i, rank in enumerate(ranks)]
        write_results(run / "results" / "val.json", results, header, [*pairs, *items])
        (run / "config.json").write_text(json.dumps(settings or {"steps": 2}))
        (run / "log.jsonl").write_text(log)
        return run

    return make
