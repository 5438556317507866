"""Greedy answers to several questions at once, each what it is alone.

All prompts begin with the same words and an image. That part is computed once for each image and
kept once (shared_cache.py); all questions about it go on from there, side by side in the image's
row (packing.py, decoding.py).

I images, Q slots of a row, L tokens of the longest question, N = Q * L, P tokens up to and with the
image, R pixels of a side, V words.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hnc_ds.errors import UserError
from hnc_ds.llava.cuda_graphs import StepGraphs
from hnc_ds.llava.decoding import NO_TOKEN, Steps, question_mask, question_positions, reported
from hnc_ds.llava.model import Llava, cache_argument
from hnc_ds.llava.packing import Packed

FIRST_ROOM = 16
"""Tokens of an answer for which there is room at first; VQA's answers have two or three."""
ROUNDED = 8
"""Room of a row is a multiple, as attention on CUDA wants its masks."""
ROUNDED_FOR_GRAPHS = 64
"""The same, so that batches have few shapes."""
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Of attention on CUDA: not cuDNN's, which plans anew for every shape."""


class Generated(NamedTuple):
    """An answer."""

    ids: list[int]
    margin: float
    """By how much the first token's logit leads: where it is small, rounding may decide."""


class Generator:
    """Answers batches one after the other, in memory that stays allocated.

    Args:
        llava: The model.
        before: Token ids before the image.
        longest: Most tokens of an answer.
        cuda_graphs: Whether steps are replayed as CUDA graphs; on a CPU they never are.
    """

    def __init__(
        self, llava: Llava, before: Sequence[int], longest: int, *, cuda_graphs: bool = False
    ) -> None:
        from hnc_ds.llava.shared_cache import SharedCache  # needs transformers

        self.llava, self.longest = llava, longest
        self.cache = SharedCache()
        self._before_1 = torch.tensor([list(before)], device=llava.device)
        language = llava.model.model.language_model
        self._cache_of_whole = {cache_argument(llava.model): self.cache}
        self._cache_of_language = {cache_argument(language): self.cache}
        on_gpu = llava.device.type == "cuda"
        self.graphs = StepGraphs() if cuda_graphs and on_gpu else None
        self._rounded = ROUNDED_FOR_GRAPHS if self.graphs else ROUNDED
        self._steps: dict[tuple[int, int, int], Steps] = {}

    def answer(self, packed: Packed) -> list[list[Generated]]:
        """Answer every slot by the most likely token after token; empty slots get empty answers.

        Raises:
            UserError: The model computes what are no numbers.
        """
        return self.begin(packed).finish()

    @torch.inference_mode()
    def begin(self, packed: Packed) -> "Answering":
        """Compute the first token of every answer, without waiting for the device."""
        device = self.llava.device
        pixels, ids_IN, used_IQ = (tensor.to(device, non_blocking=True) for tensor in packed)
        images, slots = used_IQ.shape
        length = packed.length
        with attention_kernels(device):
            prefix_IPD = self._prefix(pixels)
            prefix = prefix_IPD.shape[1]
            questions_end = prefix + slots * length
            room = self.rounded(questions_end + slots * min(self.longest, FIRST_ROOM))
            self.cache.begin(images, room)
            self.cache.write_from(0, prefix)
            self.llava.model.model.language_model(
                inputs_embeds=prefix_IPD, use_cache=True, **self._cache_of_language
            )
            self.cache.write_from(prefix, questions_end)
            logits_IQV = self.forward(
                ids_IN,
                question_mask(used_IQ, length, prefix, prefix_IPD.dtype),
                question_positions(used_IQ, length, prefix),
                logits_to_keep=torch.arange(1, slots + 1, device=device) * length - 1,
            )
        best_IQ2 = logits_IQV.topk(2, dim=2).values.double()
        token_IQ = logits_IQV.argmax(dim=2)
        steps = self.steps(images, slots, room)
        steps.start(token_IQ, used_IQ, length, prefix)
        first = torch.stack(
            [reported(logits_IQV, token_IQ).double(), best_IQ2[..., 0] - best_IQ2[..., 1]]
        )
        return Answering(self, steps, questions_end, packed.used_IQ, first)

    def forward(
        self,
        ids_IN: torch.Tensor,
        mask_I1NK: torch.Tensor,
        position_IN: torch.Tensor,
        **other: Any,
    ) -> torch.Tensor:
        """Logits of the model with what the cache holds."""
        logits: torch.Tensor = self.llava.model(
            input_ids=ids_IN,
            attention_mask=mask_I1NK,
            position_ids=position_IN,
            use_cache=True,
            **self._cache_of_whole,
            **other,
        ).logits
        return logits

    def rounded(self, room: int) -> int:
        """The room that is made where so much is needed."""
        return -(-room // self._rounded) * self._rounded

    def steps(self, images: int, slots: int, room: int) -> Steps:
        """The tensors of a shape, the same ones each time."""
        shape, model = (images, slots, room), self.llava.model
        if shape not in self._steps:
            self._steps[shape] = Steps.empty(*shape, model.dtype, self.llava.device)
        return self._steps[shape]

    def forget(self) -> None:
        """Free all memory but the model's."""
        from hnc_ds.llava.shared_cache import SharedCache

        self.cache = SharedCache()
        for cache in (self._cache_of_whole, self._cache_of_language):
            cache.update(dict.fromkeys(cache, self.cache))
        self._steps.clear()
        if self.graphs is not None:
            self.graphs.forget()

    def _prefix(self, pixels_I3RR: torch.Tensor) -> torch.Tensor:
        """What the language model gets of the words up to and with the image, [I, P, D]."""
        model = self.llava.model
        found = model.model.get_image_features(
            pixel_values=pixels_I3RR.to(model.dtype), return_dict=True
        )
        image_IPD = torch.stack(list(found.pooler_output)).to(model.dtype)
        words_1PD = model.get_input_embeddings()(self._before_1)
        return torch.cat([words_1PD.expand(len(image_IPD), -1, -1), image_IPD], dim=1)


class Answering:
    """A batch whose first tokens are being computed.

    Args:
        generator: Whose.
        steps: Before the first one.
        questions_end: Tokens of a row of keys before the first answer's.
        used_IQ: Tokens of each question, on the host.
        first_2IQ: First tokens as ``reported``, and their margins; float64 on the device.
    """

    def __init__(
        self,
        generator: Generator,
        steps: Steps,
        questions_end: int,
        used_IQ: torch.Tensor,
        first_2IQ: torch.Tensor,
    ) -> None:
        self._generator, self._steps, self._first_2IQ = generator, steps, first_2IQ
        self._start = self._end = questions_end
        images, self._slots = used_IQ.shape
        self._rows = list(range(images))
        self._ids: list[list[list[int]]] = [[[] for _ in range(self._slots)] for _ in self._rows]
        self._used_IQ = used_IQ
        self._open: list[list[bool]] = []

    @torch.inference_mode()
    def finish(self) -> list[list[Generated]]:
        """Compute the other tokens; waits for the device once a token.

        Raises:
            UserError: The model computes what are no numbers.
        """
        self._open = (self._used_IQ > 0).tolist()
        token_IQ, margin_IQ = fetched(self._first_2IQ)
        with attention_kernels(self._generator.llava.device):
            self._take([[int(token) for token in row] for row in token_IQ])
            for _ in range(1, self._generator.longest):
                if not self._rows:
                    break
                self._take(fetched(self._advance()))
        return [
            [Generated(ids, margin) for ids, margin in zip(*row, strict=True)]
            for row in zip(self._ids, margin_IQ, strict=True)
        ]

    def _take(self, token_IQ: list[list[int]]) -> None:
        """Add a token to each answer that has not ended; drop images once they are half of all."""
        for row, tokens in zip(self._rows, token_IQ, strict=True):
            for slot, token in enumerate(tokens):
                if self._open[row][slot]:
                    self._add(row, slot, token)
        going = [place for place, row in enumerate(self._rows) if any(self._open[row])]
        if 2 * len(going) <= len(self._rows):
            self._rows = [self._rows[place] for place in going]
            if going:
                self._change(going, self._generator.cache.room)

    def _add(self, row: int, slot: int, token: int) -> None:
        if token == NO_TOKEN:
            raise UserError(
                "answer: the model's logits are not finite; its weights are damaged, or too large "
                "for half precision: give --dtype bfloat16 or float32"
            )
        if token in self._generator.llava.stop_ids:
            self._open[row][slot] = False
        else:
            self._ids[row][slot].append(token)

    def _advance(self) -> torch.Tensor:
        generator, cache = self._generator, self._generator.cache
        visible = self._end + self._slots
        if visible > cache.room:
            answers = 2 * (cache.room - self._start)
            self._change(None, generator.rounded(self._start + answers))
        self._end = visible
        if generator.graphs is not None:
            return generator.graphs.advance(self._steps, generator.forward, cache)
        return self._steps.advance(generator.forward, cache, visible)

    def _change(self, kept: list[int] | None, room: int) -> None:
        """Drop rows, or make room."""
        generator = self._generator
        device = generator.llava.device
        on_device = None if kept is None else torch.tensor(kept, device=device)
        steps = generator.steps(len(self._rows), self._slots, room)
        steps.go_on_as(self._steps, on_device)
        generator.cache.change(on_device, room)
        self._steps = steps


def fetched(tensor: torch.Tensor) -> Any:
    """A tensor's numbers as lists: the one place that waits for the device."""
    return tensor.tolist()


@contextmanager
def attention_kernels(device: torch.device) -> Iterator[None]:
    """Leave the choice of attention's kernel to torch, among those of KERNELS on a GPU."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(KERNELS):
        yield
