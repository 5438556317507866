"""The other scripts: arrays, LLaVA, sweeps, the whole pipeline; and where there is no SLURM."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hnc_ds.captions.captions_file import CHUNK_IMAGES, PART_CHUNKS
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import BIN, ROOT, Project, losses, user

FEW = ["--log_every", "1", "--steps"]


def hnc_ds(folder: Path, *words: object) -> None:
    """Run a command here, as one process."""
    command = [str(BIN / "hnc-ds"), *map(str, words)]
    subprocess.run(command, cwd=folder, env=user(), check=True, capture_output=True, timeout=300)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def complete(cluster: Cluster, project: Project, *words: object) -> None:
    """A job or array whose elements must all end well."""
    job = project.finish(cluster, *words)
    assert cluster.state(job.number) == "COMPLETED", _all(project.folder / "slurm" / "logs")


def test_the_scripts_are_clean() -> None:
    shellcheck = shutil.which("shellcheck", path=user()["PATH"])
    assert shellcheck, "shellcheck is not installed; it comes with the extra dev"
    scripts = sorted((ROOT / "slurm").glob("*.sh"))
    assert len(scripts) > 10
    done = subprocess.run(
        [shellcheck, "--external-sources", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_an_array_makes_the_captions_and_shards_of_a_single_run(
    cluster: Cluster, project: Project, scene_shards: Path
) -> None:
    scenes = scene_shards.parent
    graphs = list(json.loads((scenes / "train_sceneGraphs.json").read_text()).values())
    images = 2 * CHUNK_IMAGES * PART_CHUNKS + 5  # three files of parts
    many = {f"g{number}": graphs[number % len(graphs)] for number in range(images)}
    (project.folder / "graphs.json").write_text(json.dumps(many))
    few = ["--scene-graphs", "graphs.json", "--per-image", 2, "--types", "relation_pred"]
    hnc_ds(project.folder, "generate", *few, "--out", "whole/c.jsonl.gz")
    words = ["--array=0-2", "slurm/generate.sh", *few, "--out", "shared/c.jsonl.gz"]
    complete(cluster, project, *words)
    assert contents(project.folder / "shared") == contents(project.folder / "whole")

    packed = ["--captions", scenes / "train.captions.jsonl.gz", "--images", scenes / "images"]
    packed += ["--samples-per-shard", 20]
    hnc_ds(project.folder, "pack", *packed, "--out", "one")
    complete(cluster, project, "--array=3-7:2", "slurm/pack.sh", *packed, "--out", "several")
    assert contents(project.folder / "several") == contents(project.folder / "one")
    assert len(list((project.folder / "one").glob("*.tar"))) == 5


@pytest.fixture
def asked(questions: Path, images: Path, tmp_path: Path) -> list[object]:
    """Flags of questions to LLaVA; and annotations.json, the answers of annotators."""
    rows = json.loads(questions.read_text())["questions"]
    people = [{"answer": "yes", "answer_id": n + 1} for n in range(10)]
    message = [
        {
            "question_id": row["question_id"],
            "image_id": row["image_id"],
            "question_type": "what is",
            "answer_type": "other",
            "answers": people,
            "multiple_choice_answer": "yes",
        }
        for row in rows
    ]
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": message}))
    return [
        "--dataset",
        "vqav2",
        "--questions",
        questions,
        "--images",
        images,
        "--max_new_tokens",
        8,
    ]


def test_llava_answers_the_same_on_two_nodes_and_as_an_array(
    cluster: Cluster, project: Project, llava_folder: Path, asked: list[object]
) -> None:
    def script(name: str) -> list[object]:
        scored = ["--annotations", "annotations.json", "--results", f"{name}/results.json"]
        out = ["--out", f"{name}/answers", "--batch", 4]
        return ["--gres=gpu:1", "slurm/llava_infer.sh", llava_folder, *asked, *out, *scored]

    complete(cluster, project, "--nodes=2", *script("nodes"))
    complete(cluster, project, "--array=0-1", *script("array"))
    nodes, array = (project.folder / name for name in ("nodes", "array"))
    assert len(list((nodes / "answers" / "parts").iterdir())) == 2
    assert len(list((array / "answers" / "parts").iterdir())) == 2
    answers = (nodes / "answers" / "answers.jsonl").read_bytes()
    assert answers.count(b"\n") == 33
    assert answers == (array / "answers" / "answers.jsonl").read_bytes()
    scores = [(folder / "results.json").read_bytes() for folder in (nodes, array)]
    assert scores[0] == scores[1]


LLAVA = """
import sys
from pathlib import Path
from hnc_ds.config import ModelConfig
from hnc_ds.llava.tiny_model import make_llava, make_tokenizer, save_llava
from hnc_ds.model.load import load_model
clip = load_model(ModelConfig(), 0)
words = make_tokenizer(["what is the colour of the thing"])
model = make_llava(clip.config["model_cfg"], words, width=32, layers=1, heads=4, seed=0)
save_llava(Path(sys.argv[1]), model, words, clip.image_settings)
"""


def settings(project: Project, scenes: Path, train: str, more: str = "") -> Path:
    """Of a pipeline on the rendered scenes."""
    path = project.folder / "first.sh"
    path.write_text(
        f"""OUT=runs/first
GRAPHS_train={scenes}/train_sceneGraphs.json GRAPHS_val={scenes}/val_sceneGraphs.json
IMAGES={scenes}/images
GENERATE=() PACK=(--samples-per-shard 20) ARRAY=(--array=0-1)
START=local-dir:start
TRAIN=({train})
EVALUATE=() GPUS=(--gres=gpu:2)
LLAVA='' ASK=() ANNOTATIONS=''
{more}"""
    )
    return path


def last_of_pipeline(cluster: Cluster, project: Project, file: Path) -> str:
    """Submit all stages, and wait for the last line of the job that reports how they ended."""
    environment = user(SLURM_CONF=cluster.environment["SLURM_CONF"])
    words = ["bash", "slurm/pipeline.sh", str(file)]
    subprocess.run(words, cwd=project.folder, env=environment, check=True, timeout=60)
    logs = project.folder / "slurm" / "logs"
    cluster.wait_until(lambda: any(logs.glob("end-*.out")), "the pipeline", 400)
    (end,) = logs.glob("end-*.out")
    cluster.wait_until(lambda: "pipeline:" in end.read_text(), "its end", 60)
    return end.read_text().splitlines()[-1]


@pytest.fixture
def start(project: Project, scene_shards: Path) -> Path:
    """A model to begin with: start/, as open_clip opens it."""
    flags = ["--deepspeed_config", "cpu32.json", "--shards", scene_shards / "train"]
    hnc_ds(project.folder, "train", *flags, "--run", "runs/before", *FEW, 1)
    (checkpoint,) = (project.folder / "runs" / "before" / "checkpoints").iterdir()
    return checkpoint.rename(project.folder / "start")


def test_the_pipeline_goes_from_scene_graphs_to_a_page(
    cluster: Cluster, project: Project, scene_shards: Path, start: Path, asked: list[object]
) -> None:
    llava = [sys.executable, "-c", LLAVA, str(project.folder / "llava")]
    subprocess.run(llava, env=user(), check=True, capture_output=True, timeout=120)
    train = "--model local-dir:start --deepspeed_config cpu32.json " + " ".join(FEW) + " 4"
    words = " ".join(map(str, asked))
    more = f"LLAVA=llava ASK=({words}) ANNOTATIONS=annotations.json"
    file = settings(project, scene_shards.parent, train, more)
    logs = project.folder / "slurm" / "logs"
    assert last_of_pipeline(cluster, project, file) == "pipeline: all is done", _all(logs)
    out = project.folder / "runs" / "first"
    assert len(losses(out / "run")) == 4
    page = (out / "report.html").read_text()
    assert "2 runs" in "".join(path.read_text() for path in logs.glob("report-*.out"))
    assert "vqa_official" in page
    assert json.loads((out / "llava-compared.json").read_bytes())


def test_a_stage_that_fails_ends_those_that_need_it(
    cluster: Cluster, project: Project, scene_shards: Path, start: Path
) -> None:
    file = settings(project, scene_shards.parent, "--deepspeed_config cpu33 --steps 2")
    message = last_of_pipeline(cluster, project, file)
    logs = project.folder / "slurm" / "logs"
    assert message.startswith("pipeline: train failed: rank 0 on hncnode"), _all(logs)
    assert "no DeepSpeed config at cpu33" in message
    assert message.endswith("not run: evaluate report")
    assert not (project.folder / "runs" / "first" / "report.html").exists()


def _all(logs: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(logs.glob("*.out")))


def test_a_sweep_trains_every_combination_and_makes_one_page(
    cluster: Cluster, project: Project, scene_shards: Path
) -> None:
    grid = {"preset": "hnc", "alpha": [0, 2], "lr": 1e-4}
    (project.folder / "grid.json").write_text(json.dumps(grid))
    flags = ["--deepspeed_config", "cpu32.json", "--shards", scene_shards / "train", *FEW, 2]
    words = ["slurm/sweep.sh", "grid.json", "--val", scene_shards / "val", "--out", "sweep", *flags]
    complete(cluster, project, "--array=0-1", "--gres=gpu:1", *words)
    runs = [project.folder / "sweep" / f"alpha={alpha}" for alpha in (0, 2)]
    message = [json.loads((run / "config.json").read_text()) for run in runs]
    assert [one["settings"]["loss"]["alpha"] for one in message] == [0, 2]
    rates = [one["deepspeed"]["optimizer"]["params"]["lr"] for one in message]
    assert rates == [1e-4, 1e-4]
    page = (project.folder / "sweep" / "report.html").read_text()
    assert "alpha=0" in page
    assert "alpha=2" in page


def test_scripts_run_with_bash_where_there_is_no_slurm(
    project: Project, scene_shards: Path
) -> None:
    flags = ["--deepspeed_config", "cpu32.json", "--shards", scene_shards / "train"]
    words = [*flags, "--run", "runs/here", *FEW, 2]
    trained = project.bash("slurm/train.sh", *words, TASKS="2")
    assert trained.returncode == 0, trained.stderr
    assert "2 ranks" in trained.stdout
    assert len(losses(project.folder / "runs" / "here")) == 2
    wrong = project.bash("slurm/train.sh", *words, "--steps", "x")
    assert wrong.returncode == 2
    graphs = scene_shards.parent / "train_sceneGraphs.json"
    made = project.bash("slurm/generate.sh", "--scene-graphs", graphs, "--out", "c.jsonl")
    assert made.returncode == 0, made.stderr
    assert (project.folder / "c.jsonl").is_file()
    bare = project.bash("slurm/sweep.sh", "grid.json")
    assert bare.returncode == 2
    assert "no --val" in bare.stderr
