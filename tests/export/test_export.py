"""Exports compute what the model computes, change nothing else, and mistakes are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hnc_ds.config import AnswerConfig, ExportConfig, ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.encoder import load_named_model
from hnc_ds.export.export import export
from hnc_ds.export.tower import (
    as_seen,
    hf_states,
    open_clip_states,
    probe_images,
    refuse_broken_states,
    refuse_difference,
    vision_settings,
    vision_weights,
)
from hnc_ds.llava.answer import answer
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from tests.export.conftest import VIEW, model_cfg

Make = Callable[..., Path]
CAPTIONS = ["a photo of a cat", "The BUS is on the road!", "it's  10:30; caf\u00e9 (closed)"]


def loaded(folder: Path) -> Clip:
    return load_named_model(str(folder)).model.eval()


def states(clip: Clip, pixels: torch.Tensor, **changed: Any) -> list[torch.Tensor]:
    weights, _ = vision_weights(clip)
    return hf_states({**vision_settings(clip), **changed}, weights, pixels)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_every_hidden_state_is_the_models_own(clip_folder: Make, quick_gelu: bool) -> None:
    clip = loaded(clip_folder(quick_gelu=quick_gelu))
    pixels = as_seen(probe_images(clip.image_settings, None), clip.image_settings)
    ours, theirs = open_clip_states(clip, pixels), states(clip, pixels)
    assert len(ours) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(one.abs().max()))
    assert refuse_difference(ours, theirs, "it") < 1e-5


@pytest.mark.parametrize("mistake", ["activation", "keys for queries", "positions", "layer"])
def test_mistakes_are_refused(clip_folder: Make, mistake: str) -> None:
    clip = loaded(clip_folder(quick_gelu=True))
    pixels = as_seen(probe_images(clip.image_settings, None), clip.image_settings)
    ours = open_clip_states(clip, pixels)
    weights, _ = vision_weights(clip)
    settings = vision_settings(clip)
    if mistake == "activation":
        settings["hidden_act"] = "gelu"
    elif mistake == "keys for queries":
        q, k = (f"encoder.layers.1.self_attn.{part}_proj.weight" for part in "qk")
        weights[q], weights[k] = weights[k], weights[q]
    elif mistake == "positions":
        table = weights["embeddings.position_embedding.weight"]
        weights["embeddings.position_embedding.weight"] = table[[0, 2, 1, *range(3, len(table))]]
    theirs = hf_states(settings, weights, pixels)
    if mistake == "layer":
        theirs = [theirs[0], *theirs[:-1]]
    with pytest.raises(UserError, match="computes something else from layer"):
        refuse_difference(ours, theirs, "the tower")


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_hidden_state_that_is_nan_counts_as_different_in_every_layer(layer: int) -> None:
    ours = [torch.ones(2, 3) for _ in range(3)]
    theirs = [state.clone() for state in ours]
    theirs[layer][1, 1] = float("nan")
    with pytest.raises(UserError, match=f"computes something else from layer {layer} on"):
        refuse_difference(ours, theirs, "the tower")
    with pytest.raises(UserError, match=f"tower in x are not finite .* from layer {layer} on"):
        refuse_broken_states(theirs, "the tower in x")
    refuse_broken_states(ours, "the tower in x")


@pytest.mark.slow
def test_the_full_shape_of_llavas_tower_agrees_to_rounding() -> None:
    """ViT-L-14-336-quickgelu with random weights: 24 layers, 577 tokens."""
    clip = load_model(ModelConfig(model="ViT-L-14-336-quickgelu"), seed=0).eval()
    settings = vision_settings(clip)
    assert settings["hidden_act"] == "quick_gelu"
    weights, _ = vision_weights(clip)
    assert len(weights) == 391
    pixels = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    ours = open_clip_states(clip, pixels)
    assert refuse_difference(ours, hf_states(settings, weights, pixels), "it") < 1e-5


def test_open_clip_opens_what_was_written_for_it(clip_folder: Make, tmp_path: Path) -> None:
    source = clip_folder(quick_gelu=True)
    export(ExportConfig(model=str(source), to="open_clip", out=tmp_path / "out"))
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    state = load_file(source / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
    message = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())
    assert message["model_cfg"]["quick_gelu"] is True
    assert message["preprocess_cfg"]["mean"] == list(loaded(source).image_settings.mean)


def test_transformers_opens_what_was_written_for_it(clip_folder: Make, tmp_path: Path) -> None:
    source, out = clip_folder(quick_gelu=True), tmp_path / "out"
    export(ExportConfig(model=str(source), to="hf", out=out))
    model = transformers.CLIPModel.from_pretrained(out).eval()
    words = transformers.AutoTokenizer.from_pretrained(out)
    view = transformers.AutoImageProcessor.from_pretrained(out)
    assert model.config.vision_config.hidden_act == "quick_gelu"
    clip = loaded(source)
    images = probe_images(clip.image_settings, None)
    given = words(CAPTIONS, padding=True, return_tensors="pt")
    pixels = view(list(images), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        found = model(pixel_values=pixels, **given)
        image_BD, text_BD = clip.encode_images(images), clip.encode_texts(clip.tokenize(CAPTIONS))
    assert torch.allclose(found.image_embeds, image_BD, atol=1e-4)
    assert torch.allclose(found.text_embeds, text_BD, atol=1e-4)
    scale = float(clip.state_by_open_clip_name()["logit_scale"].exp())
    assert torch.allclose(found.logits_per_image, scale * image_BD @ text_BD.T, atol=1e-2)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_what_was_written_for_transformers_opens_here_as_the_same_model(
    weights: str, quick_gelu: bool, clip_folder: Make, tmp_path: Path
) -> None:
    source, out = clip_folder(quick_gelu=quick_gelu), tmp_path / "out"
    message = json.loads((source / "open_clip_config.json").read_text())
    message["preprocess_cfg"] |= {"interpolation": "bilinear", "resize_mode": "squash"}
    (source / "open_clip_config.json").write_text(json.dumps(message))
    export(ExportConfig(model=str(source), to="hf", out=out))
    if weights != "model.safetensors":
        torch.save(load_file(out / "model.safetensors"), out / weights)
        (out / "model.safetensors").unlink()
    ours, again = loaded(source), loaded(out)
    assert again.image_settings == ours.image_settings
    images_B3RR = probe_images(ours.image_settings, None)
    assert torch.equal(again.encode_images(images_B3RR), ours.encode_images(images_B3RR))
    texts = [model.encode_texts(model.tokenize(CAPTIONS)) for model in (ours, again)]
    assert torch.equal(*texts)
    state = again.state_by_open_clip_name()
    for name, tensor in ours.state_by_open_clip_name().items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "siglip"}, "CLIPModel alone opens"),
        ("config.json", {"projection_dim": 9}, "of another model"),
        ("config.json", {"projection_dim": 1 << 40}, "projection_dim is"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 99}}, "resize to 32"),
        ("preprocessor_config.json", {"resample": 0}, "crop the center or squash"),
    ],
)
def test_a_folder_of_transformers_that_is_no_such_clip_is_refused(
    file: str, change: dict[str, Any], message: str, clip_folder: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(ExportConfig(model=str(clip_folder()), to="hf", out=out))
    config = json.loads((out / file).read_text()) | change
    (out / file).write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        loaded(out)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def as_on_the_hub(folder: Path, dtype: torch.dtype) -> None:
    """Hub-style names, two files with an index, another precision."""
    state = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor.to(dtype)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    files = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for file, own in files.items():
        save_file({name: state[name] for name in own}, folder / file, {"format": "pt"})
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {n: f for f, own in files.items() for n in own},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("layout", ["flat", "hub float16", "hub bfloat16"])
def test_a_llava_gets_the_tower_and_nothing_else_changes(
    clip_folder: Make, llava_folder: Make, tmp_path: Path, layout: str, capsys: Any
) -> None:
    llava, out = llava_folder(quick_gelu=True), tmp_path / "out"
    if layout != "flat":
        as_on_the_hub(llava, getattr(torch, layout.split()[1]))
    processor = json.loads((llava / "preprocessor_config.json").read_text())
    export(ExportConfig(model=str(clip_folder(quick_gelu=True)), into=llava, out=out))
    before, after = tensors(llava), tensors(out)
    hub = {
        name if "vision_model." in name else name.replace("tower.", "tower.vision_model."): tensor
        for name, tensor in before.items()
    }
    assert hub.keys() == after.keys()
    for name, tensor in hub.items():
        assert after[name].dtype == tensor.dtype
        if not name.startswith("vision_tower."):
            assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name
    weights, _ = vision_weights(loaded(tmp_path / "clip"))
    for name, tensor in weights.items():
        written = after[f"vision_tower.vision_model.{name}"]
        assert torch.equal(written, tensor.to(written.dtype)), name
    for path in llava.iterdir():
        if path.suffix != ".safetensors" and path.name != "preprocessor_config.json":
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    padding = {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
    assert json.loads((out / "preprocessor_config.json").read_text()) == processor | padding
    model, message = transformers.LlavaForConditionalGeneration.from_pretrained(
        out, output_loading_info=True, dtype=torch.float32
    )
    assert not message["missing_keys"]
    assert not message["unexpected_keys"]
    clip = loaded(tmp_path / "clip")
    pixels = as_seen(probe_images(clip.image_settings, None), clip.image_settings)
    ours = open_clip_states(clip, pixels)[-2]
    seen = model.eval().model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
    assert torch.allclose(seen, ours, atol=0.03 * float(ours.abs().max()))
    printed = capsys.readouterr().out
    assert "55 tensors of the tower replaced (quick_gelu, 32 px)" in printed
    assert "cosine with the old ones" in printed
    assert "(LlavaImageProcessor with do_pad; it was CLIPImageProcessor, which cropped" in printed
    assert "warning" not in printed


@pytest.mark.parametrize("language_model", ["vicuna", "mistral"])
def test_a_llava_next_gets_the_tower_and_keeps_its_image_processor(
    clip_folder: Make,
    llava_next_folder: Make,
    tmp_path: Path,
    language_model: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    llava, out = llava_next_folder(language_model), tmp_path / "out"
    export(ExportConfig(model=str(clip_folder()), into=llava, out=out))
    before, after = tensors(llava), tensors(out)
    kept = {n for n in before if "vision_tower" not in n}
    assert any("image_newline" in name for name in kept)
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert kept == {n for n in after if "vision_tower" not in n}
    for path in llava.iterdir():
        if path.suffix != ".safetensors":
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    model, found = transformers.LlavaNextForConditionalGeneration.from_pretrained(
        out, output_loading_info=True, dtype=torch.float32
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    clip = loaded(tmp_path / "clip")
    pixels = as_seen(probe_images(clip.image_settings, None), clip.image_settings)
    ours = open_clip_states(clip, pixels)[-2]
    seen = model.eval().model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
    assert torch.allclose(seen, ours, atol=1e-4 * float(ours.abs().max()))
    printed = capsys.readouterr().out
    assert "the image processor stays LLaVA-NeXT's own" in printed
    assert "'hnc-ds answer' takes LLaVA-1.5 alone" in printed
    given: dict[str, Any] = {"dataset": "vqav2", "questions": out, "images": out, "check": True}
    with pytest.raises(UserError, match=r"LlavaNextForCond.*no LlavaForCond.*llava-1.5-7b-hf"):
        answer(AnswerConfig(model=out, **given))


def test_a_llava_next_with_another_image_processor_is_refused(
    clip_folder: Make, llava_next_folder: Make, tmp_path: Path
) -> None:
    llava = llava_next_folder("vicuna")
    path = llava / "preprocessor_config.json"
    path.write_text(path.read_text().replace("LlavaNextImage", "CLIPImage"))
    with pytest.raises(UserError, match=r"CLIPImageProcessor, not one of LLaVA-NeXT's"):
        export(ExportConfig(model=str(clip_folder()), into=llava, out=tmp_path / "out"))


def test_a_tower_whose_visible_weights_stayed_is_reported(
    clip_folder: Make, llava_folder: Make, tmp_path: Path, capsys: Any
) -> None:
    first, llava = clip_folder(), llava_folder()
    export(ExportConfig(model=str(first), into=llava, out=tmp_path / "one"))
    capsys.readouterr()
    last = tmp_path / "last"
    shutil.copytree(first, last)
    state = load_file(last / "model.safetensors")
    state["visual.transformer.resblocks.2.mlp.c_fc.weight"] += 1  # behind layer -2
    state["visual.proj"] += 1
    save_file(state, last / "model.safetensors")
    export(ExportConfig(model=str(last), into=tmp_path / "one", out=tmp_path / "two"))
    assert "warning: no weight before layer 2 changed" in capsys.readouterr().out


def test_a_tower_of_another_image_size_gets_positions_as_open_clip_interpolates_them(
    clip_folder: Make, llava_folder: Make, tmp_path: Path, capsys: Any
) -> None:
    small, out = clip_folder(image_size=16), tmp_path / "out"
    export(ExportConfig(model=str(small), into=llava_folder(), out=out))
    printed = capsys.readouterr().out
    assert "(gelu, 32 px)" in printed
    assert "warning: the tower was trained at 16 pixels and sees 32 here, with interp" in printed
    state = {n: t for n, t in load_file(small / "model.safetensors").items() if "logit" not in n}
    grown = open_clip.CLIP(**model_cfg()).eval()
    open_clip.model.resize_pos_embed(state, grown)
    grown.load_state_dict(state, strict=False)
    pixels = as_seen(probe_images(VIEW, None), VIEW)
    seen: list[torch.Tensor] = []
    for block in grown.visual.transformer.resblocks:
        block.register_forward_hook(lambda *call: seen.append(call[-1]))
    model = transformers.LlavaForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
    with torch.inference_mode():
        grown.visual(pixels)
        found = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert found[-2].shape == (8, 17, 32)
    assert torch.allclose(found[-2], seen[-2], atol=1e-4 * float(seen[-2].abs().max()))


def test_a_tower_of_another_shape_or_activation_is_refused(
    clip_folder: Make, llava_folder: Make, tmp_path: Path, unfit: tuple[dict[str, Any], str]
) -> None:
    tower, message = unfit
    with pytest.raises(UserError, match=f"does not fit into .*{message}"):
        export(
            ExportConfig(model=str(clip_folder(**tower)), into=llava_folder(), out=tmp_path / "o")
        )
    assert not (tmp_path / "o").exists()


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _another_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')


def _another_tower(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["model_type"] = "siglip_vision_model"
    (folder / "config.json").write_text(json.dumps(config))


def _cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _changed(file: str, **settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | settings))

    return change


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, "no LLaVA folder of Hugging Face's"),
        (_another_model, "no LlavaForConditionalGeneration"),
        (_another_tower, "a tower of kind siglip_vision_model"),
        (_cut_off, "no whole safetensors file"),
        (_no_weights, r"its \*\.safetensors are missing"),
        (_no_processor, "has no preprocessor_config.json"),
        (_changed("config.json", model_type="llama"), "model_type is llama, not llava: .*tokens"),
        (_changed("config.json", image_token_index=7), r"makes \[\d+\] of <image>, .* 7;"),
        (_no_tokenizer, "copy the tokenizer's files"),
        (
            _changed("preprocessor_config.json", image_processor_type="SiglipImageProcessor"),
            "image_processor_type is SiglipImageProcessor, not one of LLaVA-1.5's",
        ),
        (
            _changed("config.json", vision_config={"num_hidden_layers": "x"}),
            "config.json: .*num_hidden_layers",
        ),
        (
            _changed("config.json", vision_config={"image_size": [32, 32]}),
            r"config.json: image_size of the tower is \[32, 32\]; give one number",
        ),
        (_changed("preprocessor_config.json", image_std="x"), "image_std is x, the tower was"),
        (_changed("preprocessor_config.json", crop_size=224), "crop_size is 224, .* 32 pixels"),
        (
            _changed("preprocessor_config.json", image_mean=[0.5, 0.5, 0.5]),
            r"image_mean is \[0.5, 0.5, 0.5\], the tower was trained with \[0.48",
        ),
    ],
)
def test_a_folder_that_is_no_llava_is_refused_before_anything_is_written(
    clip_folder: Make,
    llava_folder: Make,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    llava = llava_folder()
    damage(llava)
    with pytest.raises(UserError, match=message):
        export(ExportConfig(model=str(clip_folder()), into=llava, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_existing_output_is_kept_without_overwrite(clip_folder: Make, tmp_path: Path) -> None:
    source, out = str(clip_folder()), tmp_path / "out"
    export(ExportConfig(model=source, to="open_clip", out=out))
    with pytest.raises(UserError, match="exists; choose another place, or add --overwrite"):
        export(ExportConfig(model=source, to="open_clip", out=out))
    export(ExportConfig(model=source, to="open_clip", out=out, overwrite=True))
    with pytest.raises(UserError, match="give either --to"):
        ExportConfig(model=source, out=out)
    with pytest.raises(UserError, match="no averaged weights"):
        export(ExportConfig(model=source, to="open_clip", out=tmp_path / "a", average=True))
