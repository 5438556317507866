"""Text towers: open_clip's padded form, and shorter forms with the same result.

CLIP's text tower also runs without padding: the tokens of all captions in one row, [P, W]. Only
attention uses the captions' positions (attention.py). Lengths are known on the host, so that
nothing synchronizes with a device.

T distinct captions of L tokens, P tokens of all of them together, width of the tower W, of the
embedding D.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, SimpleTokenizer, get_clean_fn

from hnc_ds.model.attention import (
    CAUSAL,
    Packed,
    compiles_varlen,
    has_tower_attention,
    varlen_attention,
)
from hnc_ds.model.hugging_face import text_files

SPARED_ON_DEVICE = 8192
"""Padding tokens from which on an accelerator uses the packed form, which has more kernel launches.
A value between two measurements on an H100 with L/14's text tower: 309 captions took 42 ms packed
and 35 ms trimmed to 24 tokens (about 3,000 tokens of padding); 2,300 captions were faster packed
(about 23,000)."""


def can_pack(device: torch.device, dtype: torch.dtype, is_compiled: bool = False) -> bool:
    """Whether attention over packed captions is fast: with a kernel for it, or on a CPU without
    compilation, where a loop over lengths is fast."""
    if is_compiled:
        return compiles_varlen(device, dtype)
    return device.type == "cpu" or varlen_attention(device, dtype) is not None


def spares_enough(device: torch.device, padded: int, packed: int) -> bool:
    """Whether there is enough padding for the packed form to be faster.

    Args:
        device: Where it is computed.
        padded: Tokens of all captions with padding.
        packed: Tokens without padding.
    """
    return padded - packed >= (1 if device.type == "cpu" else SPARED_ON_DEVICE)


def packed_clip_text(towers: Any, token_TL: torch.Tensor, used_T: torch.Tensor) -> torch.Tensor:
    """Embeddings [T, D] of captions, computed without padding.

    Attention is causal and the feature is read at the end token, so later tokens do not matter.

    Args:
        towers: An open_clip model with CLIP's text tower and ``TowerAttention``.
        token_TL: Captions, on any device.
        used_T: int64, on the host: tokens of each, up to its end token.
    """
    tower = getattr(towers, "text", towers)
    length_T, order_T = used_T.sort(stable=True)
    lengths, device = length_T.tolist(), token_TL.device
    total = sum(lengths)
    length_T, order_T, own_T = on_device(
        device, torch.stack((length_T, order_T, order_T.argsort()))
    )
    ends_T = F.pad(length_T.cumsum(0), (1, 0))
    # Each caption's offset from its position in the P tokens to that in token_TL.
    shift_T = torch.stack((ends_T[:-1], order_T * token_TL.shape[1] - ends_T[:-1]))
    shift_P = shift_T.repeat_interleave(length_T, dim=1, output_size=total)
    at_P = torch.arange(total, device=device)
    dtype = tower.transformer.get_cast_dtype()
    x_PW = tower.token_embedding(token_TL.take(at_P + shift_P[1])).to(dtype)
    # F.embedding sums gradients in a fixed order; indexing does not with several threads.
    place_PW = F.embedding(at_P - shift_P[0], tower.positional_embedding)
    captions = Packed(lengths, ends_T.int(), varlen_attention(device, dtype))
    x_1PW = x_PW[None] + place_PW.to(dtype)  # not a view, which would be compiled separately
    x_PW = tower.transformer(x_1PW, attn_mask=captions)[0]
    return project(tower, tower.ln_final(x_PW.index_select(0, (ends_T[1:] - 1)[own_T])))


def on_device(device: torch.device, host: torch.Tensor) -> torch.Tensor:
    """Copy a host tensor to a device without synchronizing with it."""
    if device.type == "cuda":  # from other memory the driver waits for its queue
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def project(tower: Any, x_TW: torch.Tensor) -> torch.Tensor:
    """Apply open_clip's text projection, which is a matrix, a module or None."""
    projection = tower.text_projection
    if projection is None:
        return x_TW
    return cast(torch.Tensor, projection(x_TW) if callable(projection) else x_TW @ projection)


PLAIN = re.compile(r"[ !-%'-~]*\Z")
"""ASCII without control characters and without &, which starts an HTML entity."""


class WordIds:
    """The same ids as ``SimpleTokenizer.encode``, faster: plain ASCII is not cleaned, and ids of
    words are cached. open_clip's tokenizer spends most of its time on cleaning and on merges.

    Args:
        tokenizer: open_clip's, whose cleaning and merges are used.
    """

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self._tokenizer = tokenizer
        self._lowers = tokenizer.clean_fn is get_clean_fn("lower")
        self._ids: dict[str, tuple[int, ...]] = {}

    def __call__(self, caption: str) -> list[int]:
        """Ids without start and end tokens."""
        found: list[int] = []
        for word in self._tokenizer.pat.findall(self._cleaned(caption)):
            ids = self._ids.get(word)
            found.extend(self._encode(word) if ids is None else ids)
        return found

    def _cleaned(self, caption: str) -> str:
        if self._lowers and PLAIN.match(caption):
            return " ".join(caption.split()).lower()
        return cast(str, self._tokenizer.clean_fn(caption))

    def _encode(self, word: str) -> tuple[int, ...]:
        known = self._tokenizer
        letters = "".join(known.byte_encoder[byte] for byte in word.encode())
        ids = tuple(known.encoder[piece] for piece in known.bpe(letters).split(" "))
        self._ids[word] = ids
        return ids


SPECIAL_TOKENS = 2

TextEncoder = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""(open_clip model, captions [T, L], tokens of each on the host) -> embeddings [T, D]."""


def context_length(settings: dict[str, Any]) -> int:
    """A text tower's context length in tokens, from its text_cfg."""
    return int(settings.get("context_length", DEFAULT_CONTEXT_LENGTH))


class Tokenizer:
    """Captions to token ids. Without weights, so that it can be sent to workers.

    Args:
        tokenize: An open_clip tokenizer.
        context_length: The text tower's context length.
        trim: Whether rows may be cut to the longest caption of a call.
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
        """The padding token's id."""
        return self._padding

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        """int64 [T, L], padded to the longest caption, or to the context length without
        ``trim``."""
        if self._word_ids is None:
            all_TL = self._tokenize(list(captions), self.context_length)
            return self.trimmed(cast(torch.Tensor, all_TL))
        rows = [self._framed(self._word_ids(caption)) for caption in captions]
        length = max(map(len, rows), default=0) if self._trim else self.context_length
        padded = [row + [self._padding] * (length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), length)

    def _framed(self, ids: list[int]) -> list[int]:
        """Ids with start and end tokens, truncated to the context length."""
        start, end = self._tokenize.sot_token_id, self._tokenize.eot_token_id
        return [start, *ids[: self.context_length - SPECIAL_TOKENS], end]

    def trimmed(self, token_TL: torch.Tensor, used_T: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens without columns of padding only, if ``trim`` is set.

        Args:
            token_TL: Captions.
            used_T: Result of ``used_tokens``, on the host; computed if None, which synchronizes
                with the device.
        """
        if not self._trim or not len(token_TL):
            return token_TL
        used_T = self.used_tokens(token_TL) if used_T is None else used_T
        return token_TL[:, : int(used_T.max())]

    def used_tokens(self, token_TL: torch.Tensor) -> torch.Tensor:
        """Tokens of each caption without padding, [T].

        If padding and end token have the same id, the first of them is the end.
        """
        place_L = torch.arange(1, token_TL.shape[1] + 1, device=token_TL.device)
        last_T = ((token_TL != self._padding) * place_L).amax(dim=1)
        return (last_T + self._ends_as_padding).clamp(max=token_TL.shape[1])

    def padded(self) -> "Tokenizer":
        """The same, with every caption padded to the context length."""
        return Tokenizer(self._tokenize, self.context_length, False)

    def byte_pairs(self) -> tuple[dict[str, int], list[tuple[str, str]]] | None:
        """CLIP's vocabulary, start and end last, and its merges in order; None for another
        tokenizer."""
        if self._word_ids is None:
            return None
        merges = sorted(self._tokenize.bpe_ranks, key=self._tokenize.bpe_ranks.__getitem__)
        return dict(self._tokenize.encoder), merges

    def files(self, towers: Any) -> dict[str, bytes]:
        """Files that load the text tower and the tokenizer again; see hugging_face.py."""
        return text_files(towers, self._tokenize)

    def is_too_long(self, caption: str) -> bool:
        """Whether the caption is truncated to the context length."""
        if self._word_ids is None:
            with_room = self._without_padding(caption, self.context_length + 1)
            return with_room != self._without_padding(caption, self.context_length)
        return len(self._word_ids(caption)) + SPECIAL_TOKENS > self.context_length

    def _without_padding(self, caption: str, length: int) -> list[int]:
        row_L = cast(torch.Tensor, self._tokenize([caption], length))[0]
        return cast(list[int], row_L[row_L != self._padding].tolist())


def _padding_of(tokenize: Any) -> tuple[int, bool]:
    """The padding id, and whether it is also that of the end token (SigLIP)."""
    of_hugging_face = getattr(tokenize, "tokenizer", None)
    padding = getattr(of_hugging_face, "pad_token_id", None)
    if padding is None:
        return 0, False
    return int(padding), padding == getattr(of_hugging_face, "eos_token_id", None)


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(wide(rows), dim=-1)


def wide(values: torch.Tensor) -> torch.Tensor:
    """In float32, or a wider dtype."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _open_clip_text(towers: Any, token_TL: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return cast(torch.Tensor, towers.encode_text(token_TL))


def trimmed_clip_text(
    towers: Any, token_TL: torch.Tensor, _: torch.Tensor | None = None
) -> torch.Tensor:
    """CLIP's text tower on its first L positions.

    Attention is causal and the feature is read at the end token, so later positions do not matter.
    (open_clip's CLIP.encode_text needs the full context length.)
    """
    tower = getattr(towers, "text", towers)  # open_clip keeps CLIP's own in the model itself
    length = token_TL.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x_TLW = tower.token_embedding(token_TL).to(dtype)
    x_TLW = x_TLW + tower.positional_embedding[:length].to(dtype)
    own = has_tower_attention(tower)  # causal, as ``exact_text_form`` has checked
    mask = CAUSAL if own else tower.attn_mask[:length, :length]
    x_TLW = tower.transformer(x_TLW, attn_mask=mask)
    x_TLW = tower.ln_final(x_TLW)
    end_T = token_TL.argmax(dim=1)
    x_TW = x_TLW[torch.arange(len(x_TLW), device=x_TLW.device), end_T]
    return project(tower, x_TW)


class TextForm(NamedTuple):
    """How captions are encoded."""

    encode: TextEncoder
    """Encoder of padded or trimmed captions."""
    trims: bool
    """Whether captions may be trimmed to the longest of a call."""
    packs: bool
    """Whether ``packed_clip_text`` gives the same result; used where it is faster."""


def exact_text_form(towers: Any, tokenize: Any, context_length: int) -> TextForm:
    """The fastest form of a text tower with the padded form's embeddings.

    Found by comparing results, not by the model's name: towers without a causal mask, or with
    another pooling, keep the padding that they were trained with."""
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
    """Whether the packed form is faster than the trimmed one for some captions.

    Args:
        towers: An open_clip model with both forms.
        token_TL: Captions, on their device.
        used_T: int64, on the host: tokens of each.
        is_compiled: Whether blocks are compiled; then the packed form needs a kernel.
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
        return False  # another kind of tower
    return bool(torch.allclose(found, expected, atol=1e-5, rtol=0))
