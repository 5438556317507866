"""Prompts have LLaVA's own tokens around an image, whichever class transformers takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from hnc_ds.config import AnswerConfig
from hnc_ds.errors import UserError
from hnc_ds.export.llava_files import differs_as_a_whole, load_tokenizer
from hnc_ds.llava.answer import answer
from hnc_ds.model.llava_prompt import around_image, prompt

BLANK, BREAK = "\u2581", "<0x0A>"


def read(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def test_a_prompt_has_llavas_tokens_whichever_class_transformers_takes(
    llava_folder: Callable[..., Path],
) -> None:
    """LLaVA tokenizes both sides of an image by themselves: a blank stands before the line break
    behind it. Llama's class of transformers 5 puts none there, and takes config.json's word."""
    folder = llava_folder()
    tokenizer, image = load_tokenizer(folder, config := read(folder))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    other = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(other).__name__ == "LlamaTokenizer" != type(tokenizer).__name__
    before, after = prompt("What is it?").split("<image>")
    first, second = around_image(tokenizer, before, after)
    assert tokenizer.convert_ids_to_tokens(first[-1:]) == [BLANK]
    assert tokenizer.convert_ids_to_tokens(second[:2]) == [BLANK, BREAK]
    assert tokenizer(f"{before}<image>{after}")["input_ids"] == [*first, image, *second]
    assert differs_as_a_whole(tokenizer, image) is None
    assert around_image(other, before, after) == (first, second)
    assert other(f"{before}<image>{after}")["input_ids"] == [*first, image, *second[1:]]
    message = differs_as_a_whole(other, image)
    assert message is not None
    assert "LlamaTokenizer makes" in message
    assert "\n" not in message


def test_a_tokenizer_whose_library_panics_is_one_line(llava_folder: Callable[..., Path]) -> None:
    """A merge with a piece longer than its token makes the Rust code panic, not raise."""
    folder = llava_folder()
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["continuing_subword_prefix"] = "x" * 99
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"its tokenizer.*copy the tokenizer's files"):
        load_tokenizer(folder, read(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model_type": "llama"},
            "model_type is llama, not llava: transformers would use",
        ),
        ({"model_type": None}, "model_type is None, not llava"),
        (
            {"image_token_index": 3},
            r"the tokenizer makes \[\d+\] of <image>, config.json has .* 3;",
        ),
        ({"text_config": {"vocab_size": 9}}, r"the tokenizer has \d+ tokens, the model 9"),
    ],
)
def test_a_changed_config_beside_the_tokenizer_is_refused_before_a_job_waits(
    llava_folder: Callable[..., Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    folder = llava_folder()
    (folder / "config.json").write_text(json.dumps(read(folder) | settings))
    asked = {"questions": tmp_path / "q.json", "images": tmp_path}
    with pytest.raises(UserError, match=message):
        answer(AnswerConfig(model=folder, dataset="vqav2", check=True, **asked))
