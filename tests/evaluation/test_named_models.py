"""What START and FINAL may be, and which two are compatible."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hnc_ds import checkpoint
from hnc_ds.checkpoint import to_json
from hnc_ds.config import ModelConfig, TrainConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.encoder import OPENAI, load_named_model, load_own_start
from hnc_ds.interpolation import load_endpoints
from hnc_ds.model.load import load_model, tags_of

SEED = 5
"""Of the start weights of the run."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has one checkpoint, of other weights than it began with."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    checkpoint.start_run(folder, {"settings": to_json(TrainConfig(seed=SEED))})
    model = load_model(ModelConfig(), seed=6)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    checkpoint.write(folder, 20, checkpoint.contents(model, weights, {}, {}, {}), keep_last=1)
    return folder


@pytest.fixture
def other(run: Path, tmp_path: Path):
    """A copy of the run's checkpoint with something changed in its configuration."""

    def make(**changes: object) -> Path:
        newest = checkpoint.newest_checkpoint(run)
        config = json.loads((newest / "open_clip_config.json").read_text())
        for dotted, value in changes.items():
            *above, name = dotted.split("__")
            place = config
            for part in above:
                place = place[part]
            place[name] = value
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        save_file(load_file(newest / "model.safetensors"), tmp_path / "model.safetensors")
        return tmp_path

    return make


def conv1(model) -> torch.Tensor:
    return model.towers.visual.conv1.weight.detach()


def test_a_run_a_checkpoint_and_a_local_dir_reference_are_the_same_weights(run):
    newest = checkpoint.newest_checkpoint(run)
    ends = [load_named_model(str(reference)) for reference in (run, newest, f"local-dir:{newest}")]
    assert [end.name for end in ends[:2]] == ["first", "first/step-000020"]
    expected = conv1(load_model(ModelConfig(), seed=6))
    assert all(torch.equal(conv1(end.model), expected) for end in ends)


def test_start_is_the_model_before_the_run_also_for_a_checkpoint_of_it(run):
    expected = conv1(load_model(ModelConfig(), seed=SEED))
    for final in (run, checkpoint.newest_checkpoint(run)):
        start, last = load_endpoints("start", str(final))
        assert start.name == "first/start"
        assert torch.equal(conv1(start.model), expected)
        assert not torch.equal(conv1(last.model), expected)


def test_a_model_with_a_file_of_weights_is_loaded(run):
    weights = checkpoint.newest_checkpoint(run) / "model.safetensors"
    end = load_named_model(f"tiny:{weights}")
    assert torch.equal(conv1(end.model), conv1(load_model(ModelConfig(), seed=6)))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("runs/frist", "^runs/frist: no such folder, and no model of open_clip; give a run, a ch"),
        ("ViT-B-32", r"^ViT-B-32: name the weights: ViT-B-32:TAG, such as ViT-B-32:openai, .*"),
        ("ViT-B-32", "its tags are openai, laion400m_e31, .*laion2b_s34b_b79k"),
        ("ViT-B/32", r"^ViT-B/32: name the weights: ViT-B/32:TAG, such as ViT-B/32:openai"),
        ("ViT-B-32:", "name the weights"),
        ("ViT-L/14@336px", "such as ViT-L/14@336px:openai, .* its tags are openai$"),
        ("ViT-B/32:opnai", "neither a file nor a tag of ViT-B-32; did you mean 'openai'"),
        ("ViT-B/33", r"no model of open_clip; did you mean 'ViT-B-32'\?"),
        (
            "tiny",
            "^tiny: open_clip has no weights for this model; name a file of weights, as tiny:FILE$",
        ),
        (":openai", "^:openai: no such folder, and no model of open_clip"),
        (
            "tiny:no:such/file.pt",
            "pretrained 'no:such/file.pt' is neither a file nor a tag of tiny",
        ),
        (__file__, "a file; give its folder, or MODEL:FILE"),
        ("ViT-B-32:opnai", "pretrained 'opnai' is neither a file nor a tag.*did you mean 'openai'"),
        ("ViT-B-33:openai", "no model of open_clip; did you mean 'ViT-B-32"),
    ],
)
def test_what_is_no_model_is_refused_by_name(reference, message):
    with pytest.raises(UserError, match=message):
        load_named_model(reference)


def test_a_path_with_colons_is_a_file_of_weights_all_the_same(run, tmp_path):
    weights = tmp_path / "a:b" / "w:1.safetensors"
    weights.parent.mkdir()
    weights.write_bytes((checkpoint.newest_checkpoint(run) / "model.safetensors").read_bytes())
    assert torch.equal(
        conv1(load_named_model(f"tiny:{weights}").model), conv1(load_named_model(str(run)).model)
    )


@pytest.mark.parametrize(
    "name",
    ["RN50", "RN101", "RN50x4", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"],
)
def test_openais_names_are_open_clips_models_with_its_tag(name):
    assert OPENAI in (tags_of(name) or [])


def test_a_model_may_be_called_with_openais_slash_wherever_it_is_made():
    """As 'hnc-ds train --model' does."""
    one, other = (
        load_model(ModelConfig(model=name), 0) for name in ("ViT-S/32-alt", "ViT-S-32-alt")
    )
    assert one.config == other.config
    assert torch.equal(conv1(one), conv1(other))


def test_start_of_what_is_no_run_has_to_be_named(other):
    with pytest.raises(UserError, match="is not in a run of 'hnc-ds train'; name the START"):
        load_endpoints("start", str(other()))


def test_start_of_a_run_that_does_not_record_it_has_to_be_named(other):
    (folder := other()).joinpath("config.json").write_text('{"settings": {}}')
    with pytest.raises(UserError, match=r"config\.json: settings\.model: is missing; name"):
        load_own_start(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_cfg__quick_gelu": True},
            "cannot be interpolated: model_cfg.quick_gelu is not set in START, true in FINAL",
        ),
        (
            {"model_cfg__vision_cfg__head_width": 64},  # the same shapes, other attention
            r"model_cfg\.vision_cfg\.head_width is 32 in START, 64 in FINAL",
        ),
        (
            {"preprocess_cfg__mean": [0.0, 0.0, 0.0]},
            r"preprocessing mean is \[0\.\d+.*\] in START, \[0\.0, 0\.0, 0\.0\] in FINAL",
        ),
    ],
)
def test_models_that_compute_something_else_are_refused_with_the_first_difference(
    run, other, changes, message
):
    with pytest.raises(UserError, match=message):
        load_endpoints(str(run), str(other(**changes)))


@pytest.mark.parametrize(
    "std", [[True, 1.0, 1.0], [0.0, 1.0, 1.0], ["a", 1.0, 1.0], [1.0, 1.0], [300.0, 1.0, 1.0]]
)
def test_a_deviation_that_is_no_colour_is_refused(run, other, std):
    with pytest.raises(UserError, match=r"std \(.*\) are no colours"):
        load_endpoints(str(run), str(other(preprocess_cfg__std=std)))


def test_an_activation_that_is_off_equals_one_that_is_not_set(run, other):
    load_endpoints(str(run), str(other(model_cfg__quick_gelu=False)))


def test_other_sizes_are_refused(run, tmp_path):
    wide = load_model(ModelConfig(), seed=1)
    folder = tmp_path / "deep"
    folder.mkdir()
    config = json.loads(json.dumps(wide.config))
    layers = config["model_cfg"]["text_cfg"]["layers"]
    config["model_cfg"]["text_cfg"]["layers"] = layers - 1
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {
        name: tensor
        for name, tensor in wide.state_by_open_clip_name().items()
        if f"transformer.resblocks.{layers - 1}." not in name or name.startswith("visual")
    }
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"text_cfg.layers is {layers} in START, {layers - 1} in"):
        load_endpoints(str(run), str(folder))
