"""experiments/align_connector.py trains the connector alone, and align_miniature.py compares."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from experiments import align_connector, align_miniature
from experiments.align_connector import MicroBatches, Settings, run
from hnc_ds import cli
from hnc_ds.config import ModelConfig, ScenesConfig
from hnc_ds.errors import UserError
from hnc_ds.llava import tiny
from hnc_ds.llava.model import Llava, load_llava
from hnc_ds.llava.tiny import LLAVA_PLAIN, write_questions
from hnc_ds.llava.tiny_model import (
    loss_after_image,
    make_llava,
    make_tokenizer,
    save_llava,
    tower_features,
)
from hnc_ds.model.llava_prompt import prompt
from hnc_ds.model.load import load_model
from hnc_ds.scenes.write import write_scenes
from hnc_ds.shards.reader import ShardReader

CONNECTOR = {
    f"multi_modal_projector.linear_{n}.{kind}" for n in "12" for kind in ("weight", "bias")
}


@pytest.fixture
def settings(llava_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Ten images of three colours in the layout of LLaVA's JSON."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(10):
        colour = ("red", "blue", "lime")[number % 3]
        Image.new("RGB", (32 + number, 24), colour).save(tmp_path / f"images/{number}.png")
        turns = [("human", "What colour is it?\n<image>"), ("gpt", f"{colour} thing")]
        talk = [{"from": who, "value": text} for who, text in turns]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": talk})
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    return {
        "model": llava_folder,
        "captions": tmp_path / "captions.json",
        "images": tmp_path / "images",
        "out": tmp_path / "aligned",
        "steps": 12,
        "batch": 8,
        "lr": 1e-2,
        "save_every": 4,
    }


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("prompt_kind", ["plain", "vicuna"])
def test_the_connector_alone_changes_and_the_loss_falls(
    settings: dict[str, Any],
    llava_folder: Path,
    capsys: pytest.CaptureFixture[str],
    prompt_kind: Any,
) -> None:
    run(Settings(**settings, prompt=prompt_kind))
    before, after = tensors(llava_folder), tensors(settings["out"])
    assert {n for n, tensor in before.items() if not torch.equal(tensor, after[n])} == CONNECTOR
    assert list(before) == list(after)
    for file in llava_folder.iterdir():
        if file.suffix != ".safetensors":
            assert (settings["out"] / file.name).read_bytes() == file.read_bytes()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    losses = [float(line.rpartition(" ")[2]) for line in printed]
    assert [line.split(":")[0] for line in printed] == ["step 4", "step 8", "step 12"]
    assert losses[0] > losses[1] > losses[2]
    run(Settings(**settings, prompt=prompt_kind))
    assert "is there; remove it to train anew" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_training_resumes_to_the_same_bits(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Settings(**settings))
    calls = 0

    def stopped(*given: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 2 * 9 + 1:
            raise KeyboardInterrupt
        return loss_after_image(*given)

    # Two micro-batches of four are one of eight, to rounding; so both runs have them.
    halves = settings | {"micro_batches": 2}
    run(Settings(**(halves | {"out": tmp_path / "whole"})))
    again = Settings(**(halves | {"out": tmp_path / "again"}))
    with monkeypatch.context() as patched:
        patched.setattr(align_connector, "loss_after_image", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(again)
    assert not again.out.exists()
    run(again)
    one, whole, found = (tensors(p) for p in (settings["out"], tmp_path / "whole", again.out))
    for name in CONNECTOR:
        assert torch.equal(whole[name], found[name])
        assert torch.allclose(one[name], whole[name], atol=1e-3)


@pytest.fixture
def llava(llava_folder: Path) -> Llava:
    return load_llava(llava_folder, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("prompt_kind", ["plain", "vicuna"])
def test_the_loss_is_that_of_transformers(
    settings: dict[str, Any], llava: Llava, llava_folder: Path, prompt_kind: Any
) -> None:
    """Of each row by itself; the mean is over tokens."""
    data = MicroBatches(Settings(**settings, prompt=prompt_kind), llava, 0)
    batch = data[0]
    assert not isinstance(batch, UserError)
    rows = json.loads(settings["captions"].read_text())
    words = transformers.AutoTokenizer.from_pretrained(llava_folder)
    total, count = 0.0, 0
    for pixels, before, after, target in batch:
        caption = words.decode(target)
        ends = caption.endswith("\n" if prompt_kind == "plain" else "</s>")
        assert ends
        assert any(row["conversations"][1]["value"] in caption for row in rows)
        text = words.decode([*before, *after], skip_special_tokens=True)
        asked = prompt("What colour is it?").replace("<image>", "")
        assert text == ("" if prompt_kind == "plain" else asked)
        ids = [*before, *[llava.model.config.image_token_index] * 16, *after, *target]
        labels = [-100] * (len(ids) - len(target)) + target
        with torch.no_grad():
            found = llava.model(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids)),
                pixel_values=pixels[None],
                labels=torch.tensor([labels]),
            )
        total, count = total + float(found.loss) * len(target), count + len(target)
    pixels, before, after, targets = zip(*batch, strict=True)
    with torch.no_grad():
        seen = tower_features(llava.model, torch.stack(pixels))
        image = llava.model.model.multi_modal_projector(seen)
        ours = loss_after_image(llava.model, before[0], image, after, targets)
    assert float(ours) == pytest.approx(total / count, rel=1e-5)


def test_captions_of_shards_follow_their_images(
    settings: dict[str, Any], llava: Llava, scene_shards: Path
) -> None:
    shards = next(path for path in sorted(scene_shards.iterdir()) if path.is_dir())
    given = settings | {"captions": shards, "images": None, "batch": 4}
    batch = MicroBatches(Settings(**given), llava, 0)[0]
    assert not isinstance(batch, UserError)
    reader = ShardReader(shards)
    known = {group.positive for n in range(len(reader)) for group in reader.sample(n).groups}
    for _, _, after, target in batch:
        assert after == []
        assert llava.tokenizer.decode(target).removesuffix("\n") in known


def test_any_number_of_ranks_and_any_start_see_the_same_order(
    settings: dict[str, Any], llava: Llava
) -> None:
    """Two epochs and more: 10 images, 4 of them a step."""

    def targets(ranks: int, start: int) -> list[list[list[int]]]:
        found = []
        for own in range(ranks):
            data = MicroBatches(Settings(**(settings | {"batch": 4, "steps": 6})), llava, start)
            data._place, data._rows = (own, ranks), 4 // ranks
            parts = [data[n] for n in range(len(data))]
            found.append([[row[3] for row in part] for part in parts])  # type: ignore[union-attr]
        return [[row for own in step for row in own] for step in zip(*found, strict=True)]

    whole = targets(1, 0)
    assert targets(2, 0) == whole
    assert targets(4, 2) == whole[2:]
    first_epoch = [row for step in whole for row in step][:10]
    assert len(first_epoch) == 10
    assert sorted(map(len, first_epoch)) == sorted(
        len(llava.tokenizer(f"{c} thing\n", add_special_tokens=False)["input_ids"])
        for c in [*("red", "blue", "lime") * 3, "red"]
    )


def test_what_cannot_be_trained_on_is_reported_in_a_line(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="name the folder of its images"):
        run(Settings(**(settings | {"images": None})))
    for number in range(10):
        (settings["images"] / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"\.png: .*; copy it again, or leave it out$"):
        run(Settings(**settings))
    settings["captions"].write_text('[{"image": "0.png"}]')
    with pytest.raises(UserError, match="not in the layout of LLaVA's JSON"):
        run(Settings(**settings))
    assert not settings["out"].exists()


@pytest.mark.slow
def test_four_llavas_are_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["hnc-ds", *arguments.split()])
        assert cli.main() == 0

    monkeypatch.setattr(tiny, "hnc_ds", in_this_process)
    look: dict[str, Any] = {"patterned": 0.0, "duplicate_shapes": 0.0, "overlaps": 0.0}
    look |= {"objects": (2, 2), "size": 64, "workers": 1}
    write_scenes(ScenesConfig(out=tmp_path / "scenes", train=6, val=6, **look))
    for split in ("train", "val"):
        write_questions(
            tmp_path / "scenes", split, tmp_path / "scenes/questions", per_image=2, seed=0
        )
    clip = load_model(ModelConfig(), seed=0)
    words = make_tokenizer(["what is above the star"])
    for seed, name in enumerate((LLAVA_PLAIN, align_miniature.SWAPPED)):
        shape = {"width": 32, "layers": 1, "heads": 2, "seed": seed}
        model = make_llava(clip.config["model_cfg"], words, **shape)
        save_llava(tmp_path / "demo" / name, model, words, clip.image_settings)
    given = {"demo": tmp_path / "demo", "scenes": tmp_path / "scenes"}
    align_miniature.run(align_miniature.Settings(**given, steps=2, batch=4))
    table = capsys.readouterr().out
    assert "| plain tower | plain tower, re-aligned | swapped | swapped, re-aligned |" in table
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| vqav2, vqa_official",
        "| textvqa, m4c",
        "| textvqa-ocr, m4c",
    ]
    shutil.rmtree(tmp_path / "demo" / LLAVA_PLAIN)
    with pytest.raises(UserError, match="is missing; run 'hnc-ds demo-llava' first"):
        align_miniature.run(align_miniature.Settings(**given))
