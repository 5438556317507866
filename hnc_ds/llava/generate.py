"""Greedy decoding of several questions at once, with the same answers as one by one.

All prompts begin with the same tokens and an image. This prefix is computed and cached once per
image (shared_cache.py); all questions about the image continue from it, side by side in the image's
row (batches.py, decoding.py).

I images, Q slots of a row, L tokens of the longest question, N = Q * L, P tokens up to and with the
image, R pixels of a side, V words.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hnc_ds.errors import UserError
from hnc_ds.llava.batches import Packed
from hnc_ds.llava.decoding import (
    NO_TOKEN,
    DecodingState,
    StepGraphs,
    checked_tokens,
    question_mask,
    question_positions,
)
from hnc_ds.llava.model import Llava, cache_argument

FIRST_CAPACITY = 16
"""Initial capacity, in tokens of an answer; VQA's answers have two or three."""
MULTIPLE = 8
"""The capacity of a row is a multiple of it: CUDA attention needs aligned masks."""
MULTIPLE_FOR_GRAPHS = 64
"""The same with CUDA graphs, so that batches have few shapes."""
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Of attention on CUDA: not cuDNN's, which plans anew for every shape."""


class Generated(NamedTuple):
    """An answer."""

    ids: list[int]
    margin: float
    """Difference of the first token's two largest logits; rounding may decide where it is small."""


Grid = list[list[Generated]]
"""An answer for every slot [I, Q]."""


class Generator:
    """Answers batches in memory that is allocated once.

    Args:
        llava: The model.
        before: Token ids before the image.
        max_new_tokens: Maximum number of tokens of an answer.
        cuda_graphs: Replay steps as CUDA graphs; ignored on a CPU.
    """

    def __init__(
        self, llava: Llava, before: Sequence[int], max_new_tokens: int, *, cuda_graphs: bool = False
    ) -> None:
        from hnc_ds.llava.shared_cache import SharedCache  # needs transformers

        self.llava, self.max_new_tokens = llava, max_new_tokens
        self.cache = SharedCache()
        self._before_1 = torch.tensor([list(before)], device=llava.device)
        language = llava.model.model.language_model
        self._cache_of_whole = {cache_argument(llava.model): self.cache}
        self._cache_of_language = {cache_argument(language): self.cache}
        on_gpu = llava.device.type == "cuda"
        self.graphs = StepGraphs() if cuda_graphs and on_gpu else None
        self._multiple = MULTIPLE_FOR_GRAPHS if self.graphs else MULTIPLE
        self._steps: dict[tuple[int, int, int], DecodingState] = {}

    def answer(self, packed: Packed) -> list[list[Generated]]:
        """Greedy answers to every slot; empty slots get empty answers.

        Raises:
            UserError: The model's logits are not finite.
        """
        return self.begin(packed).finish()

    @torch.inference_mode()
    def begin(self, packed: Packed) -> "PendingBatch":
        """Compute the first token of every answer, without waiting for the device."""
        device = self.llava.device
        pixels, ids_IN, used_IQ = (tensor.to(device, non_blocking=True) for tensor in packed)
        images, slots = used_IQ.shape
        length = packed.length
        with attention_kernels(device):
            prefix_IPD = self._prefix(pixels)
            prefix = prefix_IPD.shape[1]
            questions_end = prefix + slots * length
            capacity = self.rounded(
                questions_end + slots * min(self.max_new_tokens, FIRST_CAPACITY)
            )
            self.cache.begin(images, capacity)
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
        steps = self.steps(images, slots, capacity)
        steps.start(token_IQ, used_IQ, length, prefix)
        first = torch.stack(
            [checked_tokens(logits_IQV, token_IQ).double(), best_IQ2[..., 0] - best_IQ2[..., 1]]
        )
        return PendingBatch(self, steps, questions_end, packed.used_IQ, first)

    def forward(
        self, ids_IN: torch.Tensor, mask_I1NK: torch.Tensor, position_IN: torch.Tensor, **other: Any
    ) -> torch.Tensor:
        """Logits of the model, given the cache."""
        logits: torch.Tensor = self.llava.model(
            input_ids=ids_IN,
            attention_mask=mask_I1NK,
            position_ids=position_IN,
            use_cache=True,
            **self._cache_of_whole,
            **other,
        ).logits
        return logits

    def rounded(self, capacity: int) -> int:
        """The smallest allowed capacity of at least ``capacity`` tokens."""
        return -(-capacity // self._multiple) * self._multiple

    def steps(self, images: int, slots: int, capacity: int) -> DecodingState:
        """The state tensors of a shape, allocated once."""
        shape, model = (images, slots, capacity), self.llava.model
        if shape not in self._steps:
            self._steps[shape] = DecodingState.empty(*shape, model.dtype, self.llava.device)
        return self._steps[shape]

    def forget(self) -> None:
        """Free the cache, the state tensors and the CUDA graphs."""
        from hnc_ds.llava.shared_cache import SharedCache

        self.cache = SharedCache()
        for cache in (self._cache_of_whole, self._cache_of_language):
            cache.update(dict.fromkeys(cache, self.cache))
        self._steps.clear()
        if self.graphs is not None:
            self.graphs.forget()

    def _prefix(self, pixels_I3RR: torch.Tensor) -> torch.Tensor:
        """Input embeddings [I, P, D] of the prompt up to and with the image."""
        model = self.llava.model
        found = model.model.get_image_features(
            pixel_values=pixels_I3RR.to(model.dtype), return_dict=True
        )
        image_IPD = torch.stack(list(found.pooler_output)).to(model.dtype)
        words_1PD = model.get_input_embeddings()(self._before_1)
        return torch.cat([words_1PD.expand(len(image_IPD), -1, -1), image_IPD], dim=1)


class PendingBatch:
    """A batch whose first tokens are being computed.

    Args:
        generator: The generator that started it.
        steps: State before the first decoding step.
        questions_end: Number of keys of a row before the first answer's.
        used_IQ: Tokens of each question, on the host.
        first_2IQ: First tokens and their margins; float64 on the device.
    """

    def __init__(
        self,
        generator: Generator,
        steps: DecodingState,
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
        """Compute the other tokens; synchronizes with the device once a token.

        Raises:
            UserError: The model's logits are not finite.
        """
        self._open = (self._used_IQ > 0).tolist()
        token_IQ, margin_IQ = fetched(self._first_2IQ)
        with attention_kernels(self._generator.llava.device):
            self._take([[int(token) for token in row] for row in token_IQ])
            for _ in range(1, self._generator.max_new_tokens):
                if not self._rows:
                    break
                self._take(fetched(self._advance()))
        return [
            [Generated(ids, margin) for ids, margin in zip(*row, strict=True)]
            for row in zip(self._ids, margin_IQ, strict=True)
        ]

    def _take(self, token_IQ: list[list[int]]) -> None:
        """Add a token to each open answer; drop finished images once they are half of all."""
        for row, tokens in zip(self._rows, token_IQ, strict=True):
            for slot, token in enumerate(tokens):
                if self._open[row][slot]:
                    self._add(row, slot, token)
        going = [place for place, row in enumerate(self._rows) if any(self._open[row])]
        if 2 * len(going) <= len(self._rows):
            self._rows = [self._rows[place] for place in going]
            if going:
                self._change(going, self._generator.cache.capacity)

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
        if visible > cache.capacity:
            answers = 2 * (cache.capacity - self._start)
            self._change(None, generator.rounded(self._start + answers))
        self._end = visible
        if generator.graphs is not None:
            return generator.graphs.advance(self._steps, generator.forward, cache)
        return self._steps.advance(generator.forward, cache, visible)

    def _change(self, kept: list[int] | None, capacity: int) -> None:
        """Keep only the rows ``kept`` (None for all), with another capacity."""
        generator = self._generator
        device = generator.llava.device
        on_device = None if kept is None else torch.tensor(kept, device=device)
        steps = generator.steps(len(self._rows), self._slots, capacity)
        steps.copy_from(self._steps, on_device)
        generator.cache.change(on_device, capacity)
        self._steps = steps


class HalvingGenerator:
    """A generator that halves batches that do not fit into memory, and remembers the limit."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._most: int | None = None

    def begin(self, packed: Packed) -> Callable[[], Grid]:
        """Start a batch without waiting for the device; the returned function finishes it.

        Raises:
            UserError: A single question does not fit, or the model's logits are not finite.
        """
        answering = None
        if self._most is None or packed.used_IQ.numel() <= self._most:
            with suppress(torch.OutOfMemoryError):
                answering = self._generator.begin(packed)
        begun = [] if answering is None else [answering]
        return lambda: self._finished(packed, begun)

    def _finished(self, packed: Packed, begun: list[PendingBatch]) -> Grid:
        with suppress(torch.OutOfMemoryError):
            if begun:
                return begun.pop().finish()
        if self._most is None or packed.used_IQ.numel() <= self._most:
            self._make_smaller(packed.used_IQ.numel())
        return self._in_halves(packed)

    def _make_smaller(self, slots: int) -> None:
        """Lower the limit, and free memory."""
        if slots == 1:
            raise UserError(
                "answer: a single question does not fit into the GPU's memory; give --dtype float16"
            )
        self._most = slots // 2
        self._generator.forget()
        torch.cuda.empty_cache()

    def _in_halves(self, packed: Packed) -> Grid:
        first, second = (self.begin(half)() for half in packed.halves())
        if len(packed.used_IQ) > 1:
            return first + second
        return [first[0] + second[0]]


def fetched(tensor: torch.Tensor) -> Any:
    """A tensor's numbers as lists: the one place that synchronizes with the device."""
    return tensor.tolist()


@contextmanager
def attention_kernels(device: torch.device) -> Iterator[None]:
    """Restrict torch to KERNELS on a GPU."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(KERNELS):
        yield
