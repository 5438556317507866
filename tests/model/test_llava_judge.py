"""A LLaVA judges captions by the probability of Yes, as its own forward gives it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hnc_ds.config import EvaluateConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.evaluate import evaluate
from hnc_ds.evaluation.results import read_measurement
from hnc_ds.llava.model import ImageView
from hnc_ds.model.cross_encoder import CrossEncoder, load_cross_encoder
from hnc_ds.model.llava_judge import QUESTION, YES
from hnc_ds.model.llava_prompt import IMAGE, around_image, prompt
from hnc_ds.shards.images import decode_image, evaluation_view

CAPTIONS = ["a red star", "the blue ring is left of the lime star", 'a "small" word']


@pytest.fixture(scope="module")
def judge(llava_folder: Path) -> CrossEncoder:
    return load_cross_encoder(str(llava_folder))


def test_the_score_is_the_log_odds_of_yes_in_the_models_own_forward(
    judge: Any, images: Path
) -> None:
    file = sorted(images.iterdir())[1]
    view = evaluation_view(decode_image(file.read_bytes()), judge.image_settings)[None]
    ids, is_long = judge.tokenize.ids(CAPTIONS)
    assert is_long == [False] * 3
    tokenizer = judge.tokenize.tokenizer
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    yes = around_image(tokenizer, "", YES)[1][0]
    length = max(map(len, ids))
    with torch.inference_mode():
        seen = judge.see(view)
        token_PL = torch.tensor([[*row, *[0] * (length - len(row))] for row in ids])
        mask_PL = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
        found_P = judge.match(seen.expand(3, -1, -1), token_PL, mask_PL)
        for caption, found in zip(CAPTIONS, found_P, strict=True):
            before, after = prompt(QUESTION.format(caption)).split(IMAGE)
            first, second = around_image(tokenizer, before, after)
            row = torch.tensor([[*first, *[image_id] * seen.shape[1], *second]])
            logits = judge.towers(input_ids=row, pixel_values=judge.pixels(view)).logits[0, -1]
            probability = logits.double().softmax(dim=0)[yes]
            expected = torch.log(probability) - torch.log1p(-probability)
            assert found.item() == pytest.approx(expected.item(), abs=1e-4)
    assert found_P.std() > 1e-3


def test_images_are_padded_as_llava_pads_them(
    judge: Any, llava_folder: Path, images: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long.png"
    Image.effect_noise((90, 20), 80).convert("RGB").save(long)
    view = ImageView(llava_folder)
    for file in (*sorted(images.iterdir())[:3], long):
        ours = judge.pixels(
            evaluation_view(decode_image(file.read_bytes()), judge.image_settings)[None]
        )
        # Both round to whole pixels, one after each of Pillow's passes; a JPEG may be decoded by
        # two libraries.
        assert (ours[0] - view(file)).abs().mean() < 0.02, file.name


def test_evaluate_takes_it_and_train_does_not(
    llava_folder: Path, few_scenes: Path, tmp_path: Path, judge: Any
) -> None:
    out, model = tmp_path / "out.json", f"hf:{llava_folder}"
    config = EvaluateConfig(models=(model,), shards=str(few_scenes), out=out, workers=0)
    evaluate(config)
    rows = read_measurement(out).rows
    assert ("hnc-shards", "pair_accuracy", "all") in rows
    assert ("hnc-shards", "match_accuracy", "all") in rows
    with pytest.raises(UserError, match="judges captions"):
        judge.prepare_for_training()
