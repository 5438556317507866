"""Text towers: the padded form that open_clip trained, and shorter ones that give the same.

T distinct captions of L tokens, width of the tower W, of the embedding D.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, SimpleTokenizer

from hnc_ds.model.attention import CAUSAL, has_tower_attention
from hnc_ds.model.packed import can_pack, packed_clip_text, project, spares_enough
from hnc_ds.model.text_files import text_files
from hnc_ds.model.word_ids import WordIds

SPECIAL_TOKENS = 2

TextEncoder = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""An open_clip model, captions [T, L] and, on the host, tokens of each, to embeddings [T, D]."""


def context_length(settings: dict[str, Any]) -> int:
    """Tokens that a text tower takes, by its text_cfg."""
    return int(settings.get("context_length", DEFAULT_CONTEXT_LENGTH))


class Tokenizer:
    """Captions -> token ids. Holds no weights, so workers can have it.

    Args:
        tokenize: An open_clip tokenizer.
        context_length: Tokens that the text tower takes.
        trim: Whether rows may be cut to the longest of a call.
    """

    def __init__(self, tokenize: Any, context_length: int, trim: bool) -> None:
        self.context_length = context_length
        self._tokenize = tokenize
        self._trim = trim
        self._padding, self._ends_as_padding = _padding_of(tokenize)
        is_clips = type(tokenize) is SimpleTokenizer and tokenize.reduction_fn is None
        self._word_ids = WordIds(tokenize) if is_clips else None

    @property
    def padding(self) -> int:
        """The id behind captions that are shorter than others."""
        return self._padding

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        """int64 [T, L], padded to the longest caption, or to the context where that is needed."""
        if self._word_ids is None:
            all_TL = self._tokenize(list(captions), self.context_length)
            return self.trimmed(cast(torch.Tensor, all_TL))
        rows = [self._framed(self._word_ids(caption)) for caption in captions]
        length = max(map(len, rows), default=0) if self._trim else self.context_length
        padded = [row + [self._padding] * (length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), length)

    def _framed(self, ids: list[int]) -> list[int]:
        """Between start and end; what is beyond the context is cut off before the end."""
        start, end = self._tokenize.sot_token_id, self._tokenize.eot_token_id
        return [start, *ids[: self.context_length - SPECIAL_TOKENS], end]

    def trimmed(self, token_TL: torch.Tensor, used_T: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens without the columns that none of the captions needs, where that may be.

        Args:
            token_TL: Captions.
            used_T: Of ``used_tokens``, on the host; without it a device is waited for.
        """
        if not self._trim or not len(token_TL):
            return token_TL
        used_T = self.used_tokens(token_TL) if used_T is None else used_T
        return token_TL[:, : int(used_T.max())]

    def used_tokens(self, token_TL: torch.Tensor) -> torch.Tensor:
        """Tokens of each caption without the padding behind it, [T].

        Where padding and the end have one number, the first of them is the end.
        """
        place_L = torch.arange(1, token_TL.shape[1] + 1, device=token_TL.device)
        last_T = ((token_TL != self._padding) * place_L).amax(dim=1)
        return (last_T + self._ends_as_padding).clamp(max=token_TL.shape[1])

    def byte_pairs(self) -> tuple[dict[str, int], list[tuple[str, str]]] | None:
        """Words by id, start and end last, and merges in their order; None where the tokenizer is
        not CLIP's own."""
        if self._word_ids is None:
            return None
        merges = sorted(self._tokenize.bpe_ranks, key=self._tokenize.bpe_ranks.__getitem__)
        return dict(self._tokenize.encoder), merges

    def files(self, towers: Any) -> dict[str, bytes]:
        """What opens the text side of a model again, beside its weights; see text_files.py."""
        return text_files(towers, self._tokenize)

    def is_too_long(self, caption: str) -> bool:
        """Whether the end of the caption is cut off to fit the context."""
        if self._word_ids is None:
            with_room = self._without_padding(caption, self.context_length + 1)
            return with_room != self._without_padding(caption, self.context_length)
        return len(self._word_ids(caption)) + SPECIAL_TOKENS > self.context_length

    def _without_padding(self, caption: str, length: int) -> list[int]:
        row_L = cast(torch.Tensor, self._tokenize([caption], length))[0]
        return cast(list[int], row_L[row_L != self._padding].tolist())


def _padding_of(tokenize: Any) -> tuple[int, bool]:
    """The id behind captions, and whether it is that of their end as well (SigLIP's)."""
    of_hugging_face = getattr(tokenize, "tokenizer", None)
    padding = getattr(of_hugging_face, "pad_token_id", None)
    if padding is None:
        return 0, False
    return int(padding), padding == getattr(of_hugging_face, "eos_token_id", None)


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(wide(rows), dim=-1)


def wide(values: torch.Tensor) -> torch.Tensor:
    """In float32, or in what is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _open_clip_text(towers: Any, token_TL: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return cast(torch.Tensor, towers.encode_text(token_TL))


def trimmed_clip_text(
    towers: Any, token_TL: torch.Tensor, _: torch.Tensor | None = None
) -> torch.Tensor:
    """CLIP's text tower on its first L positions.

    Attention is causal and the feature is read at the end token, so what is left out behind it
    cannot change it. (open_clip's CLIP.encode_text adds all positions and takes no fewer.)
    """
    tower = getattr(towers, "text", towers)  # open_clip keeps CLIP's own in the model itself
    length = token_TL.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x_TLW = tower.token_embedding(token_TL).to(dtype)
    x_TLW = x_TLW + tower.positional_embedding[:length].to(dtype)
    own = has_tower_attention(tower)  # the mask is causal, or ``exact_text_form`` would not be here
    mask = CAUSAL if own else tower.attn_mask[:length, :length]
    x_TLW = tower.transformer(x_TLW, attn_mask=mask)
    x_TLW = tower.ln_final(x_TLW)
    end_T = token_TL.argmax(dim=1)
    x_TW = x_TLW[torch.arange(len(x_TLW), device=x_TLW.device), end_T]
    return project(tower, x_TW)


class TextForm(NamedTuple):
    """How captions are encoded."""

    encode: TextEncoder
    """With all padding, or with what ``trims`` leaves of it."""
    trims: bool
    """Whether captions may be cut to the longest of a call."""
    packs: bool
    """Whether ``packed_clip_text`` gives the same; it is used where it is quicker."""


def exact_text_form(towers: Any, tokenize: Any, context_length: int) -> TextForm:
    """The shortest way to encode text that gives the padded form's embeddings.

    Decided by a check and not by the model's name: towers without a causal mask, or that pool
    elsewhere, get the padding they were trained with.
    """
    probes = ["a", "the red star is above the blue ring", "two dogs and a cat on an old sofa"]
    tokenizer = Tokenizer(tokenize, context_length, True)
    padded_TL = Tokenizer(tokenize, context_length, False)(probes)
    trimmed_TL = tokenizer(probes)
    used_T = tokenizer.used_tokens(trimmed_TL)
    training = towers.training
    towers.eval()
    try:
        with torch.no_grad():
            expected = unit_rows(towers.encode_text(padded_TL))

            def is_exact(encode: TextEncoder) -> bool:
                return _agrees(encode, towers, (trimmed_TL, used_T), expected)

            if is_exact(trimmed_clip_text):
                own = has_tower_attention(getattr(towers, "text", towers))
                return TextForm(trimmed_clip_text, True, own and is_exact(packed_clip_text))
            return TextForm(_open_clip_text, is_exact(_open_clip_text), False)
    finally:
        towers.train(training)


def packs_now(
    towers: Any, token_TL: torch.Tensor, used_T: torch.Tensor, is_compiled: bool = False
) -> bool:
    """Whether the packed form is quicker than the trimmed one for some captions.

    Args:
        towers: An open_clip model that can do both.
        token_TL: Captions, on their device.
        used_T: int64, on the host: tokens of each.
        is_compiled: Whether blocks are compiled, which is for a kernel that takes captions of any
            lengths, not for a loop over them.
    """
    tower, device = getattr(towers, "text", towers), token_TL.device
    can = can_pack(device, tower.transformer.get_cast_dtype(), is_compiled)
    return can and spares_enough(device, token_TL.numel(), int(used_T.sum()))


def _agrees(
    encode: TextEncoder,
    towers: Any,
    captions: tuple[torch.Tensor, torch.Tensor],
    expected: torch.Tensor,
) -> bool:
    try:
        found = unit_rows(encode(towers, *captions))
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return False  # a tower of another make
    return bool(torch.allclose(found, expected, atol=1e-5, rtol=0))
