"""CLIP's tokenizer in Hugging Face's layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hnc_ds.errors import UserError
from hnc_ds.model.clip import Clip

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(clip: Clip, folder: Path) -> bool:
    """Write the tokenizer, where the model's is CLIP's own; whether it was written."""
    from transformers import CLIPTokenizer

    known = clip.tokenize.byte_pairs()
    if known is None:
        return False
    words, merges = known
    vocabulary = {word: number for word, number in words.items() if number < len(words) - 2}
    vocabulary |= {START: len(words) - 2, END: len(words) - 1}
    tokenizer: Any = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=clip.tokenize.context_length,
    )
    tokenizer.save_pretrained(folder)
    return True


def same_ids(clip: Clip, folder: Path, captions: Sequence[str]) -> None:
    """Refuse a tokenizer that gives other ids.

    Raises:
        UserError: It does.
    """
    from transformers import AutoTokenizer

    theirs: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for caption in captions:
        row = clip.tokenize([caption])[0]
        ours = row[: int(row.argmax()) + 1].tolist()
        found = theirs(caption, truncation=True)["input_ids"]
        if ours != found:
            raise UserError(f"export: '{caption}' has ids {found} in place of {ours}")
