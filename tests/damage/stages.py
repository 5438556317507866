"""THE TABLE of stages: which command reads which files, and what of its output is compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.captions.rewrite.fake_server import MODEL
from tests.damage.damages import (
    OF_ANY,
    OF_TEXT,
    Damage,
    of_image,
    of_json,
    of_safetensors,
    of_sqlite,
    of_table,
    of_tar,
)
from tests.damage.harness import Stage

Made = Callable[[Path, str], Any]


def content(name: str) -> Made:
    """A file's bytes."""
    return lambda folder, _: (folder / name).read_bytes() if (folder / name).is_file() else None


def results(name: str) -> Made:
    """The rows of a results.json, and the scores behind them."""

    def made(folder: Path, _: str) -> Any:
        rows = json.loads((folder / name).read_bytes())
        return [
            [row[k] for k in ("benchmark", "metric", "group", "value", "count")] for row in rows
        ]

    return made


def printed(folder: Path, said: str) -> Any:
    """What is shown, without progress."""
    return [line for line in said.splitlines() if "%|" not in line and "it/s" not in line]


def packed(folder: Path, _: str) -> Any:
    """What shards hold."""
    index = json.loads((folder / "out/index.json").read_bytes())
    return [index[name] for name in ("samples", "groups", "negatives", "skipped")]


def nothing(folder: Path, _: str) -> Any:
    """Where the output is not compared: a page of HTML, weights."""
    return None


def losses(folder: Path, _: str) -> Any:
    """Losses by step."""
    lines = (folder / "new/log.jsonl").read_text().splitlines()
    return [(row["step"], row.get("loss")) for row in map(json.loads, lines)]


EVALUATE = "--out out.json --workers 1"
TRAIN = "train --shards shards --hard-negatives 1 --log-every 1"

BENCHMARKS: dict[str, tuple[str, str]] = {
    "sugarcrepe": ("coco2017", "swap_obj.json"),
    "sugarcrepe++": ("coco2017", "swap_obj.json"),
    "aro-relation": ("vg", "visual_genome_relation.json"),
    "aro-attribution": ("vg", "visual_genome_attribution.json"),
    "aro-order": ("coco2014", "order.json"),
    "winoground": ("winoground", "examples.jsonl"),
    "valse": ("coco2017", "existence.json"),
    "whatsup": ("whatsup", "controlled_images_dataset.json coco_qa_one_obj.json"),
    "vsr": ("coco2017", "test.jsonl dev.jsonl"),
    "eqben": ("eqben", "all_select.json"),
    "crepe-productivity": ("vg", "atom/prod_vg_hard_negs_atom_complexity_4.csv"),
    "crepe-systematicity": ("vg", "syst_vg_hard_negs_seen_compounds_in_cc12m.csv"),
    "negbench": ("coco2017", "COCO_val_mcq_llama3.1_rephrased.csv"),
    "svo": ("svo", "svo_probes.csv"),
    "cola": ("vg", "COLA_multiobjects_matching_benchmark.json"),
    "mmvp": ("mmvp", "Questions.csv"),
    "hnc-test": ("gqa", "hnc_clean_strict_test.json"),
    "coco-retrieval": ("coco2014", "coco_karpathy_test.json"),
    "flickr30k-retrieval": ("flickr30k", "flickr30k_test.txt"),
    "bivlc": ("", "test.parquet"),
    "zero-shot": ("", "classnames.json templates.json dog/1.jpg"),
}
"""Source of the images, and files."""

SUITE = (
    "cifar-10-batches-bin/test_batch.bin cifar-100-python/test food-101/meta/test.txt "
    "stl10_binary/test_y.bin wds/test/nshards.txt wds/test/0.tar"
)
"""Files of several sets for zero-shot classification."""


LINES_LESS = ("no-header", "rows-gone")


def stages(world: Path) -> list[Stage]:
    """All of them.

    Args:
        world: Made already: names of checkpoints and caches are looked up.
    """
    step = next((world / "runs/run/checkpoints").iterdir()).relative_to(world / "runs")
    cache = [p.relative_to(world / "cached").as_posix() for p in (world / "cached/cache").iterdir()]
    endpoint = (world / "endpoint.txt").read_text()
    rewrite = f"rewrite --captions c.jsonl --scene-graphs sg.json --out o.jsonl --model {MODEL} --endpoint {endpoint} --retries 0"
    found = [
        stage("generate", "graphs", "generate --scene-graphs sg.json --out o.jsonl --workers 1", "sg.json", content("o.jsonl"), "attributes relations location weather"),
        stage("generate-zipped", "graphs", "generate --scene-graphs sg.json.gz --out o.jsonl --workers 1", "sg.json.gz", content("o.jsonl"), "attributes relations location weather"),
        stage("generate-tables", "graphs", "generate --scene-graphs sg.json --tables t.json --out o.jsonl --workers 1", "t.json", content("o.jsonl")),
        stage("generate-check", "graphs", "generate --check sg.json", "sg.json", printed, "attributes relations location weather"),
        stage("tables", "graphs", "tables --scene-graphs sg.json --out o.json", "sg.json", content("o.json"), "attributes relations location weather"),
        stage("rewrite", "rewrite", rewrite, "c.jsonl sg.json", content("o.jsonl"), "replaced proven objects about attributes relations location weather"),
        stage("rewrite-cached", "rewrite", f"{rewrite} --cache known.sqlite", "known.sqlite", content("o.jsonl")),
        stage("rewrite-jobs", "rewrite", f"{rewrite} --cache jobs.sqlite", "jobs.part-1.sqlite", content("o.jsonl")),
        stage("rewrite-job", "rewrite", f"{rewrite} --cache jobs.sqlite --part 1/2", "jobs.part-1.sqlite", nothing),
        stage("rewrite-earlier", "rewrite", f"{rewrite} --cache known.sqlite --part 1/2", "known.sqlite", nothing),
        stage("pack", "captions", "pack --captions c.jsonl --images images --out out --workers 1", "c.jsonl images/t000000.jpg", packed, "replaced proven"),
        stage("pack-zipped", "captions", "pack --captions c.jsonl.gz --images images --out out --workers 1", "c.jsonl.gz", packed, "replaced proven"),
        stage("pack-release", "captions", "pack --captions hnc.json --images images --out out --workers 1", "hnc.json", packed, "replaced bboxes cpt_p_id ambiguity noisy textual_label"),
        stage("pack-human", "captions", "pack --captions human.json --images images --out out --workers 1", "human.json", packed, "replaced"),
        stage("pack-check", "captions", "pack --captions c.jsonl --images images --out out --workers 1 --check", "c.jsonl", nothing, "replaced proven"),
        *(stage(f"pack-{name.rpartition('.')[2]}", "archives", f"pack --captions {name} --out out --workers 1", name, packed)
          for name in ("wds.tar", "rows.parquet", "rows.arrow")),
        stage("inspect-captions", "captions", "inspect c.jsonl", "c.jsonl", printed, "replaced proven objects about"),
        *(stage(f"swap-{name}", "lists", f"swap-words --captions {name} --out o.jsonl --workers 1", name, content("o.jsonl"), "split license year info dataset tokens")
          for name in ("coco.json", "karpathy.json", "list.csv", "list.tsv", "list.jsonl", "array.json")),
        stage("inspect-shards", "runs", "inspect shards --verify --sheet s.png", "shards/index.json shards/shard-000000.json shards/shard-000000.tar", printed, "proven"),
        stage("evaluate-shards", "runs", f"evaluate run --shards shards {EVALUATE}", "shards/index.json shards/shard-000000.json shards/shard-000000.tar", results("out.json")),
        stage("evaluate-run", "runs", f"evaluate run --shards shards {EVALUATE}", f"{step}/model.safetensors {step}/open_clip_config.json {step}/state.json run/config.json", results("out.json")),
        stage("evaluate-plain", "runs", f"evaluate plain --shards shards {EVALUATE}", "plain/model.safetensors plain/open_clip_config.json", results("out.json")),
        stage("evaluate-cached", "cached", f"evaluate run --shards shards --cache cache {EVALUATE}", " ".join(cache), results("out.json")),
        stage("train", "runs", f"{TRAIN} --deepspeed_config ds2.json --run new --steps 1", "ds2.json", losses),
        stage("train-shards", "runs", f"{TRAIN} --deepspeed_config ds.json --run new --steps 1", "shards/shard-000000.tar", losses),
        stage("train-similar", "runs", f"{TRAIN} --deepspeed_config ds.json --run new --steps 1 --similar near.safetensors --nearest 2", "near.safetensors", losses),
        stage("train-config", "runs", "train --config run/config.json --run new --steps 1", "run/config.json", losses),
        stage("train-resume", "runs", f"{TRAIN} --deepspeed_config ds.json --run run --resume --steps 3", f"{step}/model.safetensors {step}/optimizer.safetensors {step}/state.json run/config.json run/log.jsonl", nothing),
        stage("grid", "runs", "grid grid.json", "grid.json", nothing),
        stage("compare", "results", "compare a.json b.json", "a.json a.items.jsonl", printed),
        stage("report", "results", "report run sweep --out r.html", "run/config.json run/log.jsonl run/results/val.json run/results/val.items.jsonl sweep/coefficient-1.json", nothing),
        *(stage(f"evaluate-{name}", "benchmarks", f"evaluate run --data {name}=data/{name}{'/' + files if name.startswith('flickr') else ''} {f'--images {source}=img' if source else ''} --allow-missing {EVALUATE}",
                " ".join(f"data/{name}/{file}" for file in files.split()), results("out.json"), "tag secondary_tag collapsed_tag")
          for name, (source, files) in BENCHMARKS.items()),
        stage("evaluate-suite", "benchmarks", f"evaluate run --data zero-shot=data/suite --allow-missing {EVALUATE}", " ".join(f"data/suite/{file}" for file in SUITE.split()), results("out.json")),
        stage("evaluate-image", "benchmarks", f"evaluate run --data sugarcrepe=data/sugarcrepe --images coco2017=img --allow-missing {EVALUATE}", "img/1.jpg", results("out.json")),
        stage("answer", "llava", "answer llava --dataset vqav2 --questions q.json --images img --out new --max_new_tokens 4", "q.json img/COCO_val2014_000000000000.jpg llava/config.json llava/preprocessor_config.json llava/tokenizer.json llava/tokenizer_config.json llava/generation_config.json llava/model.safetensors", content("new/answers.jsonl")),
        stage("answer-journal", "llava", "answer llava --dataset vqav2 --questions q.json --images img --out made --max_new_tokens 4", "made/parts/00000.jsonl", content("made/answers.jsonl")),
        stage("score-vqa", "llava", "score --dataset vqav2 --annotations ann.json --questions q.json --answers answers.jsonl --out out.json", "ann.json q.json answers.jsonl", results("out.json"), "data_subtype question_type answer_type prompt model_id metadata margin"),
        stage("score-server", "llava", "score --dataset vqav2 --annotations ann.json --answers server.json --out out.json", "server.json", results("out.json")),
        stage("score-text", "llava", "score --dataset textvqa --annotations text.json --answers server.json --out out.json", "text.json", results("out.json")),
        stage("score-gqa", "llava", "score --dataset gqa --annotations gqa.json --choices choices.json --answers gqa.answers.jsonl --out out.json", "gqa.json choices.json", results("out.json"), "entailed"),
        stage("score-vizwiz", "llava", "score --dataset vizwiz --annotations vizwiz.json --answers gqa.answers.jsonl --out out.json", "vizwiz.json", results("out.json")),
        stage("score-mmvp", "llava", "score --dataset mmvp-vqa --annotations mmvp.csv --answers gqa.answers.jsonl --out out.json", "mmvp.csv", results("out.json")),
        stage("score-vsr", "llava", "score --dataset vsr-vqa --annotations vsr.jsonl --answers vsr.answers.jsonl --out out.json", "vsr.jsonl", results("out.json")),
        stage("export-into", "llava", "export run --into llava --out out", "llava/config.json llava/model.safetensors", nothing),
        stage("export-into-own", "llava", "export run --into own --out out", "own/config.json own/pytorch_model.bin.index.json own/pytorch_model-00002-of-00002.bin tower/config.json", nothing),
    ]  # fmt: skip
    return found


def stage(
    name: str, folder: str, command: str, damaged: str, made: Made, optional: str = ""
) -> Stage:
    share = 0.3 if name.startswith(("train", "report")) else 1.0
    status = (
        2 if name.startswith("export-into") else 0
    )  # its tower has another width, which is checked last
    fields = frozenset(optional.split())
    return Stage(name, folder, command.split(), damaged.split(), made, fields, share, status)


def damages_of(path: Path, optional: frozenset[str]) -> list[Damage]:
    """Those that fit a file."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".json", ".jsonl", ".csv", ".tsv", ".txt")):
        found = [*OF_ANY, *OF_TEXT]
        import gzip

        text = path.read_bytes()
        text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
        if name.endswith((".json", ".jsonl")):
            return found + of_json(text, name.endswith(".jsonl"), optional)
        rows = of_table(text, free=name.endswith(".txt"))
        if "food-101" in path.parts:  # a list of images with a line less is a list of images
            rows = [r._replace(strict=False) if r.name.startswith(LINES_LESS) else r for r in rows]
        return found + rows
    if name.endswith(".safetensors"):
        return OF_ANY * 2 + of_safetensors()
    if name.endswith(".sqlite"):
        return OF_ANY * 2 + of_sqlite()
    if name.endswith(".tar"):
        return OF_ANY * 2 + of_tar()
    found = OF_ANY + (of_image() if name.endswith((".jpg", ".png")) else [])
    if "zero-shot" in path.parts:  # a folder with an image less is a folder of images
        found = [one._replace(strict=one.strict and one.name != "gone") for one in found]
    return found
