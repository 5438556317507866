"""Questions to LLaVA on the device: hnc_ds beside transformers' generate.

LLaVA-1.5-7B's shape with random weights, float16, made on the device; five questions an image and
five tokens an answer. Images are random numbers, packed before: `hnc-ds answer` has worker
processes for that. Before anything is timed a small model in float32 must give generate's answers.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch

from hnc_ds.llava.batches import Packed, batches, pack, slots_of
from hnc_ds.llava.generate import Generator
from hnc_ds.llava.model import Llava
from hnc_ds.llava.questions import VqaQuestion
from speed.on_gpu.ground import Ground, Recorder, Row
from speed.timing import Check, Timing, alternate

GIB = 2**30
PATCH = 14


class Shape(NamedTuple):
    """Of a LLaVA, as transformers' configurations have it."""

    side: int
    """Pixels."""
    tower: dict[str, int]
    language: dict[str, int]
    before: int
    """Tokens before the image."""


LLAVA = Shape(
    336,
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    | {"num_attention_heads": 16, "projection_dim": 768},
    {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    | {"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064},
    36,
)
SMALL = Shape(
    56,
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "projection_dim": 64},
    {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    | {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 600},
    7,
)
IMAGE_ID, END_ID, PAD_ID, FIRST_WORD_ID = 0, 1, 2, 3

QUESTIONS_OF_IMAGE, LONGEST = 5, 5
QUESTION_TOKENS = (20, 34)
"""With 'Answer the question using a single word or phrase. ASSISTANT:'."""
IMAGES, FEW, MANY = 64, 20, 160
"""Images; questions of the slow variants, and of those compared in turns."""
QUICK_IMAGES, QUICK_FEW, QUICK_MANY = 2, 3, 10
ROUNDS, QUICK_ROUNDS = 3, 1
AGREEING_LONGEST = 24
"""More than the initial capacity."""
OURS, GRAPHS, THEIRS = "hnc_ds", "hnc_ds, CUDA graphs", "transformers' generate"
ONE_MORE_SECONDS = 12.0
"""What one more variant may take: not begun with less time left."""

Answers = dict[str, list[int]]
Variant = Callable[[list[VqaQuestion]], Answers]


def measure(ground: Ground, recorder: Recorder) -> None:
    """Whether answers are right on this device, then questions/s."""
    with recorder.attempt("answers of a small model"):
        _check_answers(ground, recorder)
    dtype = torch.float16 if ground.device.type == "cuda" else torch.float32
    shape = SMALL if ground.quick or ground.device.type != "cuda" else LLAVA
    made = _made(shape, QUICK_IMAGES if ground.quick else IMAGES, ground.device, dtype)
    few, many = (QUICK_FEW, QUICK_MANY) if ground.quick else (FEW, MANY)
    speed = _Speed(made, ground, recorder)
    with recorder.attempt("32 at once"):
        speed.compare(made.asked[:many])
    on_gpu = ground.device.type == "cuda"
    graphs = partial(Ours, graphs=True)
    variants: list[tuple[str, int, Callable[[Made, int], Variant], int]] = [
        (OURS, 128, Ours, len(made.asked)),
        (OURS, 64, Ours, len(made.asked)),
        *[(GRAPHS, size, graphs, count) for size, count in ((32, many), (1, few)) if on_gpu],
        (THEIRS, 1, Theirs, few),
        (OURS, 1, Ours, few),
        (OURS, 16, Ours, many),
        (THEIRS, 16, Theirs, many // 2),
        *[(GRAPHS, 128, graphs, len(made.asked)) for _ in range(on_gpu)],
    ]
    for what, size, variant, count in variants:
        if not ground.quick and ground.left() < ONE_MORE_SECONDS:
            recorder.note(f"{what} with {size} at once was left out: no time.")
            continue
        with recorder.attempt(f"{what}, {size} at once"):
            speed.alone(what, size, variant(made, size), made.asked[:count])
    speed.tell_agreement()
    if on_gpu and ground.left() > ONE_MORE_SECONDS:
        with recorder.attempt("host waits"):
            recorder.note(_host_waits(made))


@dataclass(frozen=True)
class Made:
    """A model with questions to it."""

    llava: Llava
    shape: Shape
    asked: list[VqaQuestion]
    before: list[int]
    """Token ids before the image."""
    ids: Mapping[str, list[int]]
    """Token ids after it, by question."""
    pixels: Mapping[str, torch.Tensor]

    def packed(self, batch: list[VqaQuestion]) -> tuple[Packed, list[tuple[int, int]]]:
        """For ``Generator``, with the row and slot of every question."""
        names = list(dict.fromkeys(question.image for question in batch))
        image_of = [names.index(question.image) for question in batch]
        pixels = torch.stack([self.pixels[name] for name in names])
        found = pack(pixels, image_of, [self.ids[question.unit] for question in batch])
        if self.llava.device.type == "cuda":
            found = Packed(*(tensor.pin_memory() for tensor in found))
        return found, slots_of(image_of)


def _made(
    shape: Shape, images: int, device: torch.device, dtype: torch.dtype, ragged: bool = False
) -> Made:
    draw = random.Random(0)
    asked, ids = [], {}
    words = range(FIRST_WORD_ID, shape.language["vocab_size"])
    for image in range(images):
        for number in range(1 + image % 7 if ragged else QUESTIONS_OF_IMAGE):
            unit = f"{image}-{number}"
            ids[unit] = draw.choices(words, k=draw.randint(*QUESTION_TOKENS))
            asked.append(VqaQuestion(unit, unit, str(image), "word" * len(ids[unit])))
    generator = torch.Generator().manual_seed(0)
    pixels = {
        str(image): torch.randn(3, shape.side, shape.side, generator=generator)
        for image in range(images)
    }
    model = _model(shape, device, dtype)
    stop = frozenset([END_ID])
    none: Any = None
    llava = Llava(model, tokenizer=none, view=none, device=device, stop_ids=stop)
    return Made(llava, shape, asked, draw.choices(words, k=shape.before), ids, pixels)


def _model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    import transformers

    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **shape.tower, image_size=shape.side, patch_size=PATCH, hidden_act="quick_gelu"
        ),
        text_config=transformers.LlamaConfig(
            **shape.language,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            pad_token_id=PAD_ID,
            bos_token_id=FIRST_WORD_ID,
            eos_token_id=END_ID,
        ),
        image_token_index=IMAGE_ID,
        image_seq_length=(shape.side // PATCH) ** 2,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    try:
        with device:
            model = transformers.LlavaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = END_ID
    model.generation_config.pad_token_id = PAD_ID
    return model


class Ours:
    """As ``hnc-ds answer`` answers, with memory and graphs that stay for the next turn.

    Args:
        made: The model.
        size: Most questions at once.
        graphs: Whether steps are replayed as CUDA graphs.
        max_new_tokens: Most tokens of an answer.
    """

    def __init__(
        self, made: Made, size: int, graphs: bool = False, max_new_tokens: int = LONGEST
    ) -> None:
        self._made, self._size = made, size
        self._generator = Generator(made.llava, made.before, max_new_tokens, cuda_graphs=graphs)

    def __call__(self, asked: list[VqaQuestion]) -> Answers:
        found: Answers = {}
        for batch in batches(asked, self._size):
            packed, grid = self._made.packed(batch)
            answers = self._generator.answer(packed)
            for question, (row, slot) in zip(batch, grid, strict=True):
                found[question.unit] = answers[row][slot].ids
        return found


class Theirs:
    """As model_vqa_loader.py of LLaVA answers, or several at once, padded on their left.

    Args:
        made: The model.
        size: Questions at once.
        max_new_tokens: Most tokens of an answer.
    """

    def __init__(self, made: Made, size: int, max_new_tokens: int = LONGEST) -> None:
        self._made, self._size, self._longest = made, size, max_new_tokens

    @torch.inference_mode()
    def __call__(self, asked: list[VqaQuestion]) -> Answers:
        found = Answers()
        for start in range(0, len(asked), self._size):
            found |= self._batch(asked[start : start + self._size])
        return found

    def _batch(self, batch: list[VqaQuestion]) -> Answers:
        made, model, device = self._made, self._made.llava.model, self._made.llava.device
        image = [IMAGE_ID] * model.config.image_seq_length
        rows = [[*made.before, *image, *made.ids[question.unit]] for question in batch]
        width = max(map(len, rows))
        ids = torch.tensor([[PAD_ID] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        pixels = torch.stack([made.pixels[question.image] for question in batch])
        generated = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            pixel_values=pixels.to(device, model.dtype),
            max_new_tokens=self._longest,
            do_sample=False,
        )
        found = Answers()
        for question, row in zip(batch, generated[:, width:].tolist(), strict=True):
            end = row.index(END_ID) if END_ID in row else len(row)
            found[question.unit] = row[:end]
        return found


def _check_answers(ground: Ground, recorder: Recorder) -> None:
    """A small model in float32: questions of all lengths, answers that end at different times."""
    made = _made(SMALL, 7, ground.device, torch.float32, ragged=True)
    with torch.no_grad():  # wide, so that tokens differ, and some end an answer
        for parameter in made.llava.model.parameters():
            parameter.mul_(3.0 if parameter.ndim > 1 else 1.0)
        head = made.llava.model.lm_head.weight
        head[END_ID] = 1.3 * head[FIRST_WORD_ID]
    expected = Theirs(made, 1, AGREEING_LONGEST)(made.asked)
    variants = {"": False}
    if ground.device.type == "cuda":
        variants[", with CUDA graphs"] = True
    for what, graphs in variants.items():
        for size in (1, 8, 32):
            found = Ours(made, size, graphs, AGREEING_LONGEST)(made.asked)
            recorder.check(
                Check(
                    f"answers of a small model in float32 that differ from generate's, one by "
                    f"one: {size} at once{what}",
                    _differing(found, expected),
                    0,
                )
            )


def _differing(found: Answers, expected: Answers) -> int:
    return sum(found[unit] != ids for unit, ids in expected.items() if unit in found)


class _Speed:
    """Questions/s of the variants, and what they answered."""

    def __init__(self, made: Made, ground: Ground, recorder: Recorder) -> None:
        self._made, self._ground, self._recorder = made, ground, recorder
        self._answers: dict[str, Answers] = {}
        self._baseline: float | None = None
        self._best = 0.0
        """Largest ratio of ours to generate with 32 at once."""
        parameters = sum(p.numel() for p in made.llava.model.parameters()) / 1e9
        recorder.note(
            f"{parameters:.1f} billion parameters, {made.llava.model.dtype}; "
            f"{QUESTIONS_OF_IMAGE} questions an image, {LONGEST} tokens an answer, "
            f"{made.shape.before + (made.shape.side // PATCH) ** 2} tokens up to and with the "
            f"image, {QUESTION_TOKENS[0]} to {QUESTION_TOKENS[1]} after it."
        )

    def compare(self, asked: list[VqaQuestion]) -> None:
        """Ours and theirs with 32 at once, in turns."""
        variants: dict[str, Variant] = {OURS: Ours(self._made, 32), THEIRS: Theirs(self._made, 32)}
        memory = {}
        for name, variant in variants.items():
            self._ground.free()
            computed = _images_computed(self._made, partial(variant, asked))
            memory[name] = self._memory()
            self._answers[f"{name}, 32 at once"] = computed.answers
            if name == OURS:
                images = len({question.image for question in asked})
                what = "images that the tower computed again, 32 at once"
                self._recorder.check(Check(what, computed.images - images, 0))
        turns = {name: partial(self._clock, variant, asked) for name, variant in variants.items()}
        rounds = QUICK_ROUNDS if self._ground.quick else ROUNDS
        timings = alternate(turns, rounds, lambda turn: Timing(turn(), 0.0))
        seconds = {name: [t.wall for t in timings[name]] for name in variants}
        self._baseline = len(asked) / median(seconds[THEIRS])
        ahead = [them / us for them, us in zip(seconds[THEIRS], seconds[OURS], strict=True)]
        self._recorder.reached("llava ahead", median(ahead))
        for name in variants:
            pairs = zip(seconds[THEIRS], seconds[name], strict=True)
            rates = [len(asked) / s for s in seconds[name]]
            ratios = [them / us for them, us in pairs]
            self._recorder.row(Row(name, 32, rates, ratios, memory_gib=memory[name]))
            self._reach(name, median(ratios))

    def alone(
        self,
        name: str,
        size: int,
        variant: Variant,
        asked: list[VqaQuestion],
    ) -> None:
        """A variant without another beside it, after a turn that does not count."""
        self._ground.free()
        self._answers[f"{name}, {size} at once"] = variant(asked)
        memory = self._memory()
        rate = len(asked) / self._clock(variant, asked)
        ratio = None if self._baseline is None else [rate / self._baseline]
        self._recorder.row(Row(name, size, [rate], ratio, memory_gib=memory))
        if ratio is not None:
            self._reach(name, ratio[0])

    def _reach(self, name: str, ratio: float) -> None:
        if name != THEIRS:
            self._best = max(self._best, ratio)
            self._recorder.reached("llava ahead", self._best)

    def tell_agreement(self) -> None:
        """How many answers are those of generate, one by one; in half precision some are not."""
        expected = self._answers.get(f"{THEIRS}, 1 at once")
        if expected is None:
            return
        parts = []
        for name, found in self._answers.items():
            count = len(expected.keys() & found.keys())
            equal = count - _differing(found, expected)
            parts.append(f"{name}: {equal} of {count}")
        dtype = self._made.llava.model.dtype
        self._recorder.note(
            f"Answers in {dtype} of random weights that equal those of generate, one by one, "
            f"in all {LONGEST} tokens: {'; '.join(parts)}."
        )

    def _clock(self, variant: Variant, asked: list[VqaQuestion]) -> float:
        self._ground.wait()
        before = time.perf_counter()
        variant(asked)
        self._ground.wait()
        return time.perf_counter() - before

    def _memory(self) -> float | None:
        return self._ground.most_held() / GIB if self._ground.device.type == "cuda" else None


class _Computed(NamedTuple):
    answers: Answers
    images: int
    """That went through the tower."""


def _images_computed(made: Made, variant: Callable[[], Answers]) -> _Computed:
    images = 0

    def count(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal images
        images += len(arguments[0] if arguments else named["pixel_values"])

    tower = made.llava.model.model.vision_tower
    hook = tower.register_forward_pre_hook(count, with_kwargs=True)
    try:
        answers = variant()
        return _Computed(answers, images)
    finally:
        hook.remove()


def _host_waits(made: Made) -> str:
    """How often Python waits for the device in a batch, and what the device is busy with."""
    from torch.profiler import ProfilerActivity, profile

    asked = made.asked[:30]
    variant = Ours(made, 32)
    variant(asked)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        variant(asked)
        torch.cuda.synchronize()
    events = {event.key: event for event in found.key_averages()}
    waits = {
        name: events[name].count
        for name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
        if name in events
    }
    synced = ", ".join(f"{name} {count}" for name, count in waits.items()) or "none"
    return (
        f"A batch of {len(asked)} questions with {LONGEST} tokens an answer: {synced} (one of them "
        f"for each token, one at its end is the measurement's); kernels: "
        f"{_launches(events.values())} launches."
    )


def _launches(events: Iterable[Any]) -> int:
    return sum(event.count for event in events if "LaunchKernel" in event.key)
