"""Sound files of every kind that a stage reads, as small as they can be, in folders by stage."""

import csv
import gzip
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow
from pyarrow import ipc, parquet

from tests.captions.rewrite.fake_server import MODEL
from tests.damage.harness import run

IDS = ("t000000", "t000001", "t000002", "t000003")
BOX = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 20, "bbox_h": 20}
DEEPSPEED = {
    "train_batch_size": 2,
    "optimizer": {"type": "AdamW", "params": {"lr": 0.001, "betas": [0.9, 0.98], "torch_adam": True}},
    "scheduler": {
        "type": "WarmupCosineLR",
        "params": {"total_num_steps": "auto", "warmup_num_steps": 1, "warmup_type": "linear"},
    },
    "gradient_clipping": 1.0,
    "zero_optimization": {"stage": 1},
}  # fmt: skip


def make(folder: Path, endpoint: str) -> None:
    """Make the world: everything that commands make is made by them, in forked children.

    Args:
        folder: To make; ``endpoint.txt`` in it names the server.
        endpoint: Address of a fake server of a language model.
    """
    base = folder / "base"
    base.mkdir(parents=True)
    must(
        base,
        "scenes --out . --train 4 --val 1 --size 32 --objects 2 3 --duplicate_shapes 0 --workers 1",
    )
    shutil.copy(base / "train_sceneGraphs.json", base / "sg.json")
    must(base, "generate --scene-graphs sg.json --out c.jsonl --per-image 3 --workers 1 "
               "--hnc-json hnc.json")  # fmt: skip
    must(base, "tables --scene-graphs sg.json --out t.json")
    must(base, "pack --captions c.jsonl --images images --out shards --workers 1")
    (base / "ds.json").write_text(json.dumps(DEEPSPEED))
    must(base, "train --deepspeed_config ds.json --shards shards --run run --steps 2 --log-every 1 "
               "--hard-negatives 1")  # fmt: skip
    must(base, "mine run --shards shards --out near.safetensors --k 2 --workers 1")
    must(base, "evaluate run --shards shards --out run/results/val.json --workers 1")
    must(base, "evaluate run --shards shards --out a.json --cache cache --workers 1")
    _graphs(folder / "graphs", base)
    _captions(folder / "captions", base)
    _archives(folder / "archives", base)
    _rewrite(folder, base, endpoint)
    _lists(folder / "lists")
    _models(folder, base)
    _results(folder / "results", base)
    _benchmarks(folder / "benchmarks", base)
    _llava(folder / "llava", base)


def must(folder: Path, command: str) -> None:
    """Run what has to succeed."""
    ended = run(folder, command.split())
    assert ended.status == 0, f"{command}: {ended.said}"


def _copy(base: Path, folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        if (base / name).is_dir():
            shutil.copytree(base / name, folder / name)
        else:
            shutil.copy(base / name, folder / name)


def _put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def _lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _graphs(folder: Path, base: Path) -> None:
    _copy(base, folder, ["t.json"])
    graphs = json.loads((base / "sg.json").read_bytes())
    _put(folder / "sg.json", dict(list(graphs.items())[:3]))
    zipped = gzip.compress((folder / "sg.json").read_bytes(), mtime=0)
    (folder / "sg.json.gz").write_bytes(zipped)


def _captions(folder: Path, base: Path) -> None:
    _copy(base, folder, ["images", "c.jsonl", "hnc.json"])
    zipped = gzip.compress((folder / "c.jsonl").read_bytes(), mtime=0)
    (folder / "c.jsonl.gz").write_bytes(zipped)
    for line in (folder / "c.jsonl").read_bytes().splitlines()[:1]:
        groups = json.loads(line)["groups"]
    said = []
    for group in groups[:2]:
        for negative in group["negatives"][:1]:
            true = {"caption": group["positive"], "label": 1, "type": negative["type"]}
            false = {"caption": negative["caption"], "label": 0, "type": negative["type"]}
            said += [{**true, "replaced": None}, {**false, "replaced": None}]
    _put(
        folder / "human.json",
        {f"{i}.jpg": {str(n): s for n, s in enumerate(said)} for i in IDS[:2]},
    )


def _archives(folder: Path, base: Path) -> None:
    """Images with captions in a tar of img2dataset's layout, and in tables of Hugging Face's."""
    folder.mkdir()
    images = {i: (base / f"images/{i}.jpg").read_bytes() for i in IDS}
    with tarfile.open(folder / "wds.tar", "w") as tar:
        for image_id, content in images.items():
            found = {"caption": "A red star.", "status": "success"}
            _add(tar, f"{image_id}.jpg", content)
            _add(tar, f"{image_id}.txt", b"A red star.")
            _add(tar, f"{image_id}.json", json.dumps(found).encode())
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    cells = [{"bytes": content, "path": "image.jpg"} for content in images.values()]
    columns = {"image": pyarrow.array(cells, struct), "caption": ["A red star."] * len(cells)}
    rows = pyarrow.table(columns)
    parquet.write_table(rows, folder / "rows.parquet")
    with ipc.new_stream(folder / "rows.arrow", rows.schema) as file:
        file.write_table(rows)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _rewrite(folder: Path, base: Path, endpoint: str) -> None:
    (folder / "endpoint.txt").write_text(endpoint)
    _copy(base, folder / "rewrite", ["c.jsonl", "sg.json"])
    made = folder / "rewrite"
    for out, part in (("m.jsonl", ""), ("n.jsonl", "--part 1/2")):
        must(made, f"rewrite --captions c.jsonl --scene-graphs sg.json --out {out} "
                   f"--model {MODEL} --endpoint {endpoint} {part}")  # fmt: skip
    (made / "m.answers.sqlite").rename(made / "known.sqlite")
    (made / "n.answers.part-1.sqlite").rename(made / "jobs.part-1.sqlite")
    shutil.rmtree(made / "n.jsonl.parts")
    for name in ("m.jsonl", "m.stats.json"):
        (made / name).unlink()


def _lists(folder: Path) -> None:
    texts = ["A red dog sits on a big table.", "Two cats and a small bird run."]
    rows = [(f"{i}.jpg", text) for i in IDS[:3] for text in texts]
    images = [{"id": n, "file_name": f"{i}.jpg", "license": 1} for n, i in enumerate(IDS[:3])]
    said = [
        {"image_id": n, "id": 10 * n + k, "caption": text}
        for n in range(3)
        for k, text in enumerate(texts)
    ]
    _put(folder / "coco.json", {"info": {"year": 2014}, "images": images, "annotations": said})
    sentences = [{"raw": text, "tokens": text.split()} for text in texts]
    karpathy = [{"filename": f"{i}.jpg", "split": "train", "sentences": sentences} for i in IDS[:3]]
    _put(folder / "karpathy.json", {"images": karpathy, "dataset": "coco"})
    for name, mark in (("list.csv", ","), ("list.tsv", "\t")):
        made = io.StringIO()
        writer = csv.writer(made, delimiter=mark, lineterminator="\n")
        writer.writerows([("filepath", "title"), *rows])
        _put(folder / name, made.getvalue())
    objects = [{"image": image, "caption": text} for image, text in rows]
    _put(folder / "list.jsonl", _lines(*objects))
    _put(folder / "array.json", objects)


def _models(folder: Path, base: Path) -> None:
    _copy(base, folder / "runs", ["run", "shards", "ds.json", "near.safetensors"])
    shutil.rmtree(folder / "runs/run/results")
    shutil.copy(folder / "runs/ds.json", folder / "runs/ds2.json")
    # Of the open_clip layout alone.
    checkpoint = next((base / "run/checkpoints").iterdir())
    _copy(checkpoint, folder / "runs/plain", ["model.safetensors", "open_clip_config.json"])
    _put(folder / "runs/grid.json", {"alpha": [0.5, 1.0], "seed": [0, 1], "steps": 3})
    _copy(base, folder / "cached", ["run", "shards", "cache"])


def _results(folder: Path, base: Path) -> None:
    _copy(base, folder, ["run"])
    shutil.rmtree(folder / "run/checkpoints")
    for name in ("a", "b"):
        for suffix in (".json", ".items.jsonl"):
            content = (base / f"a{suffix}").read_bytes()
            (folder / f"{name}{suffix}").write_bytes(
                content.replace(b'"run"', f'"{name}"'.encode())
            )
    (folder / "sweep").mkdir()
    for share in ("0", "1"):
        shutil.copy(base / "a.json", folder / f"sweep/coefficient-{share}.json")
    shutil.copytree(base / "shards", folder / "shards")


def _benchmarks(folder: Path, base: Path) -> None:
    _copy(base, folder, ["run"])
    shutil.rmtree(folder / "run/results")
    images = folder / "img"
    images.mkdir()
    jpegs = [base / "images" / f"{i}.jpg" for i in IDS]
    names = ["1.jpg", "2.jpg", "3.jpg", "000000000785.jpg", "State/1.jpg", "State/2.jpg",
             "controlled_images/bottle_left_of_chair.jpeg", "controlled_images/bottle_right_of_chair.jpeg",
             "ex_0_img_0.png", "ex_0_img_1.png", "COCO_val2014_1.jpg", "COCO_val2014_2.jpg"]  # fmt: skip
    for number, name in enumerate(names):
        (images / name).parent.mkdir(exist_ok=True)
        shutil.copy(jpegs[number % len(jpegs)], images / name)
    data = folder / "data"
    pair = {"filename": "1.jpg", "caption": "a red dog", "negative_caption": "a blue dog"}
    other = pair | {"filename": "2.jpg"}
    _put(data / "sugarcrepe/swap_obj.json", {"0": pair, "1": other, "4": pair})
    plus = {
        "id": 2,
        "filename": "1.jpg",
        "caption": "a dog",
        "caption2": "one dog",
        "negative_caption": "a cat",
    }
    _put(data / "sugarcrepe++/swap_obj.json", [plus, plus | {"id": 3, "filename": "2.jpg"}])
    aro = {
        "image_path": "1.jpg",
        "true_caption": "a dog on a mat",
        "false_caption": "a mat on a dog",
        **BOX,
    }
    _put(data / "aro-relation/visual_genome_relation.json",
         [aro | {"relation_name": "on"}, aro | {"relation_name": "in", "image_path": "2.jpg"}])  # fmt: skip
    _put(data / "aro-attribution/visual_genome_attribution.json",
         [aro | {"attributes": ["red", "old"]}, aro | {"attributes": ["big", "new"]}])  # fmt: skip
    _put(data / "aro-order/order.json",
         [{"image_path": f"val2014/COCO_val2014_{n}.jpg", "caption_options": ["a b c", "c b a"]} for n in (1, 2)])  # fmt: skip
    wino = {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "a dog sees a cat",
            "caption_1": "a cat sees a dog", "tag": "Noun", "secondary_tag": "", "collapsed_tag": "Object"}  # fmt: skip
    _put(data / "winoground/examples.jsonl", _lines(wino, wino | {"id": 1}, wino | {"id": 2}))
    valse = {
        "dataset": "coco_2017",
        "image_file": "1.jpg",
        "caption": "a dog",
        "foil": "a cat",
        "mturk": {"caption": 3},
    }
    _put(data / "valse/existence.json", {"a": valse, "b": valse | {"image_file": "2.jpg"}})
    said = {"type": "relation", "replaced": None}
    two = {
        "0": said | {"caption": "a dog", "label": 1},
        "1": said | {"caption": "a cat", "label": 0},
    }
    _put(data / "hnc-test/hnc_clean_strict_test.json", {"1.jpg": two, "2.jpg": two})
    row = {"image": "1.jpg", "caption": "The cat is on the mat.", "relation": "on", "label": 1}
    rows = [row, row | {"label": 0, "caption": "The mat is on the cat."}, row | {"image": "2.jpg"}]
    _put(data / "vsr/test.jsonl", _lines(*rows))
    _put(data / "vsr/dev.jsonl", _lines(*rows))
    controlled = [
        {"image_path": f"data/controlled_images/bottle_{side}_of_chair.jpeg",
         "caption_options": [f"a bottle {side}", "a bottle on", "a bottle under", "a bottle behind"]}
        for side in ("left", "right")
    ]  # fmt: skip
    _put(data / "whatsup/controlled_images_dataset.json", controlled)
    _put(
        data / "whatsup/coco_qa_one_obj.json",
        [[785, "a dog on the left", "a dog on the right"]] * 2,
    )
    address = "https://x.org/vg/{}.jpg"
    _put(data / "cola/COLA_multiobjects_matching_benchmark.json",
         [[address.format(a), "a dog", address.format(b), "a cat"] for a, b in ((1, 2), (2, 3))])  # fmt: skip
    _put(
        data / "mmvp/Questions.csv",
        "Question ID,Type,Statement\n1,State,an open door\n2,State,a shut door\n",
    )
    _put(data / "coco-retrieval/coco_karpathy_test.json",
         [{"image": f"val2014/{n}.jpg", "caption": [f"a dog {n}", f"one dog {n}"]} for n in (1, 2, 3)])  # fmt: skip
    _put(data / "flickr30k-retrieval/flickr30k_test.txt",
         "image,caption\n" + "".join(f"{n}.jpg,a dog {n}\n{n}.jpg,one dog {n}\n" for n in (1, 2, 3)))  # fmt: skip
    shots = data / "zero-shot"
    _put(shots / "classnames.json", {"dog": "a dog", "cat": "a cat"})
    _put(shots / "templates.json", ["a photo of {c}", "{c}"])
    for number, name in enumerate(("dog/1.jpg", "dog/2.jpg", "cat/1.jpg", "cat/2.jpg")):
        (shots / name).parent.mkdir(exist_ok=True)
        shutil.copy(jpegs[number], shots / name)
    _parquet(data / "bivlc/test.parquet", jpegs)
    _choices(data)
    _suite(data / "suite", jpegs)


def _choices(data: Path) -> None:
    rows = [{"image0": f"{a}.jpg", "image1": f"{b}.jpg", "caption0": "a dog", "caption1": "a cat"} for a, b in ((1, 2), (2, 3))]  # fmt: skip
    _put(data / "eqben/all_select.json", rows)
    box, negatives = "x,y,width,height", "\"['a cat', 'a bird']\""
    _put(data / "crepe-productivity/atom/prod_vg_hard_negs_atom_complexity_4.csv",
         f"image_id,caption,hard_negs,{box}\n1,a dog,{negatives},0,0,9,9\n2,a fox,{negatives},1,1,9,9\n")  # fmt: skip
    columns = ",".join(f"valid_hard_negs_{kind}" for kind in ("atom", "comp", "combined"))
    cells = ",".join([negatives] * 3)
    _put(data / "crepe-systematicity/syst_vg_hard_negs_seen_compounds_in_cc12m.csv",
         f"image_id,caption,{columns},{box}\n1,a dog,{cells},0,0,9,9\n2,a fox,{cells},1,1,9,9\n")  # fmt: skip
    captions = ",".join(f"caption_{n}" for n in range(4))
    _put(data / "negbench/COCO_val_mcq_llama3.1_rephrased.csv",
         f"correct_answer,{captions},correct_answer_template,image_path\n0,a,b,c,d,hybrid,x/1.jpg\n0,e,f,g,h,positive,x/2.jpg\n")  # fmt: skip
    _put(data / "svo/svo_probes.csv",
         "sentence,pos_image_id,neg_image_id,subj_neg,verb_neg,obj_neg\nA dog sits.,1,2,False,True,False\nA cat sits.,2,3,True,False,False\n")  # fmt: skip


def _suite(suite: Path, jpegs: Sequence[Path]) -> None:
    pixels = bytes(n % 251 for n in range(3072))
    _put(suite / "cifar-10-batches-bin/test_batch.bin", b"\3" + pixels + b"\7" + pixels[::-1])
    array = np.frombuffer(pixels * 2, np.uint8).reshape(2, -1)
    content = {"data": array, "fine_labels": [0, 99], "filenames": ["a.png", "b.png"]}
    _put(suite / "cifar-100-python/test", pickle.dumps(content, 2))
    _put(suite / "food-101/meta/test.txt", "apple_pie/1\nwaffles/2\n")
    for name, jpeg in zip(("apple_pie/1", "waffles/2"), jpegs, strict=False):
        path = suite / f"food-101/images/{name}.jpg"
        path.parent.mkdir(parents=True)
        shutil.copy(jpeg, path)
    _put(suite / "stl10_binary/test_X.bin", bytes(n % 251 for n in range(2 * 3 * 96 * 96)))
    _put(suite / "stl10_binary/test_y.bin", b"\1\12")
    _put(suite / "wds/classnames.txt", "a dog\na cat\n")
    _put(suite / "wds/zeroshot_classification_templates.txt", "a photo of {c}\n{c}\n")
    _put(suite / "wds/test/nshards.txt", "1\n")
    with tarfile.open(suite / "wds/test/0.tar", "w") as tar:
        for number, jpeg in enumerate(jpegs[:2]):
            for kind, data in (("jpg", jpeg.read_bytes()), ("cls", str(number).encode())):
                member = tarfile.TarInfo(f"s{number}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _parquet(path: Path, jpegs: Sequence[Path]) -> None:
    import pyarrow
    import pyarrow.parquet

    images = [{"bytes": jpeg.read_bytes(), "path": jpeg.name} for jpeg in jpegs]
    path.parent.mkdir(parents=True)
    table = {"caption": ["a dog", "a cat"], "negative_caption": ["a cat", "a dog"],
             "type": ["swap", "add"], "subtype": ["obj", "att"], "image": images[:2],
             "negative_image": images[2:]}  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def _llava(folder: Path, base: Path) -> None:
    from tests.export.original import save_original
    from tests.llava.tiny_llava import save_llava

    folder.mkdir()
    save_llava(folder / "llava", seed=0)
    save_original(folder / "own", folder / "tower", inside=True, mm_vision_tower="tower")
    (folder / "img").mkdir()
    for number, i in enumerate(IDS[:2]):
        shutil.copy(base / "images" / f"{i}.jpg", folder / f"img/COCO_val2014_{number:012d}.jpg")
    rows = [{"question_id": n, "image_id": n % 2, "question": "what colour?"} for n in range(3)]
    _put(folder / "q.json", {"data_subtype": "val2014", "questions": rows})
    said = [
        {"question_id": row["question_id"], "image_id": row["image_id"], "question_type": "what",
         "answer_type": "other", "answers": [{"answer": "red", "answer_id": k} for k in range(10)]}
        for row in rows
    ]  # fmt: skip
    _put(folder / "ann.json", {"data_subtype": "val2014", "annotations": said})
    texts = [{"question_id": n, "image_id": f"i{n}", "question": "what word?", "answers": ["stop"] * 10}
             for n in range(3)]  # fmt: skip
    _put(folder / "text.json", {"data": texts})
    must(
        folder,
        "answer llava --dataset vqav2 --questions q.json --images img --out made --max_new_tokens 4",
    )
    shutil.copy(folder / "made/answers.jsonl", folder / "answers.jsonl")
    (folder / "made/answers.jsonl").unlink()
    given = [{"question_id": n, "answer": "red"} for n in range(3)]
    _put(folder / "server.json", given)
    _other_questions(folder)
    shutil.copytree(base / "run", folder / "run")
    shutil.rmtree(folder / "run/results")


def _other_questions(folder: Path) -> None:
    """Questions and choices of GQA, VizWiz-VQA, MMVP and VSR, and answers to them."""
    types = {"structural": "query", "semantic": "attr", "detailed": "x"}
    steps = [{"operation": "query", "argument": "color", "dependencies": []}]
    gqa = {
        n: {"imageId": "n1", "question": "what colour?", "answer": "red", "isBalanced": True,
            "types": types, "semantic": steps, "entailed": ["0", "1"]}
        for n in "01"
    }  # fmt: skip
    _put(folder / "gqa.json", gqa)
    _put(folder / "choices.json", {n: {"valid": ["red"], "plausible": ["red"]} for n in "01"})
    people = [{"answer": "red"} for _ in range(10)]
    vizwiz = [{"image": n, "question": "what?", "answers": people} for n in "01"]
    _put(folder / "vizwiz.json", vizwiz)
    _put(
        folder / "mmvp.csv",
        "Index,Question,Options,Correct Answer\n"
        + "".join(f"{n},what?,(a) red (b) blue,(a)\n" for n in (0, 1)),
    )
    statement = {"image": "1.jpg", "caption": "a on b", "label": 1, "relation": "on"}
    _put(folder / "vsr.jsonl", _lines(statement, statement))
    for name, before in (("gqa", ""), ("vsr", "vsr/")):
        said = [{"question_id": f"{before}{n}", "text": "red"} for n in (0, 1)]
        _put(folder / f"{name}.answers.jsonl", _lines(*said))


def encoded(value: Any) -> bytes:
    """For comparing."""
    return msgspec.json.encode(value)
