"""Weights from files: what a file does not hold is decided by evidence, and every kind opens safely
or is refused with the real reason."""

import argparse
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.model.evidence import KEYS, decide, of_file, published
from hnc_ds.model.load import load_model
from hnc_ds.model.weights_file import read_weights

CLIPS = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
BY_NAME = [
    # what a name means, whatever open_clip's tables hold
    ("PE-Core", {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}),
    ("PE-Core", {"resize_mode": "squash", "quick_gelu": False}),
    ("SigLIP", {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}),
    ("CLIPA", {"mean": (0.485, 0.456, 0.406), "interpolation": "bilinear"}),
    ("MobileCLIP-", {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"}),
    ("RN", {**CLIPS, "quick_gelu": True}),
    ("-quickgelu", {"quick_gelu": True}),
    ("convnext", {**CLIPS, "quick_gelu": False, "resize_mode": "shortest"}),
]


def effective(model: str, tag: str) -> dict[str, Any]:
    """What open_clip computes with published weights, by its own tables."""
    config, said = open_clip.get_model_config(model), open_clip.get_pretrained_cfg(model, tag)
    plain = open_clip.transform.PreprocessCfg()
    view = {key: said.get(key) or getattr(plain, key) for key in KEYS[1:]}
    return {"quick_gelu": bool(config.get("quick_gelu") or said.get("quick_gelu")), **view}


@pytest.mark.parametrize("model", open_clip.list_models())
def test_a_bare_file_of_any_architecture_is_resolved_as_all_its_tags_or_refused(
    model: str, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pt"
    tags = open_clip.list_pretrained_tags_by_model(model)
    wanted = [effective(model, tag) for tag in tags]
    evidence = of_file(model, file, None, {})
    if any(one != wanted[0] for one in wanted):
        with pytest.raises(UserError, match=f"{file}:{tags[0]}"):
            decide(model, str(file), evidence)
    elif wanted:
        settings = decide(model, str(file), evidence).settings
        assert settings == wanted[0]
        assert all(
            settings[key] == value
            for part, known in BY_NAME
            for key, value in known.items()
            if part in model
        )
    for tag, one in zip(tags, wanted, strict=True):
        assert decide(model, str(file), of_file(model, file, tag, {})).settings == one


def test_what_was_silently_wrong_is_resolved_or_refused(tmp_path: Path) -> None:
    def message(model: str, **given: Any) -> str:
        try:
            return decide(model, "f.pt", of_file(model, tmp_path / "f.pt", None, given)).message
        except UserError as error:
            return f"refused: {error}"

    assert "refused" in message("ViT-B-32")
    assert "refused" in message("ViT-L-14")
    assert "mean" in message("ViT-L-14")  # of laion2b_s32b_b82k it is another
    assert "resize_mode" in message("ViT-H-14-quickgelu")
    assert "quick_gelu True (as given)" in message("ViT-B-32", quick_gelu=True)
    assert "quick_gelu True" in message("ViT-B-32-quickgelu")
    assert "interpolation bilinear" in message("PE-Core-T-16-384")
    assert "ViT-L-14-worldwide-quickgelu" in message("ViT-L-14-worldwide")  # neither has tags
    assert "open_clip's default" in message("tiny")


def test_a_configuration_beside_the_file_decides_where_it_is_of_that_architecture(
    tmp_path: Path,
) -> None:
    model = {**open_clip.get_model_config("ViT-B-32"), "quick_gelu": True}
    view = {"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"}
    said = {"model_cfg": model, "preprocess_cfg": view}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    found = decide("ViT-B-32", "f", of_file("ViT-B-32", tmp_path / "f.pt", None, {}))
    assert found.settings == {
        **{"quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": CLIPS["std"]},
        **{"interpolation": "bicubic", "resize_mode": "squash"},
    }
    with pytest.raises(UserError, match="ViT-B-16"):
        decide("ViT-B-16", "f", of_file("ViT-B-16", tmp_path / "f.pt", None, {}))


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_hugging_faces_configuration_beside_the_file_decides(act: str, tmp_path: Path) -> None:
    vision = {"hidden_size": 768, "patch_size": 32, "hidden_act": act}
    config = {"model_type": "clip", "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    view = {"image_mean": [0.5] * 3, "resample": 2, "do_center_crop": False, "size": {"height": 9}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(view))
    settings = decide("ViT-B-32", "f", of_file("ViT-B-32", tmp_path / "f.pt", None, {})).settings
    assert settings["quick_gelu"] == (act == "quick_gelu")
    assert settings["mean"] == (0.5,) * 3
    assert (settings["interpolation"], settings["resize_mode"]) == ("bilinear", "squash")


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return load_model(ModelConfig(), seed=5).eval()


def loaded(file: Path | str, **given: Any) -> Clip:
    return load_model(ModelConfig(pretrained=str(file), **given), seed=0).eval()


def assert_same(one: Clip, other: Clip) -> None:
    for name, tensor in one.state_by_open_clip_name().items():
        assert torch.equal(other.state_by_open_clip_name()[name].reshape(tensor.shape), tensor), (
            name
        )


KINDS: dict[str, Any] = {
    "plain.pt": lambda state: state,
    "epoch_5.pt": lambda state: {
        "epoch": 5,
        "best": np.float64(0.5),
        "rate": np.float32(0.5),
        "args": argparse.Namespace(lr=1e-5),
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
    },
    "compiled.bin": lambda state: {
        "model": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}
    },
}


@pytest.mark.parametrize("name", [*KINDS, "model.safetensors"])
def test_weights_open_as_people_have_them(
    name: str, tiny: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, file = tiny.state_by_open_clip_name(), tmp_path / name
    if name in KINDS:
        torch.save(KINDS[name](state), file)
    else:
        save_file(state, file)
    assert_same(tiny, loaded(file))
    assert f"tiny of {file}: quick_gelu False" in capsys.readouterr().out


class Archive(torch.nn.Module):
    """As OpenAI's: half precision, a scalar temperature, numbers and a mask beside the weights."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            *above, last = name.split(".")
            part: torch.nn.Module = self
            for key in above:
                if not hasattr(part, key):
                    part.add_module(key, torch.nn.Module())
                part = getattr(part, key)
            part.register_parameter(last, torch.nn.Parameter(tensor.half().squeeze()))
        self.register_buffer("input_resolution", torch.tensor(32))
        self.attn_mask = torch.ones(2, 2)
        self.sizes: dict[str, int] = {"patch": 8}
        self.names: list[str] = ["a"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.logit_scale * self.sizes["patch"] * len(self.names)


@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_an_archive_of_torchscript_gives_its_tensors_and_runs_nothing(
    tiny: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tiny.state_by_open_clip_name()
    module = Archive(state)
    torch.jit.script(module).save(str(tmp_path / "ViT.pt"))
    monkeypatch.setattr(torch.jit, "load", None)
    found = read_weights(tmp_path / "ViT.pt")
    expected = {n: t for n, t in module.state_dict().items() if n != "input_resolution"}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    opened = loaded(tmp_path / "ViT.pt").state_by_open_clip_name()
    for name, tensor in state.items():
        assert opened[name].dtype == torch.float32
        assert torch.equal(opened[name], tensor.half().float())
    evidence = of_file("ViT-B-32", tmp_path / "ViT.pt", "openai", {})
    assert decide("ViT-B-32", "ViT.pt", evidence).settings["quick_gelu"]


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("archive", [False, True], ids=["torch.save", "TorchScript"])
def test_what_would_run_code_is_refused_by_its_name(archive: bool, tmp_path: Path) -> None:
    file, marker = tmp_path / "weights.pt", tmp_path / "ran"
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Attack(marker)}, file)
    if archive:
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("w/constants.pkl", b"")
            made.writestr("w/data.pkl", pickle.dumps(Attack(marker), 2))
    with pytest.raises(UserError, match=r"weights.pt: .*object.* of [\w.]*eval"):
        loaded(file)
    assert not marker.exists()


def test_what_is_no_model_is_refused_with_the_reason(tiny: Clip, tmp_path: Path) -> None:
    def reason(name: str, content: Any) -> str:
        (torch.save if name.endswith(".pt") else save_file)(content, tmp_path / name)
        with pytest.raises(UserError) as caught:
            loaded(tmp_path / name)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    state = tiny.state_by_open_clip_name()
    assert "holds no weights" in reason("empty.pt", {"epoch": 3})
    assert "holds no weights" in reason("list.pt", [1, 2])
    fewer = {name: tensor for name, tensor in state.items() if name != "visual.proj"}
    assert "tensors are missing (visual.proj)" in reason("fewer.pt", fewer)
    assert "1 are unknown (extra)" in reason("more.pt", {**state, "extra": torch.ones(1)})
    bigger = {**state, "ln_final.weight": torch.ones(7)}
    assert "ln_final.weight is [7] in the file and [64] in the model" in reason("o.pt", bigger)
    siglip = {"vision_model.head.probe": torch.ones(1), "text_model.head.weight": torch.ones(1)}
    assert "other than CLIPModel" in reason("siglip.safetensors", siglip)
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="web page"):
        loaded(tmp_path / "page.pt")
    (tmp_path / "noise.pt").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="no file of weights"):
        loaded(tmp_path / "noise.pt")


def test_flags_and_tags_supply_what_a_file_does_not_hold(tiny: Clip, tmp_path: Path) -> None:
    torch.save(tiny.state_by_open_clip_name(), tmp_path / "weights.pt")
    view = {"image_mean": (0.1, 0.2, 0.3), "image_resize_mode": "squash"}
    clip = loaded(tmp_path / "weights.pt", force_quick_gelu=True, **view)
    assert clip.image_settings.mean == (0.1, 0.2, 0.3)
    assert clip.image_settings.resize_mode == "squash"
    assert clip.config["model_cfg"]["quick_gelu"] is True
    quick = [m for m in clip.modules() if type(m).__name__ == "QuickGELU"]
    assert quick
    with pytest.raises(UserError, match=r"'openia' is not a tag of ViT-B-32.*'openai'"):
        loaded(f"{tmp_path / 'weights.pt'}:openia", model="ViT-B-32")


def test_published_weights_of_the_quickgelu_twins_are_those_of_openai() -> None:
    assert published("ViT-B-32")["openai"]["quick_gelu"]
    assert not published("ViT-B-32")["laion2b_s34b_b79k"]["quick_gelu"]


def test_a_slash_in_a_name_is_a_dash() -> None:
    with pytest.raises(UserError, match="did you mean 'openai'"):
        load_model(ModelConfig(model="ViT-B/32", pretrained="openia"), seed=0)
