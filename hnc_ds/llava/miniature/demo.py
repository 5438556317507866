"""The experiment with LLaVA in little, on rendered scenes: does another tower answer better?

    hnc-ds demo-llava

A little CLIP is trained, and from it another with hard negatives. A little LLaVA is taught with the
first one's tower; then the second one's is put in, connector and language model as they are. Both
answer questions about held-out scenes and words drawn on them. Stages that are done are not done
again.
"""

import json
from pathlib import Path

import torch

from hnc_ds.checkpoint import load_trained, newest_checkpoint
from hnc_ds.commands import hnc_ds, train_unless_done
from hnc_ds.config import DemoLlavaConfig
from hnc_ds.errors import counted
from hnc_ds.llava.miniature.model import make_llava, make_tokenizer, save_llava
from hnc_ds.llava.miniature.questions import write_questions
from hnc_ds.llava.miniature.train import Course, Lesson, teach
from hnc_ds.llava.model import load_llava
from hnc_ds.llava.questions import read_vqa_questions
from hnc_ds.whole_files import whole_folder, write_whole

SCENES = "--size 64 --objects 2 2 --shapes 6 --colours 8 --patterned 0 --namesakes 0 --overlaps 0"
CAPTIONS = "--types relation_attr_pred swap --by-colour 1"
NEGATIVES = "--hard_negatives 4 --negative_types swap 1 relation_attr_pred 1 --crop 1"

PLAIN, TRAINED = "plain-clip", "hard-negatives"
TAUGHT = "llava-plain-clip"
"""The folder whose connector and language model both towers answer through."""

SETS = {
    "vqav2": ("vqav2", "vqa.val.questions.json", "images", "", "vqa.val.annotations.json"),
    "textvqa": ("textvqa", "text.val.json", "text_images", "", "text.val.json"),
    "textvqa-ocr": (
        "textvqa",
        "text.val.json",
        "text_images",
        "--ocr {made}/text.val.ocr.json",
        "text.val.json",
    ),
}
"""What is asked: data set, questions, pictures, flags, annotations."""


def demo_llava(config: DemoLlavaConfig) -> None:
    """Run every stage and print what came out.

    Raises:
        UserError: A stage failed; its own line stands above.
    """
    made = config.scenes / "questions"
    _prepare(config, made)
    plain, trained = config.out / PLAIN, config.out / TRAINED
    _train(config, plain, config.steps, "--alpha 0")
    start = f"--model local-dir:{newest_checkpoint(plain).resolve()} --alpha {config.alpha:g}"
    _train(config, trained, config.more_steps, start)
    taught, swapped = config.out / TAUGHT, config.out / f"llava-{TRAINED}"
    if not taught.is_dir():
        _teach(config, made, plain, taught)
    if not swapped.is_dir():
        hnc_ds(f"export {trained} --into {taught} --out {swapped}")
    for folder in (taught, swapped):
        for name in SETS:
            _measure(config, made, folder, name)
    for name in SETS:
        hnc_ds(f"compare {_results(config, taught, name)} {_results(config, swapped, name)}")
    page = config.out / "report.html"
    folders = " ".join(str(_results(config, f, "vqav2").parent) for f in (taught, swapped))
    hnc_ds(f"report {folders} --out {page}")


def _prepare(config: DemoLlavaConfig, made: Path) -> None:
    data = config.scenes
    sizes = f"--train {config.train} --val {config.val} --seed {config.seed}"
    hnc_ds(f"scenes --out {data} {sizes} {SCENES}")
    captions = data / "train.captions.jsonl.gz"
    if not captions.is_file():
        graphs = data / "train_sceneGraphs.json"
        hnc_ds(f"generate --scene-graphs {graphs} --out {captions} --seed {config.seed} {CAPTIONS}")
    hnc_ds(f"pack --captions {captions} --images {data / 'images'} --out {data / 'shards/train'}")
    done = made / "complete"
    if not done.is_file():
        print(f"\n# questions about the scenes, and words drawn on them: {made}", flush=True)
        for split in ("train", "val"):
            write_questions(data, split, made, most=config.questions, seed=config.seed)
        write_whole(done)


def _train(config: DemoLlavaConfig, folder: Path, steps: int, objective: str) -> None:
    flags = f"--shards {config.scenes / 'shards/train'} --seed {config.seed} {objective}"
    train_unless_done(folder, steps, config.ranks, f"{flags} {NEGATIVES}")


def _teach(config: DemoLlavaConfig, made: Path, tower: Path, out: Path) -> None:
    """Make a little LLaVA around the tower of a run, and teach it the training questions."""
    print(f"\n# {out}: a little LLaVA, taught for {counted(config.lessons, 'step')}", flush=True)
    lessons = _lessons(made)
    tokenizer = make_tokenizer(f"{one.question.text} {one.answer}" for one in lessons)
    clip = load_trained(tower, torch.device("cpu"))
    shape = {"width": config.width, "layers": config.layers, "heads": 4}
    model = make_llava(clip.config["model_cfg"], tokenizer, **shape, seed=config.seed)
    empty, full = out.with_name(f"{out.name}.empty"), out.with_name(f"{out.name}.untaught")
    save_llava(empty, model, tokenizer, clip.image_settings)
    hnc_ds(f"export {tower} --into {empty} --out {full} --overwrite")
    llava = load_llava(full, torch.float32, torch.device("cpu"))
    course = Course(config.lessons, batch=32, rate=1e-3, seed=config.seed)
    losses = teach(llava, lessons, course)
    print(f"loss {losses[0]:.2f} at first, {sum(losses[-20:]) / 20:.2f} at last", flush=True)
    with whole_folder(out) as folder:
        save_llava(folder, llava.model, tokenizer, clip.image_settings)


def _lessons(made: Path) -> list[Lesson]:
    """All questions of the training scenes: of VQA v2.0's kind, and of words with and without
    what was read."""
    rows = json.loads((made / "vqa.train.annotations.json").read_bytes())["annotations"]
    answers = {row["question_id"]: row["multiple_choice_answer"] for row in rows}
    asked = read_vqa_questions("vqav2", made / "vqa.train.questions.json").asked
    found = [Lesson(q, made / "images", answers[q.question_id]) for q in asked]
    texts = json.loads((made / "text.train.json").read_bytes())["data"]
    words = {row["question_id"]: _most_common(row["answers"]) for row in texts}
    for ocr in (None, made / "text.train.ocr.json"):
        asked = read_vqa_questions("textvqa", made / "text.train.json", ocr).asked
        found += [Lesson(q, made / "text_images", words[q.question_id]) for q in asked]
    return found


def _most_common(answers: list[str]) -> str:
    return max(sorted(set(answers)), key=answers.count)


def _measure(config: DemoLlavaConfig, made: Path, folder: Path, name: str) -> None:
    """Ask a model one set of questions, and score its answers."""
    dataset, questions, pictures, flags, annotations = SETS[name]
    answers = config.out / "answers" / folder.name / name
    hnc_ds(
        f"answer {folder} --dataset {dataset} --questions {made / questions} "
        f"--images {made / pictures} --out {answers} --longest 8 {flags.format(made=made)}"
    )
    told = f"--questions {made / questions} " if dataset == "vqav2" else ""
    hnc_ds(
        f"score --dataset {dataset} {told}--annotations {made / annotations} "
        f"--answers {answers / 'answers.jsonl'} --images {made / pictures} "
        f"--out {_results(config, folder, name)}"
    )


def _results(config: DemoLlavaConfig, folder: Path, name: str) -> Path:
    return config.out / "results" / folder.name / f"{name}.json"
