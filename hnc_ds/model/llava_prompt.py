"""The prompt of LLaVA-1.5, and its tokens around the image. Without transformers."""

from typing import Any

IMAGE = "<image>"

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)


def prompt(text: str) -> str:
    """The whole prompt of a user's message."""
    return f"{SYSTEM} USER: {IMAGE}\n{text} ASSISTANT:"


def around_image(tokenizer: Any, before: str, after: str) -> tuple[list[int], list[int]]:
    """Token ids before and after an image, as in LLaVA's own code.

    Args:
        tokenizer: The model's tokenizer.
        before: Text before the image; its ids begin with the BOS token, if there is one.
        after: Text after the image; its ids do not.
    """
    first, second = (list(tokenizer(text)["input_ids"]) for text in (before, after))
    start = tokenizer.bos_token_id
    begins = start is not None and second[:1] == [start]
    return first, second[1:] if begins else second
