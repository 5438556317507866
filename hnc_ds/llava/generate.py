"""Greedy answers to several questions at once, each what it is alone.

All prompts begin with the same words and a picture. That part is computed once for each picture, as
keys and values of every layer, and all questions about it go on from there. Questions are padded on
their left, behind the picture; what is padded is masked and has no position.

I images, B questions, P tokens up to and with the picture, L tokens of the longest question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from hnc_ds.errors import UserError
from hnc_ds.llava.model import Llava, cache_argument


class Generated(NamedTuple):
    """An answer."""

    ids: list[int]
    margin: float
    """By how much the first token's logit leads: where it is small, rounding may decide."""


@dataclass(frozen=True)
class Prefix:
    """Prompts up to and with their pictures."""

    cache: Any
    """Of transformers; keys and values [I, heads, P, width] a layer."""
    length: int
    """P."""

    def of(self, image_B: torch.Tensor) -> Any:
        """A new cache with a row for each question."""
        from transformers import DynamicCache

        found = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            found.update(layer.keys[image_B], layer.values[image_B], number)
        return found


@torch.inference_mode()
def encode_prefix(llava: Llava, before: Sequence[int], pixels_I3RR: torch.Tensor) -> Prefix:
    """Compute what all questions about some pictures begin with.

    Args:
        llava: The model.
        before: Token ids before the picture.
        pixels_I3RR: As ``llava.pictures`` gives them.
    """
    model = llava.model
    pixels = pixels_I3RR.to(llava.device, model.dtype)
    features = model.model.get_image_features(pixel_values=pixels, return_dict=True)
    image_IPD = torch.stack(list(features.pooler_output)).to(model.dtype)
    ids = torch.tensor([before], device=llava.device)
    words_1PD = model.get_input_embeddings()(ids)
    words_IPD = words_1PD.expand(len(image_IPD), -1, -1)
    whole_IPD = torch.cat([words_IPD, image_IPD], dim=1)
    found = model.model.language_model(inputs_embeds=whole_IPD, use_cache=True)
    cache = found["cache"] if "cache" in found else found["past_key_values"]  # as cache_argument
    return Prefix(cache, whole_IPD.shape[1])


@torch.inference_mode()
def answer_questions(
    llava: Llava,
    prefix: Prefix,
    image_of: Sequence[int],
    questions: Sequence[Sequence[int]],
    longest: int,
) -> list[Generated]:
    """Answer B questions, each by the most likely token after token.

    Args:
        llava: The model.
        prefix: Of the pictures.
        image_of: Row in the prefix of each question's picture.
        questions: Token ids after the picture.
        longest: Most tokens of an answer.

    Raises:
        UserError: The model computes what are no numbers.
    """
    state = _Rows(llava, prefix, image_of, questions)
    answers: list[list[int]] = [[] for _ in questions]
    margin_B: list[float] = []
    for step in range(longest):
        logits_BV = state.advance()
        if not bool(logits_BV.isfinite().all()):
            raise UserError(
                "answer: the model's logits are not finite; its weights are damaged, or too large "
                "for half precision: give --dtype bfloat16 or float32"
            )
        token_B = logits_BV.argmax(dim=1)
        if step == 0:
            best_B2 = logits_BV.topk(2, dim=1).values
            margin_B = (best_B2[:, 0] - best_B2[:, 1]).tolist()
        for row, token in zip(state.rows, token_B.tolist(), strict=True):
            answers[row].append(token)
        state.go_on_with(token_B, llava.stop_ids)
        if not state.rows:
            break
    return [
        Generated(_until_stop(ids, llava.stop_ids), margin)
        for ids, margin in zip(answers, margin_B, strict=True)
    ]


class _Rows:
    """The questions that have not ended, and the keys and values of all before their next token."""

    def __init__(
        self,
        llava: Llava,
        prefix: Prefix,
        image_of: Sequence[int],
        questions: Sequence[Sequence[int]],
    ) -> None:
        self._llava, self._argument = llava, cache_argument(llava.model)
        device, width = llava.device, max(map(len, questions))
        self.rows = list(range(len(questions)))
        self._ended = [False] * len(questions)
        padded = [[0] * (width - len(ids)) + list(ids) for ids in questions]
        known = [[0] * (width - len(ids)) + [1] * len(ids) for ids in questions]
        self._ids_BL = torch.tensor(padded, device=device)
        before_BP = torch.ones(len(questions), prefix.length, dtype=torch.long, device=device)
        self._mask_BL = torch.cat([before_BP, torch.tensor(known, device=device)], dim=1)
        position_BL = self._mask_BL.cumsum(dim=1) - 1
        self._position_BL = position_BL[:, prefix.length :]
        self._cache = prefix.of(torch.tensor(image_of, device=device))

    def advance(self) -> torch.Tensor:
        """float32 logits [B, V] of the next token."""
        found = self._llava.model(
            input_ids=self._ids_BL,
            attention_mask=self._mask_BL,
            position_ids=self._position_BL,
            use_cache=True,
            logits_to_keep=1,
            **{self._argument: self._cache},
        )
        logits: torch.Tensor = found.logits[:, -1].float()
        return logits

    def go_on_with(self, token_B: torch.Tensor, stop_ids: frozenset[int]) -> None:
        """Take the next tokens; rows that end are dropped once they are half of all."""
        self._ids_BL = token_B[:, None]
        self._position_BL = self._position_BL[:, -1:] + 1
        one_more = self._mask_BL.new_ones(len(token_B), 1)
        self._mask_BL = torch.cat([self._mask_BL, one_more], dim=1)
        ended = [token in stop_ids for token in token_B.tolist()]
        self._ended = [old or new for old, new in zip(self._ended, ended, strict=True)]
        if 2 * sum(self._ended) >= len(self.rows):
            self._keep([place for place, over in enumerate(self._ended) if not over])

    def _keep(self, places: list[int]) -> None:
        self.rows = [self.rows[place] for place in places]
        self._ended = [False] * len(places)
        if not places:
            return
        kept = torch.tensor(places, device=self._ids_BL.device)
        self._cache.batch_select_indices(kept)
        self._ids_BL, self._mask_BL = self._ids_BL[kept], self._mask_BL[kept]
        self._position_BL = self._position_BL[kept]


def _until_stop(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    for place, token in enumerate(ids):
        if token in stop_ids:
            return ids[:place]
    return ids
