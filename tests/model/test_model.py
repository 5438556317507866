"""The model around open_clip: exact trimming, the bounded temperature, names and files."""

import copy
import math
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from hnc_ds.checkpoint import contents, read, write
from hnc_ds.config import ModelConfig, TrainConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import refuse_broken_weights
from hnc_ds.interpolation import first_difference
from hnc_ds.model.clip import Clip, forward_cost
from hnc_ds.model.load import load_folder, load_model
from hnc_ds.training.setup import set_up
from tests.model.tiny_models import KINDS, save_tiny, tiny_config


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return load_model(ModelConfig(), seed=0)


def test_the_tiny_model_is_small_and_takes_32_pixels(tiny: Clip) -> None:
    assert 1e6 < sum(p.numel() for p in tiny.parameters()) < 2e6
    assert tiny.image_settings.size == 32


def test_random_weights_are_those_of_the_seed_whatever_memory_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """open_clip leaves a weight of CoCa's caption head as memory is; here memory is full of NaN."""
    configs = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "tiny-coca", tiny_config(KINDS["CoCa"], tmp_path))
    torch.use_deterministic_algorithms(True)  # torch.empty is filled
    try:
        one, other = (load_model(ModelConfig(model="tiny-coca"), seed=3) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert one.towers.text_decoder.text_projection.std() > 0
    for name, weight in one.towers.state_dict().items():
        assert torch.equal(weight, other.towers.state_dict()[name]), name
    refuse_broken_weights(one, "tiny-coca")


def test_a_run_does_not_start_from_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    """Not even if nothing uses it: the run could not be resumed."""
    folder = save_tiny(tmp_path / "start", KINDS["CoCa"])
    file = folder / "open_clip_model.safetensors"
    weights = load_file(file)
    weights["text_decoder.text_projection"][1, 2] = math.nan
    save_file(weights, file)
    config = TrainConfig(model=ModelConfig(model=f"local-dir:{folder}"))
    with pytest.raises(UserError, match=r"text_decoder\.text_projection is not finite"):
        set_up(config, None)


def test_images_are_normalised_as_open_clip_does(tiny: Clip) -> None:
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    transform = open_clip.image_transform(32, is_train=False)
    from torchvision.transforms.functional import to_pil_image

    expected = tiny.towers.encode_image(transform(to_pil_image(image[0]))[None], normalize=True)
    torch.testing.assert_close(tiny.encode_images(image), expected, atol=1e-5, rtol=0)


def test_pixels_are_the_float32_ones_to_the_bit_and_the_images_stay(tiny: Clip) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 16, 16)
    mean = torch.tensor(tiny.image_settings.mean).view(3, 1, 1)
    std = torch.tensor(tiny.image_settings.std).view(3, 1, 1)
    expected = (images.float() / 255 - mean) / std
    for given in (images, images.float()):
        before = given.clone()
        assert torch.equal(tiny.normalised(given), expected)
        assert torch.equal(given, before)


def test_the_temperature_is_bounded_but_its_gradient_leads_back(tiny: Clip) -> None:
    parameter = tiny.towers.logit_scale
    with torch.no_grad():
        before = parameter.clone()
        parameter.fill_(math.log(150))
    scale = tiny.logit_scale()
    assert float(scale.detach()) == pytest.approx(100)
    pull = tiny.bound_pull()
    assert pull.tolist() == [0]
    (gradient,) = torch.autograd.grad(scale.sum() * 0.5 + pull.sum(), parameter)
    assert float(gradient) == pytest.approx(0.5 * 100 + math.log(1.5), rel=1e-5)
    with torch.no_grad():
        parameter.fill_(math.log(99))
    (gradient,) = torch.autograd.grad(tiny.bound_pull().sum(), parameter)
    assert float(gradient) == 0
    with torch.no_grad():
        parameter.copy_(before)


@pytest.mark.parametrize(("scale", "kept"), [(100.01, 100.0), (117.3, 117.3)])
def test_weights_beyond_the_bound_keep_their_scale_also_when_a_run_resumes(
    scale: float, kept: float, tmp_path: Path
) -> None:
    state = dict(load_model(ModelConfig(), seed=0).towers.state_dict())
    torch.save({**state, "logit_scale": torch.tensor(math.log(scale))}, tmp_path / "weights.pt")
    config = TrainConfig(model=ModelConfig(pretrained=str(tmp_path / "weights.pt")))
    clip = set_up(config, None).model
    assert float(clip.logit_scale().detach()) == pytest.approx(kept)
    assert (clip.start_note() is None) == (kept == 100)
    clip.towers.logit_scale.data.fill_(math.log(200))
    assert float(clip.logit_scale().detach()) == pytest.approx(kept)
    for number, later in enumerate((90.0, kept + 1)):
        weights = {n: p.detach().clone() for n, p in clip.named_parameters()}
        weights["towers.logit_scale"].fill_(math.log(later))
        made = contents(clip, weights, {}, {}, {})
        step = write(tmp_path, number, made, keep_last=2)
        again = set_up(config, read(step)).model
        assert again.log_scale_bound == clip.log_scale_bound
        assert again.config == clip.config
        start = load_model(config.model, seed=0)
        assert first_difference(start, load_folder(step)) is None
        open_clip.create_model(f"local-dir:{step}", require_pretrained=True)


def test_measuring_the_cost_changes_nothing() -> None:
    clip = load_model(ModelConfig(model="tiny-rn"), seed=0)
    before = copy.deepcopy(clip.towers.state_dict())
    assert min(forward_cost(clip)) > 0
    assert all(torch.equal(now, before[name]) for name, now in clip.towers.state_dict().items())
    assert clip.training
    assert all(parameter.requires_grad for parameter in clip.towers.parameters())


def test_a_fixed_temperature_is_not_learned() -> None:
    clip = load_model(ModelConfig(), seed=0)
    clip.fix_temperature(0.05)
    assert clip.logit_scale().tolist() == pytest.approx([20.0])
    trained = {id(p) for group in clip.parameter_groups() for p in group["params"]}
    assert id(clip.towers.logit_scale) not in trained


def test_gains_biases_and_temperature_are_not_decayed(tiny: Clip) -> None:
    decayed, plain = tiny.parameter_groups()
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert plain["weight_decay"] == 0
    assert any(p is tiny.towers.logit_scale for p in plain["params"])
    count = len(decayed["params"]) + len(plain["params"])
    assert count == len([p for p in tiny.parameters() if p.requires_grad])


def test_the_same_seed_gives_the_same_start_weights() -> None:
    def first_weights(seed: int) -> torch.Tensor:
        return load_model(ModelConfig(), seed).towers.visual.conv1.weight

    assert torch.equal(first_weights(3), first_weights(3))
    assert not torch.equal(first_weights(3), first_weights(4))


def test_a_caption_beyond_the_context_is_recognised(tiny: Clip) -> None:
    assert not tiny.tokenize.is_too_long("a red star " * 10)
    assert tiny.tokenize.is_too_long("a red star " * 11)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(model="ViT-B-33"), "did you mean 'ViT-B-32'"),
        (ModelConfig(model="ViT-B-32", pretrained="openia"), "did you mean 'openai'"),
        (ModelConfig(model="local-dir:nowhere"), "nowhere"),
    ],
)
def test_an_unknown_model_or_tag_is_refused_with_the_nearest_name(
    config: ModelConfig, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_model(config, seed=0)


def test_weights_that_cannot_be_downloaded_are_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"openai: cannot be loaded .*--pretrained"):
        load_model(ModelConfig(model="ViT-B-32", pretrained="openai"), seed=0)


def test_openai_weights_get_the_activation_they_were_trained_with() -> None:
    from hnc_ds.model.load import _model_settings

    assert _model_settings(ModelConfig(model="ViT-B-32", pretrained="openai"))[0]["quick_gelu"]
    laion, _ = _model_settings(ModelConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k"))
    assert not laion.get("quick_gelu", False)


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"state_dict": Attack()}, tmp_path / "weights.pt")
    with pytest.raises(UserError):
        load_model(ModelConfig(pretrained=str(tmp_path / "weights.pt")), seed=0)
    assert not (tmp_path / "ran").exists()
