"""What trains: towers, last blocks, low-rank changes, the temperature."""

import copy

import pytest
import torch

from hnc_ds.config import ModelConfig, ScopeConfig
from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.model.scope import choose_scope, merged

CAPTIONS = ["The red star is above the blue ring.", "a"]


def scoped(**scope: object) -> Clip:
    clip = load_model(ModelConfig(), seed=0)
    choose_scope(clip, ScopeConfig(**scope))  # type: ignore[arg-type]
    return clip


def trained(clip: Clip) -> set[str]:
    return {name.removeprefix("towers.") for name, p in clip.named_parameters() if p.requires_grad}


def embed(clip: Clip) -> torch.Tensor:
    images = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(256).byte()
    image_BD, text_TD, *_ = clip(images, clip.tokenize(CAPTIONS))
    return torch.cat([image_BD, text_TD])


def test_everything_trains_by_default() -> None:
    clip = scoped()
    assert trained(clip) == {name for name, _ in clip.towers.named_parameters()}


@pytest.mark.parametrize(("tower", "other"), [("image", "text"), ("text", "image")])
def test_the_other_tower_is_frozen(tower: str, other: str) -> None:
    clip = scoped(towers=tower)
    names = trained(clip)
    of_image = {name for name in names if name.startswith("visual.")}
    assert of_image == (names - {"logit_scale"} if tower == "image" else set())
    assert clip.is_frozen(other)
    assert not clip.is_frozen(tower)
    still = [part for part in clip.tower(other).values() if isinstance(part, torch.nn.Module)]
    assert still
    assert not any(part.training for part in still)


def test_the_last_blocks_train_with_the_norm_and_the_projection_after_them() -> None:
    names = trained(scoped(last_blocks=1))
    assert {name for name in names if "resblocks" not in name} == {
        "logit_scale",
        "text_projection",
        "ln_final.weight",
        "ln_final.bias",
        "visual.proj",
        "visual.ln_post.weight",
        "visual.ln_post.bias",
    }
    blocks = {".".join(name.split(".")[:-2]) for name in names if "resblocks" in name}
    assert {name.split("resblocks.")[1].split(".")[0] for name in blocks} == {"1", "3"}


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="last_blocks is 3, but the text tower has 2"):
        scoped(towers="text", last_blocks=3)


def test_a_tower_without_transformer_blocks_is_refused_but_can_stay_as_it_is() -> None:
    clip = load_model(ModelConfig(model="tiny-rn"), seed=0)
    with pytest.raises(UserError, match="the image tower of this model has none"):
        choose_scope(clip, ScopeConfig(lora_rank=2))
    clip = load_model(ModelConfig(model="tiny-rn"), seed=0)
    assert clip.has_batch_statistics()
    choose_scope(clip, ScopeConfig(towers="text", lora_rank=2))
    assert not clip.has_batch_statistics()


def test_the_temperature_can_stay_as_it_is() -> None:
    assert "logit_scale" not in trained(scoped(train_temperature=False))


def test_low_rank_changes_begin_as_no_change_and_alone_train() -> None:
    before = embed(load_model(ModelConfig(), seed=0))
    clip = scoped(lora_rank=2)
    torch.testing.assert_close(embed(clip), before)
    names = trained(clip) - {"logit_scale"}
    assert all(name.endswith(("up_Or", "down_rI")) for name in names)
    # attention's joined projection, its output, and two layers of the MLP, in 4 + 2 blocks
    assert len(names) == 2 * 4 * (4 + 2)


def test_merged_low_rank_changes_are_the_weights_of_a_plain_model() -> None:
    clip = scoped(towers="image", lora_rank=2, lora_alpha=6.0)
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            if name.endswith("up_Or"):
                parameter.normal_(std=0.1)
    assert clip.low_rank_scale == 3.0
    weights = merged(dict(clip.named_parameters()), clip.low_rank_scale)
    plain = load_model(ModelConfig(), seed=5)
    plain.load_state_dict(weights)  # strict: no name is missing, none is left over
    assert not torch.allclose(embed(plain), embed(load_model(ModelConfig(), seed=0)), atol=1e-3)
    torch.testing.assert_close(embed(plain), embed(clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("scope", "shared"),
    [({}, 0), ({"towers": "text"}, "image"), ({"lora_rank": 2}, "both"), ({"last_blocks": 1}, 1)],
)
def test_the_reference_model_shares_what_does_not_train_and_keeps_the_rest(
    scope: dict[str, object], shared: object
) -> None:
    clip = scoped(**scope)
    before = embed(clip).detach()
    clip.keep_reference()
    assert clip.reference is not None
    own = {id(p) for p in clip.towers.parameters()}
    frozen = {id(p) for p in clip.towers.parameters() if not p.requires_grad}
    assert {id(p) for p in clip.reference.parameters()} & own == frozen
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(256).byte()
    image, text, _, _, _, *reference = clip(images, clip.tokenize(CAPTIONS))
    reference_image, reference_text, reference_scale = reference
    torch.testing.assert_close(torch.cat([reference_image, reference_text]), before)
    assert not torch.allclose(torch.cat([image, text]), before, atol=1e-3)
    assert float(reference_scale) == pytest.approx(1 / 0.07, rel=1e-5)
    assert not reference_image.requires_grad
    assert not any(p.requires_grad for p in clip.reference.parameters())


def test_without_the_reference_its_towers_are_not_run() -> None:
    clip = scoped()
    clip.keep_reference()
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert len(clip(images, clip.tokenize(CAPTIONS), with_reference=False)) == 5


def test_a_frozen_tower_stays_out_of_training_mode() -> None:
    clip = load_model(ModelConfig(model="tiny-rn"), seed=0)
    choose_scope(clip, ScopeConfig(towers="text"))
    before = copy.deepcopy(dict(clip.towers.visual.named_buffers()))
    clip.train()
    clip.encode_images(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    for name, buffer in clip.towers.visual.named_buffers():
        assert torch.equal(buffer, before[name]), name
