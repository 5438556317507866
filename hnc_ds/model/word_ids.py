"""CLIP's byte-pair encoding, faster: what cannot change is not cleaned, and words are kept.

open_clip's own spends most of its time looking for broken characters and joining what it looks up;
an image with its negatives has several captions.
"""

import re
from typing import cast

from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

PLAIN = re.compile(r"[ !-%'-~]*\Z")
"""ASCII without control characters and without &, with which an entity begins."""


class WordIds:
    """The same ids as ``SimpleTokenizer.encode``.

    Args:
        tokenizer: open_clip's, whose cleaning and merges are used.
    """

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self._tokenizer = tokenizer
        self._lowers = tokenizer.clean_fn is get_clean_fn("lower")
        self._ids: dict[str, tuple[int, ...]] = {}

    def __call__(self, caption: str) -> list[int]:
        """Ids without those of start and end."""
        found: list[int] = []
        for word in self._tokenizer.pat.findall(self._cleaned(caption)):
            ids = self._ids.get(word)
            found.extend(self._learned(word) if ids is None else ids)
        return found

    def _cleaned(self, caption: str) -> str:
        if self._lowers and PLAIN.match(caption):
            return " ".join(caption.split()).lower()
        return cast(str, self._tokenizer.clean_fn(caption))

    def _learned(self, word: str) -> tuple[int, ...]:
        known = self._tokenizer
        letters = "".join(known.byte_encoder[byte] for byte in word.encode())
        ids = tuple(known.encoder[piece] for piece in known.bpe(letters).split(" "))
        self._ids[word] = ids
        return ids
