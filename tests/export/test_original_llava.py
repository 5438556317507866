"""Towers into folders of LLaVA's own layout, opened as LLaVA's code opens them."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hnc_ds.cli import main
from hnc_ds.config import AnswerConfig, ExportConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.encoder import load_named_model
from hnc_ds.export.export import export
from hnc_ds.export.tower import as_seen, open_clip_states, probe_images, vision_weights
from hnc_ds.llava.answer import answer
from hnc_ds.shards.images import ImageSettings
from tests.export.conftest import VIEW
from tests.export.original import INSIDE, Tensors, save_original

Make = Callable[..., Path]


def state_of(folder: Path) -> Tensors:
    found: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    for path in sorted(folder.glob("pytorch_model*.bin")):
        found |= torch.load(path, weights_only=True)
    return found


@pytest.fixture
def original(tmp_path: Path) -> Make:
    """Makes a folder in LLaVA's own layout, with the tower in its weights or beside it."""

    def make(kind: str = "bin", inside: bool = False, **changed: Any) -> Path:
        folder = tmp_path / "llava-v1.5-tiny"
        save_original(folder, tmp_path / "clip-vit-tiny", kind, inside, **changed)
        return folder

    return make


def features_of(clip_folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [B, 3, R, R], and open_clip's states [B, N, D] before the last block."""
    clip = load_named_model(str(clip_folder)).model.eval()
    pixels = as_seen(probe_images(VIEW, None), VIEW)
    return pixels, open_clip_states(clip, pixels)[-2]


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("inside", [False, True])
def test_llavas_loader_gets_the_tower_and_nothing_else_changes(
    clip_folder: Make,
    original: Make,
    tmp_path: Path,
    kind: str,
    inside: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, llava, out = clip_folder(), original(kind, inside), tmp_path / "llava-first"
    words = ["hnc-ds", "export", str(source), "--into", str(llava), "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    tower = out / "clip-vision-tower"
    config = json.loads((llava / "config.json").read_text())
    written = json.loads((out / "config.json").read_text())
    assert written == config | {"mm_vision_tower": str(tower)}
    assert list(written) == list(config)
    replaced = {"config.json"} | ({f"{end_of(kind)}"} if inside else set())
    assert {path.name for path in out.iterdir()} == {p.name for p in llava.iterdir()} | {tower.name}
    for path in llava.iterdir():
        if path.name not in replaced:
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    before, after = state_of(llava), state_of(out)
    new = vision_weights(load_named_model(str(source)).model)[0]
    assert list(before) == list(after)
    for name, tensor in before.items():
        own = new.get(name.removeprefix(INSIDE)) if name.startswith(INSIDE) else None
        expected = tensor if own is None else own.half()
        assert after[name].dtype == expected.dtype
        assert torch.equal(after[name].view(torch.uint8), expected.view(torch.uint8)), name
    pixels, ours = features_of(source)
    model = transformers.CLIPVisionModel.from_pretrained(written["mm_vision_tower"]).eval()
    with torch.inference_mode():
        seen = model(pixels, output_hidden_states=True).hidden_states[-2]
    assert torch.allclose(seen, ours, atol=1e-4 * float(ours.abs().max()))
    # LLaVA's transformers 4.37 knows these names alone.
    names = load_file(tower / "model.safetensors").keys()
    assert names == {f"vision_model.{name}" for name in new}
    printed = capsys.readouterr().out
    held = "55 tensors of it replaced in the weight files"
    held = held if inside else "the weight files hold no tower"
    assert f"{out}: the tower is in clip-vision-tower (gelu, 32 px); {held}; all else" in printed
    assert f"mm_vision_tower in config.json is {tower}: an absolute path, so set it" in printed
    assert "cosine with the old ones" in printed
    assert "'hnc-ds answer' takes LLaVA-1.5 in Hugging Face's layout alone" in printed
    assert "warning" not in printed


def end_of(kind: str) -> str:
    stem = "model" if kind == "safetensors" else "pytorch_model"
    return f"{stem}-00002-of-00002.{kind}"


def test_one_file_without_an_index_is_patched_as_well(
    clip_folder: Make, original: Make, tmp_path: Path
) -> None:
    llava, out = original("bin", inside=True), tmp_path / "llava-out"
    state = state_of(llava)
    for path in llava.glob("pytorch_model*"):
        path.unlink()
    torch.save(state, llava / "pytorch_model.bin")
    export(ExportConfig(model=str(clip_folder()), into=llava, out=out))
    after = state_of(out)
    kept = {n for n in state if not n.startswith(INSIDE)}
    assert all(torch.equal(state[n], after[n]) for n in kept)
    name = f"{INSIDE}encoder.layers.1.self_attn.q_proj.weight"
    tower = load_file(out / "clip-vision-tower" / "model.safetensors")
    assert torch.equal(after[name], tower[f"vision_model.{name.removeprefix(INSIDE)}"].half())


def test_the_towers_image_processor_is_the_models_preprocessing_of_squares(
    clip_folder: Make, original: Make, tmp_path: Path
) -> None:
    source, out = clip_folder(), tmp_path / "llava-out"
    path = source / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"] |= {"mean": [0.5, 0.4, 0.3], "resize_mode": "squash"}
    path.write_text(json.dumps(config))
    export(ExportConfig(model=str(source), into=original(), out=out))
    tower = out / "clip-vision-tower"
    processor = transformers.CLIPImageProcessor.from_pretrained(tower)
    assert processor.size["shortest_edge"] == processor.crop_size["height"] == 32
    view = ImageSettings(size=32, mean=(0.5, 0.4, 0.3), std=VIEW.std)
    images = probe_images(view, None)
    found = processor(list(images), return_tensors="pt")["pixel_values"]
    assert torch.allclose(found, as_seen(images, view), atol=1e-5)


def test_a_name_on_the_hub_is_found_in_the_cache(
    clip_folder: Make,
    original: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    llava = original(mm_vision_tower="laion/clip-vit-tiny")
    given = ExportConfig(model=str(clip_folder()), into=llava, out=tmp_path / "llava-out")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match=r"neither a folder nor in .*'hf download laion/clip-vit-t"):
        export(given)
    stored = tmp_path / "hub" / "models--laion--clip-vit-tiny"
    shutil.copytree(tmp_path / "clip-vit-tiny", stored / "snapshots" / "abc")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("abc")
    export(given)
    assert "cosine with the old ones" in capsys.readouterr().out
    (stored / "snapshots" / "abc" / "model.safetensors").unlink()
    export(ExportConfig(model=given.model, into=llava, out=tmp_path / "llava-two"))
    assert "the old tower's weights are not on this machine, so" in capsys.readouterr().out


@pytest.mark.slow
def test_an_exported_folder_takes_another_tower(
    clip_folder: Make, original: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = clip_folder("one"), clip_folder("two", seed=1)
    once, twice = tmp_path / "llava-once", tmp_path / "llava-twice"
    export(ExportConfig(model=str(first), into=original("bin", True), out=once))
    capsys.readouterr()
    export(ExportConfig(model=str(second), into=once, out=twice))
    assert "moved by 0.0%" not in capsys.readouterr().out
    export(ExportConfig(model=str(second), into=twice, out=tmp_path / "same"))
    printed = capsys.readouterr().out
    assert (
        "warning: LLaVA's own code goes by the folder's name, which must contain llava" in printed
    )
    model = transformers.CLIPVisionModel.from_pretrained(twice / "clip-vision-tower").eval()
    pixels, ours = features_of(second)
    with torch.inference_mode():
        seen = model(pixels, output_hidden_states=True).hidden_states[-2]
    assert torch.allclose(seen, ours, atol=1e-4 * float(ours.abs().max()))


def test_a_tower_of_another_image_size_gets_llavas(
    clip_folder: Make, original: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "llava-out"
    export(ExportConfig(model=str(clip_folder(image_size=16)), into=original(), out=out))
    model = transformers.CLIPVisionModel.from_pretrained(out / "clip-vision-tower")
    processor = transformers.CLIPImageProcessor.from_pretrained(out / "clip-vision-tower")
    assert model.config.image_size == processor.crop_size["height"] == 32
    assert "warning: the tower was trained at 16 pixels and sees 32 here" in capsys.readouterr().out


def test_a_tower_of_another_shape_or_activation_is_refused(
    clip_folder: Make, original: Make, tmp_path: Path, unfit: tuple[dict[str, Any], str]
) -> None:
    tower, message = unfit
    with pytest.raises(UserError, match=f"does not fit into .*{message}"):
        export(ExportConfig(model=str(clip_folder(**tower)), into=original(), out=tmp_path / "o"))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_hidden_size": 1024},
            "does not fit into .*hidden_size 32 in place of 1024.* 3 in place of 24.* quick_gelu",
        ),
        ({"mm_hidden_size": 64}, r"mm_hidden_size is 64, but .*clip-vit-tiny has width 32; copy"),
        ({"mm_hidden_size": 96, "s2": True}, "s2 is set, a tower at several scales"),
        ({"mm_vision_select_layer": -5}, "mm_vision_select_layer is -5, but .* has 3 layers"),
        ({"mm_vision_tower": None}, "mm_vision_tower is null, not a tower's name or folder"),
        ({"mm_vision_tower": "/no/such/folder"}, "/no/such/folder is neither a folder nor in"),
        ({"architectures": ["LlavaMptForCausalLM"]}, "is .'LlavaMptForCausalLM'., no "),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    clip_folder: Make,
    original: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    llava = original(**changed)
    with pytest.raises(UserError, match=message):
        export(ExportConfig(model=str(clip_folder()), into=llava, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


class RunsCode:
    def __reduce__(self) -> Any:
        return (eval, ("1 / 0",))


def _with_code(llava: Path) -> None:
    torch.save({"model.norm.weight": RunsCode()}, llava / end_of("bin"), pickle_module=pickle)


def _other_things(llava: Path) -> None:
    torch.save({"model.norm.weight": torch.ones(2), "step": 3}, llava / end_of("bin"))


def _cut_off(llava: Path) -> None:
    path = llava / end_of("bin")
    path.write_bytes(path.read_bytes()[:-100])


def _without_a_file(llava: Path) -> None:
    (llava / end_of("bin")).unlink()


def _lora(llava: Path) -> None:
    for path in llava.glob("pytorch_model*"):
        path.unlink()


def _less_in_the_weights(llava: Path) -> None:
    state = torch.load(llava / end_of("bin"), weights_only=True)
    del state[f"{INSIDE}encoder.layers.1.mlp.fc1.weight"]
    torch.save(state, llava / end_of("bin"))


def _another_kind_of_tower(llava: Path) -> None:
    path = llava.parent / "clip-vit-tiny" / "config.json"
    path.write_text(path.read_text().replace("clip_vision_model", "siglip_vision_model"))


def _fewer_old_weights(llava: Path) -> None:
    path = llava.parent / "clip-vit-tiny" / "model.safetensors"
    state = load_file(path)
    del state["encoder.layers.1.mlp.fc1.weight"]
    save_file(state, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "inside", "message"),
    [
        (_with_code, True, "00002.bin: holds objects of eval beside its weights"),
        (_other_things, True, "00002.bin: holds other things than tensors by name"),
        (_cut_off, True, "00002.bin: is truncated or broken"),
        (_without_a_file, False, "pytorch_model-00002-of-00002.bin are missing"),
        (_lora, False, r"its pytorch_model\*.bin are missing"),
        (_less_in_the_weights, True, "tower lacks encoder.layers.1.mlp.fc1.weight"),
        (_another_kind_of_tower, False, "a tower of kind siglip_vision_model, which is not CLIP's"),
        (_fewer_old_weights, False, "its weights lack encoder.layers.1.mlp.fc1.weight"),
    ],
)
def test_a_damaged_folder_is_refused_before_anything_is_written(
    clip_folder: Make,
    original: Make,
    tmp_path: Path,
    damage: Callable[[Path], None],
    inside: bool,
    message: str,
) -> None:
    llava = original("bin", inside)
    damage(llava)
    with pytest.raises(UserError, match=message) as refused:
        export(ExportConfig(model=str(clip_folder()), into=llava, out=tmp_path / "out"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_answer_refuses_llavas_own_layout(original: Make, tmp_path: Path) -> None:
    llava = original()
    given: dict[str, Any] = {"dataset": "vqav2", "questions": llava, "images": llava, "check": True}
    with pytest.raises(UserError, match=r"LlavaLlamaForCausalLM.*no LlavaForConditionalGeneration"):
        answer(AnswerConfig(model=llava, **given))
