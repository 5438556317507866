"""From a trained tower to a page: every stage in turn, as a user calls them."""

import json
import re
from pathlib import Path

import pytest
import torch

from hnc_ds.config import (
    AnswerConfig,
    CompareConfig,
    ExportConfig,
    ModelConfig,
    ReportConfig,
    ScenesConfig,
    ScoreConfig,
)
from hnc_ds.export.export import export
from hnc_ds.interpolation import save_interpolated
from hnc_ds.llava.answer import answer
from hnc_ds.llava.score import score
from hnc_ds.llava.tiny import write_questions
from hnc_ds.llava.tiny_model import make_llava, make_tokenizer, save_llava
from hnc_ds.model.load import load_model
from hnc_ds.report.compare import compare_models
from hnc_ds.report.page import report
from hnc_ds.scenes.write import write_scenes


def tower(folder: Path, seed: int) -> Path:
    """A checkpoint folder of the tiny model with random weights."""
    clip = load_model(ModelConfig(), seed=seed)
    state = {name: tensor.detach() for name, tensor in clip.state_by_open_clip_name().items()}
    save_interpolated(folder, state, clip.config, {})
    return folder


@pytest.mark.slow
def test_two_towers_in_one_llava_are_answered_scored_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look = {
        "patterned": 0.0,
        "duplicate_shapes": 0.0,
        "overlaps": 0.0,
        "objects": (2, 2),
        "size": 64,
    }
    write_scenes(ScenesConfig(out=tmp_path / "scenes", train=0, val=12, workers=1, **look))
    made = tmp_path / "made"
    write_questions(tmp_path / "scenes", "val", made, per_image=3, seed=0)
    clip = load_model(ModelConfig(), seed=0)
    words = make_tokenizer(["what is above the star"])
    shape = {"width": 32, "layers": 1, "heads": 2, "seed": 1}
    model = make_llava(clip.config["model_cfg"], words, **shape)
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # so that images matter
    save_llava(tmp_path / "empty", model, words, clip.image_settings)
    results = []
    for number in (1, 2):
        folder, out = tmp_path / f"llava-{number}", tmp_path / "answers" / str(number)
        source = tower(tmp_path / f"tower-{number}", seed=number)
        export(ExportConfig(model=str(source), into=tmp_path / "empty", out=folder))
        asked = {"questions": made / "vqa.val.questions.json", "images": made / "images"}
        answer(AnswerConfig(model=folder, dataset="vqav2", out=out, max_new_tokens=4, **asked))
        results.append(tmp_path / "results" / f"{number}.json")
        annotations = made / "vqa.val.annotations.json"
        file = out / "answers.jsonl"
        score(
            ScoreConfig(
                dataset="vqav2", annotations=annotations, answers=file, out=results[-1], **asked
            )
        )
    compare_models(CompareConfig(first=results[0], second=results[1]))
    message = capsys.readouterr().out
    assert message.count("same hidden states as the model's own") == 2
    assert "vqa_official, answer type: yes/no" in message
    page = tmp_path / "page.html"
    report(ReportConfig(runs=tuple(results), out=page))
    title = re.search(r"<title>(.*?)</title>", page.read_text())
    assert title is not None
    assert title[1].startswith("llava-1, llava-2")
    texts = [
        [json.loads(line)["text"] for line in path.read_text().splitlines()]
        for path in (tmp_path / "answers" / n / "answers.jsonl" for n in "12")
    ]
    assert texts[0] != texts[1]  # another tower, other answers
