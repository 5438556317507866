"""Tokens of all questions of all images, a step at a time, in tensors that stay where they are.

A row of keys holds its image's prefix, then the questions, then an answer token of every question
for every step: [P | Q * L | Q | Q | ...]. Masks are added to attention's scores: 0, or -inf where a
question must not look. A question sees the prefix, itself without its padding, and its own answer.
No function here waits for the device.

I images, Q slots of a row, L tokens of the longest question, N = Q * L, P tokens of the prefix,
K tokens for which there is room, V words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Forward = Callable[..., torch.Tensor]

HIDDEN = float("-inf")
ALIGNED = 8
"""Elements: attention on CUDA copies a mask whose rows do not start at a multiple of it."""


def question_mask(
    used_IQ: torch.Tensor, length: int, prefix: int, dtype: torch.dtype
) -> torch.Tensor:
    """What tokens of questions see, [I, 1, N, P + N].

    Padding sees the prefix alone: a row that sees nothing would be no number.

    Args:
        used_IQ: Tokens of each question.
        length: L.
        prefix: P.
        dtype: The model's.
    """
    images, slots = used_IQ.shape
    device, count = used_IQ.device, slots * length
    token_N = torch.arange(count, device=device)
    slot_N, place_N = token_N // length, token_N % length
    own_NN = (slot_N[:, None] == slot_N) & (place_N[:, None] >= place_N)
    seen_INN = own_NN & _real(used_IQ, length)[:, None]
    columns = -(-(prefix + count) // ALIGNED) * ALIGNED
    mask = torch.zeros(images, 1, count, columns, dtype=dtype, device=device)
    mask = mask[..., : prefix + count]
    mask[..., prefix:].masked_fill_(~seen_INN[:, None], HIDDEN)
    return mask


def _real(used_IQ: torch.Tensor, length: int) -> torch.Tensor:
    """Which tokens [I, N] are no padding."""
    place_L = torch.arange(length, device=used_IQ.device)
    return (place_L >= length - used_IQ[:, :, None]).flatten(1)


def question_positions(used_IQ: torch.Tensor, length: int, prefix: int) -> torch.Tensor:
    """Position [I, N] of tokens of questions, as if each question stood alone behind the prefix.

    Args:
        used_IQ: Tokens of each question.
        length: L.
        prefix: P.
    """
    place_L = torch.arange(length, device=used_IQ.device)
    place_IQL = place_L - (length - used_IQ[:, :, None])
    return prefix + place_IQL.clamp_min(0).flatten(1)


@dataclass(frozen=True)
class Steps:
    """What a step reads and changes in place."""

    ids_IQ: torch.Tensor
    """The tokens to go on from."""
    position_IQ: torch.Tensor
    """Of these tokens."""
    place_Q: torch.Tensor
    """Where in a row of keys they are written."""
    mask_I1QK: torch.Tensor
    """What they see."""
    own_1QQ: torch.Tensor
    """The part of the mask that a step adds."""

    @classmethod
    def empty(
        cls, images: int, slots: int, room: int, dtype: torch.dtype, device: torch.device
    ) -> "Steps":
        """Tensors of a shape, to be filled by ``start``."""
        whole = torch.int64
        own_QQ = torch.full((slots, slots), HIDDEN, dtype=dtype, device=device)
        return cls(
            torch.zeros(images, slots, dtype=whole, device=device),
            torch.zeros(images, slots, dtype=whole, device=device),
            torch.zeros(slots, dtype=whole, device=device),
            torch.zeros(images, 1, slots, room, dtype=dtype, device=device),
            own_QQ.fill_diagonal_(0.0)[None],
        )

    def start(
        self, token_IQ: torch.Tensor, used_IQ: torch.Tensor, length: int, prefix: int
    ) -> None:
        """Before the first step.

        Args:
            token_IQ: The first token of each answer.
            used_IQ: Tokens of each question.
            length: L.
            prefix: P.
        """
        slots = used_IQ.shape[1]
        end = prefix + slots * length
        slot_Q = torch.arange(slots, device=used_IQ.device)
        self.ids_IQ.copy_(token_IQ)
        self.position_IQ.copy_(used_IQ).add_(prefix)
        self.place_Q.copy_(slot_Q).add_(end)
        own_QN = slot_Q[:, None] == slot_Q.repeat_interleave(length, output_size=slots * length)
        seen_IQN = own_QN & _real(used_IQ, length)[:, None]
        self.mask_I1QK[..., :prefix].zero_()
        self.mask_I1QK[..., prefix:].fill_(HIDDEN)
        self.mask_I1QK[..., prefix:end].masked_fill_(seen_IQN[:, None], 0.0)

    def go_on_as(self, other: "Steps", kept: torch.Tensor | None) -> None:
        """Take over another shape's state.

        Args:
            other: Has more images, or less room.
            kept: int64 numbers of its rows, on the device; None for all.
        """
        pairs = [
            (self.ids_IQ, other.ids_IQ),
            (self.position_IQ, other.position_IQ),
            (self.mask_I1QK[..., : other.mask_I1QK.shape[3]], other.mask_I1QK),
        ]
        self.mask_I1QK.fill_(HIDDEN)
        for mine, theirs in pairs:
            mine.copy_(theirs if kept is None else theirs.index_select(0, kept))
        self.place_Q.copy_(other.place_Q)

    def advance(self, forward: Forward, cache: Any, visible: int) -> torch.Tensor:
        """Compute the next token of each answer; what ``reported`` returns of it.

        Args:
            forward: The model with its cache: token ids, mask and positions to logits.
            cache: Keys and values of all before.
            visible: Tokens of a row that attention gets; those of this step are among them.
        """
        images, _, slots, _ = self.mask_I1QK.shape
        own_I1QQ = self.own_1QQ.expand(images, 1, slots, slots)
        self.mask_I1QK.index_copy_(3, self.place_Q, own_I1QQ)
        cache.write_at(self.place_Q, visible)
        mask = self.mask_I1QK[..., :visible]
        logits_IQV = forward(self.ids_IQ, mask, self.position_IQ)
        self.place_Q.add_(slots)
        self.position_IQ.add_(1)
        token_IQ = logits_IQV.argmax(dim=2)
        self.ids_IQ.copy_(token_IQ)
        return reported(logits_IQV, token_IQ)


NO_TOKEN = -1
"""In a report, where logits are not finite."""


def reported(logits_IQV: torch.Tensor, token_IQ: torch.Tensor) -> torch.Tensor:
    """Tokens [I, Q], NO_TOKEN where the logits are not finite."""
    return token_IQ.masked_fill(~logits_IQV.isfinite().all(dim=2), NO_TOKEN)
