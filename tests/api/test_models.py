"""hnc_ds.load: model, tokenizer and preprocessing under every name."""

import pickle
from pathlib import Path

import open_clip
import pytest
import torch
import transformers
from PIL import Image

import hnc_ds
from tests.cross_encoders import save_cross_encoder

CAPTIONS = ["The bus is on the road.", "The road is on the bus."]


def embedded(
    model: torch.nn.Module, image: torch.Tensor, text: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model.encode_image(image, normalize=True), model.encode_text(text, normalize=True)


def test_a_run_gives_what_open_clip_makes_of_its_checkpoint(
    runs: dict[str, Path], photo: Image.Image
) -> None:
    model, tokenizer, preprocess = hnc_ds.load(runs["clip"])
    folder = f"local-dir:{runs['clip']}/checkpoints/step-001000"
    theirs, _, their_preprocess = open_clip.create_model_and_transforms(folder)
    assert torch.equal(tokenizer(CAPTIONS), open_clip.get_tokenizer(folder)(CAPTIONS))
    image = preprocess(photo)[None]
    torch.testing.assert_close(image, their_preprocess(photo)[None], atol=0.03, rtol=0)
    found = embedded(model, image, tokenizer(CAPTIONS))
    expected = embedded(theirs.eval(), image, tokenizer(CAPTIONS))
    for ours, their in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, their)
    assert not model.training


def test_tiny_has_its_own_vocabulary(runs: dict[str, Path], photo: Image.Image) -> None:
    """open_clip's tokenizer gives tokens that the model does not have."""
    model, tokenizer, preprocess = hnc_ds.load(str(runs["tiny"]))
    tokens = tokenizer(CAPTIONS)
    assert tokens.shape == (2, 32)
    assert int(tokens.max()) < model.vocab_size == 4096
    image, text = embedded(model, preprocess(photo)[None], tokens)
    found = image @ text.T
    assert found.shape == (1, 2)
    assert torch.equal(tokenizer(CAPTIONS[0]), tokens[:1])
    loaded = hnc_ds.load(runs["tiny"] / "checkpoints" / "step-001000")
    torch.testing.assert_close(loaded.scores(photo, CAPTIONS), found)
    torch.testing.assert_close(loaded.scores([photo, photo], CAPTIONS[1])[1], found[0, 1:])


def test_an_open_clip_name_has_a_tag_or_a_file(runs: dict[str, Path]) -> None:
    file = runs["tiny"] / "checkpoints" / "step-001000" / "model.safetensors"
    loaded = hnc_ds.load(f"tiny:{file}")
    own = hnc_ds.load(runs["tiny"])
    for name, weights in own.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weights), name
    assert (own.name, loaded.name) == ("tiny", f"tiny:{file}")
    with pytest.raises(hnc_ds.UserError, match="ViT-B-32: name the weights: ViT-B-32:TAG"):
        hnc_ds.load("ViT-B-32")
    with pytest.raises(hnc_ds.UserError, match="no such folder, and no model of open_clip"):
        hnc_ds.load("runs/frist")


def test_workers_can_have_tokenizer_and_preprocessing(
    runs: dict[str, Path], photo: Image.Image
) -> None:
    _, tokenizer, preprocess = hnc_ds.load(runs["tiny"])
    sent = pickle.loads(pickle.dumps((tokenizer, preprocess)))
    assert torch.equal(sent[0](CAPTIONS), tokenizer(CAPTIONS))
    assert torch.equal(sent[1](photo), preprocess(photo))


@pytest.mark.parametrize("kind", ["blip", "vilt"])
def test_a_cross_encoder_is_that_of_transformers(
    kind: str, tmp_path: Path, photo: Image.Image
) -> None:
    words = " ".join(CAPTIONS).replace(".", " .").split()
    folder = save_cross_encoder(tmp_path / kind, kind, words)
    loaded = hnc_ds.load(f"hf:{folder}")
    assert isinstance(loaded.model, transformers.PreTrainedModel)
    found = loaded.scores(photo, [*CAPTIONS, "the bus"])
    assert found.shape == (1, 3)
    image = loaded.preprocess(photo)[None]
    for place, caption in enumerate([*CAPTIONS, "the bus"]):
        tokens = loaded.tokenizer(caption, return_tensors="pt")
        with torch.no_grad():
            made = loaded.model(**tokens, pixel_values=image)
        logits = made.itm_score if kind == "blip" else made.logits
        expected = logits[0, -1] - logits[0, 0] if logits.shape[1] == 2 else logits[0, 0]
        torch.testing.assert_close(found[0, place], expected, atol=1e-4, rtol=1e-4)


def test_damaged_images_and_folders_are_one_line(
    runs: dict[str, Path], photo: Image.Image, tmp_path: Path
) -> None:
    loaded = hnc_ds.load(runs["tiny"])
    broken = tmp_path / "broken.jpg"
    photo.save(broken)
    broken.write_bytes(broken.read_bytes()[:-2000])
    with Image.open(broken) as image, pytest.raises(hnc_ds.UserError, match="cannot be read"):
        loaded.preprocess(image)
    with pytest.raises(hnc_ds.UserError, match=r"no config\.json"):
        hnc_ds.load(f"hf:{tmp_path}")
