"""Image-text matching models give the logits of transformers, image and caption in two steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.encoder import load_named_model
from hnc_ds.model.cross_encoder import KINDS, load_cross_encoder
from hnc_ds.model.load import load_model
from tests.cross_encoders import MADE, SIDE, save_cross_encoder

WORDS = "a red blue green bus car road is on the left right of and not two horse".split()
CAPTIONS = ["the bus is on the road", "a red horse", "the road is on the bus", "two green car"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("cross_encoders")
    return {kind: save_cross_encoder(base / kind, kind, WORDS) for kind in MADE}


def test_every_kind_of_the_table_is_tried() -> None:
    assert set(MADE) == {name for name, kind in KINDS.items() if kind.trains}


@pytest.mark.parametrize("kind", MADE)
def test_seen_once_and_matched_is_the_models_own_forward(
    folders: dict[str, Path], kind: str
) -> None:
    encoder = load_cross_encoder(f"{folders[kind]}")
    torch.manual_seed(1)
    images_B3RR = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    ids, _ = encoder.tokenize.ids(CAPTIONS)
    length = max(map(len, ids))
    token_PL = torch.tensor([row + [encoder.tokenize.padding] * (length - len(row)) for row in ids])
    mask_PL = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    image_P = torch.tensor([0, 0, 1, 1])
    with torch.inference_mode():
        found_P = encoder.match(encoder.see(images_B3RR)[image_P], token_PL, mask_PL)
        mean, std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (encoder.image_settings.mean, encoder.image_settings.std)
        )
        pixels = ((images_B3RR / 255 - mean) / std)[image_P]
        expected = _own_logits(encoder.towers, kind, pixels, token_PL, mask_PL)
    assert found_P.std() > 1e-3
    torch.testing.assert_close(found_P, expected, rtol=1e-4, atol=1e-5)


def _own_logits(
    model: Any, kind: str, pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The log-odds by the model's ``forward``."""
    inputs = {"input_ids": tokens, "attention_mask": mask, "pixel_values": pixels}
    if kind == "blip":
        logits = model(**inputs).itm_score
    elif kind == "blip-2":
        logits = model(**inputs, use_image_text_matching_head=True).logits_per_image
    elif kind == "flava":
        logits = model(**inputs, input_ids_masked=tokens, return_loss=False).itm_logits
    else:
        logits = model(**inputs).logits
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def test_embeddings_are_the_models_own(folders: dict[str, Path]) -> None:
    torch.manual_seed(1)
    images_B3RR = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    for kind, record in KINDS.items():
        if record.contrast is None:
            continue
        encoder = load_cross_encoder(f"{folders[kind]}")
        token_TL = encoder.tokenize(CAPTIONS)
        mask_TL = (token_TL != encoder.tokenize.padding).long()
        with torch.inference_mode():
            seen_B = encoder.see(images_B3RR)
            image_BD, text_TD = encoder.contrast(seen_B, token_TL, mask_TL)
            pixels = encoder.pixels(images_B3RR)
            inputs = {"input_ids": token_TL, "attention_mask": mask_TL, "pixel_values": pixels}
            expected = _own_cosines(encoder.towers, kind, inputs)
        assert expected.std() > 1e-2
        torch.testing.assert_close(image_BD @ text_TD.T, expected, rtol=1e-4, atol=1e-5)


def _own_cosines(model: Any, kind: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of all images with all captions, by the model's ``forward``."""
    if kind == "blip":
        return model(**inputs, use_itm_head=False).itm_score
    pairs = {**inputs, "pixel_values": inputs["pixel_values"][[0, 1, 2, 0]]}
    found = model(**pairs, input_ids_masked=inputs["input_ids"], return_loss=False)
    return found.contrastive_logits_per_image[:3] / model.flava.logit_scale.exp()


def test_kinds_without_contrastive_heads_do_not_train_them(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"no embeddings of images and captions.* blip, flava have"):
        load_cross_encoder(f"{folders['vilt']}").prepare_for_training(contrasts=True)


def test_captions_are_truncated_at_the_context_length(folders: dict[str, Path]) -> None:
    encoder = load_cross_encoder(f"{folders['vilt']}")
    long = " ".join(["bus"] * 40)
    ids, is_long = encoder.tokenize.ids(["a bus", long])
    assert is_long == [False, True]
    assert len(ids[1]) == encoder.tokenize.context_length == 32
    assert ids[1][-1] == ids[0][-1]


def test_positions_that_no_token_has_are_not_counted(folders: dict[str, Path]) -> None:
    assert load_cross_encoder(f"{folders['bridgetower']}").tokenize.context_length == 30


def without(folder: Path, out: Path, name: str) -> Path:
    shutil.copytree(folder, out)
    (out / name).unlink()
    return out


def test_folders_that_are_no_matching_model_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    blip = folders["blip"]
    with pytest.raises(UserError, match="no such folder"):
        load_cross_encoder("./missing")
    with pytest.raises(UserError, match=r"no config\.json"):
        load_cross_encoder(f"{without(blip, tmp_path / 'a', 'config.json')}")
    with pytest.raises(UserError, match="processor into it"):
        load_cross_encoder(f"{without(blip, tmp_path / 'b', 'preprocessor_config.json')}")
    with pytest.raises(UserError, match="copy the folder again"):
        load_cross_encoder(f"{without(blip, tmp_path / 'c', 'model.safetensors')}")
    other = tmp_path / "d"
    shutil.copytree(blip, other)
    config = json.loads((other / "config.json").read_text()) | {"model_type": "clip"}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"'clip'; image-text matching is known of blip"):
        load_cross_encoder(f"{other}")


def test_a_model_without_a_head_for_matching_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["vilt"], tmp_path / "vilt")
    whole = transformers.ViltForImageAndTextRetrieval.from_pretrained(folders["vilt"])
    whole.vilt.save_pretrained(tmp_path / "vilt")
    with pytest.raises(UserError, match=r"rank_output.*head for image-text matching"):
        load_cross_encoder(f"{tmp_path / 'vilt'}")


def test_other_stages_name_the_one_that_takes_it() -> None:
    with pytest.raises(UserError, match="'hnc-ds train' and 'evaluate' alone take"):
        load_model(ModelConfig(model="hf:some/blip"), seed=0)
    with pytest.raises(UserError, match="'hnc-ds train' and 'evaluate' alone take"):
        load_named_model("hf:some/blip")
    with pytest.raises(UserError, match=r"^some/blip: not a model of the hub \("):
        load_cross_encoder("some/blip")
