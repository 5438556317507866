"""A LLaVA folder's tokenizer: prompts as LLaVA's own code tokenizes them.

LLaVA tokenizes what stands before and after ``<image>`` each by itself, so that Llama's tokenizer
puts a blank before what follows the image. transformers tokenizes the whole, and does the same
with the hub's tokenizer.json, which it takes as it is where config.json says that the model is a
'llava'; where it does not, it makes a LlamaTokenizer, which puts no blank there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hnc_ds.errors import UserError
from hnc_ds.reading import reading

IMAGE = "<image>"
PROBE = ("USER: ", "\nWhat is it? ASSISTANT:")
"""Before and after the image."""


def load_tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[Any, int]:
    """transformers' tokenizer of a LLaVA folder, and the id that stands for an image.

    Args:
        folder: Of the model.
        config: Its config.json.

    Raises:
        UserError: There is no tokenizer; it has no single token for an image, another one than the
            model, or more tokens than the model.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UserError("LLaVA needs transformers; pip install 'hnc-ds[llava]'") from error
    again = "copy the tokenizer's files from the original folder"
    for file in folder.glob("*.json"):
        if file.is_file() and file.stat().st_size > 1 << 28:
            raise UserError(f"{file}: has more than 256 MiB, so it is another file; {again}")
    with reading(f"{folder}, its tokenizer", again, by="transformers"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        found = list(tokenizer(IMAGE, add_special_tokens=False)["input_ids"])
        known = len(tokenizer)
    image_id = config.get("image_token_index", config.get("image_token_id"))
    if found != [image_id]:
        raise UserError(
            f"{folder}: the tokenizer makes {found} of {IMAGE}, config.json says {image_id} "
            "(image_token_index); copy both from the original folder"
        )
    size = (config.get("text_config") or {}).get("vocab_size")
    if isinstance(size, int) and known > size:
        raise UserError(
            f"{folder}: the tokenizer has {known:,} tokens, the model {size:,}; copy the "
            "tokenizer's files from the original folder"
        )
    return tokenizer, found[0]


def around_image(tokenizer: Any, before: str, after: str) -> tuple[list[int], list[int]]:
    """Token ids before and after an image, as LLaVA's own code has them.

    Args:
        tokenizer: Of the model.
        before: Text; its ids begin with the tokenizer's first token, if it has one.
        after: Text; its ids do not.
    """
    first, second = (list(tokenizer(text)["input_ids"]) for text in (before, after))
    start = tokenizer.bos_token_id
    begins = start is not None and second[:1] == [start]
    return first, second[1:] if begins else second


def differs_as_a_whole(tokenizer: Any, image_id: int) -> str | None:
    """A line where a prompt that is tokenized as a whole, as servers do it, has other tokens than
    LLaVA's own code gives it; None where it has not."""
    first, second = around_image(tokenizer, *PROBE)
    whole = list(tokenizer(IMAGE.join(PROBE))["input_ids"])
    if whole == [*first, image_id, *second]:
        return None
    return (
        f"warning: {type(tokenizer).__name__} makes {len(whole)} tokens of a prompt of which LLaVA "
        f"makes {len(first) + 1 + len(second)}; 'hnc-ds answer' uses LLaVA's, servers do not. Copy "
        "tokenizer.json, tokenizer_config.json and config.json from the original folder"
    )
