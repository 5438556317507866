"""LLaVA-1.5's prompts, as strings. No torch here.

Source: conversation template vicuna_v1 of LLaVA, and the questions of its evaluation files.
"""

from collections.abc import Sequence

from hnc_ds.export.llava_tokenizer import IMAGE

VERSION = 2
"""Raise it when a question is asked with other tokens: answers on disk are then not continued."""

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
SHORT = "Answer the question using a single word or phrase."


def short_question(question: str, ocr_tokens: Sequence[str] | None = None) -> str:
    """What is asked of VQA v2.0 and TextVQA.

    Args:
        question: As annotated.
        ocr_tokens: Words that were read in the picture; None to ask without them.
    """
    read = [] if ocr_tokens is None else [f"Reference OCR token: {', '.join(ocr_tokens)}"]
    return "\n".join([question, *read, SHORT])


def prompt(text: str) -> str:
    """The whole string that is tokenized; the model goes on after it."""
    return f"{SYSTEM} USER: {IMAGE}\n{text} ASSISTANT:"
