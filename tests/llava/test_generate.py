"""What a step of decoding costs, and that nothing but its tokens is waited for."""

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hnc_ds.llava import decoding, generate
from hnc_ds.llava.batches import Packed, pack, slots_of
from hnc_ds.llava.decoding import CAPTURED_AFTER, StepGraphs
from hnc_ds.llava.generate import FIRST_CAPACITY, Generator
from hnc_ds.llava.model import Llava, load_llava

IMAGE_TOKENS, SIDE = 16, 32
IMAGE_OF = [0, 0, 0, 1, 2, 2, 3]
WAITING = {
    "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "item"
}  # fmt: skip
"""Operators that need a tensor's numbers."""


@pytest.fixture(scope="module")
def llava(llava_folder: Path) -> Llava:
    return load_llava(llava_folder, torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module")
def endless(llava: Llava) -> Llava:
    """Whose answers end where they must."""
    return replace(llava, stop_ids=frozenset([-7]))


def questions(seed: int = 0) -> list[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    lengths = [3, 17, 8, 1, 30, 2, 11]
    return [torch.randint(4, 300, (n,), generator=draw).tolist() for n in lengths]


def pixels(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def packed(seed: int = 0) -> Packed:
    return pack(pixels(seed), IMAGE_OF, questions(seed))


BEFORE = [0, 60, 61, 62]


def alone(llava: Llava, max_new_tokens: int, seed: int = 0) -> list[list[int]]:
    """What transformers' own generation makes of each question."""
    found = []
    for image, ids in zip(IMAGE_OF, questions(seed), strict=True):
        image_id = llava.model.config.image_token_id
        row = torch.tensor([[*BEFORE, *[image_id] * IMAGE_TOKENS, *ids]])
        made = llava.model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            pixel_values=pixels(seed)[image : image + 1],
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(llava.stop_ids),
            do_sample=False,
        )
        answer = made[0, row.shape[1] :].tolist()
        end = next((n for n, token in enumerate(answer) if token in llava.stop_ids), len(answer))
        found.append(answer[:end])
    return found


def answers(generator: Generator, seed: int = 0) -> list[list[int]]:
    grid = generator.answer(packed(seed))
    return [grid[row][slot].ids for row, slot in slots_of(IMAGE_OF)]


@pytest.mark.parametrize(
    "max_new_tokens", [1, 2, FIRST_CAPACITY, FIRST_CAPACITY + 1, 5 * FIRST_CAPACITY]
)
def test_answers_of_any_length_are_those_of_transformers(
    endless: Llava, max_new_tokens: int
) -> None:
    """Also where the memory that is there at first does not suffice."""
    expected = alone(endless, max_new_tokens)
    assert {len(ids) for ids in expected} == {max_new_tokens}
    assert answers(Generator(endless, BEFORE, max_new_tokens)) == expected


@pytest.mark.slow
def test_memory_of_another_batch_leaves_no_trace(llava: Llava) -> None:
    """And rows that ended are dropped at different times."""
    generator = Generator(llava, BEFORE, 40)
    for seed in (1, 2, 1):
        expected = alone(llava, 40, seed)
        assert len({len(ids) for ids in expected}) > 2
        assert answers(generator, seed) == expected
    single = pack(pixels(1)[2:3], [0], questions(1)[5:6])
    assert generator.answer(single)[0][0].ids == alone(llava, 40, 1)[5]


def test_an_empty_slot_is_answered_with_nothing(llava: Llava) -> None:
    grid = Generator(llava, BEFORE, 8).answer(packed())
    assert [[bool(n) for n in row] for row in packed().used_IQ.tolist()] == [
        [True, True, True], [True, False, False], [True, True, False], [True, False, False]
    ]  # fmt: skip
    assert [grid[1][1].ids, grid[1][2].ids, grid[2][2].ids, grid[3][1].ids] == [[], [], [], []]


def test_halves_of_a_batch_have_its_questions(llava: Llava) -> None:
    whole = Generator(llava, BEFORE, 8).answer(packed())
    first, second = packed().halves()
    both = [Generator(llava, BEFORE, 8).answer(half) for half in (first, second)]
    assert [[one.ids for one in row] for half in both for row in half] == [
        [one.ids for one in row] for row in whole
    ]
    row = Packed(*(tensor[:1] for tensor in packed()))
    slots = [one for half in row.halves() for one in Generator(llava, BEFORE, 8).answer(half)[0]]
    assert [one.ids for one in slots] == [one.ids for one in whole[0]]


class _Calls(TorchDispatchMode):
    """Operators that are called, and bytes of the tensors that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self.names[func.overloadpacket.__name__] += 1
        given = {t.untyped_storage().data_ptr() for t in _tensors(args)}
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:
                self.bytes += storage.nbytes()
        return found


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


def _calls_of_steps(llava: Llava, steps: int) -> list[_Calls]:
    answering = Generator(llava, BEFORE, steps + 1).begin(packed())
    found: list[_Calls] = []
    original = answering._advance

    def counted() -> torch.Tensor:
        with _Calls() as calls:
            report = original()
        found.append(calls)
        return report

    answering._advance = counted  # type: ignore[method-assign]
    answering.finish()
    assert len(found) == steps
    return found


def test_a_step_costs_the_same_however_many_tokens_are_there(endless: Llava) -> None:
    """Nothing is made anew that grows with what was decoded before: no keys, no mask."""
    first, *others = _calls_of_steps(_with_as_many_key_heads(endless), FIRST_CAPACITY - 1)
    for calls in others:
        assert calls.names == first.names
        assert calls.bytes == first.bytes
        assert not WAITING & calls.names.keys()


def _with_as_many_key_heads(llava: Llava) -> Llava:
    """As LLaVA-1.5 has; where there are fewer, attention repeats them on a CPU."""
    config = deepcopy(llava.model.config)
    config.text_config.num_key_value_heads = config.text_config.num_attention_heads
    model = transformers.LlavaForConditionalGeneration(config).eval()
    return replace(llava, model=model)


def test_memory_grows_a_few_times_in_long_answers(endless: Llava) -> None:
    generator = Generator(endless, BEFORE, 8 * FIRST_CAPACITY)
    rooms = []
    answering = generator.begin(packed())
    original = answering._advance

    def noted() -> torch.Tensor:
        report = original()
        rooms.append(generator.cache.capacity)
        return report

    answering._advance = noted  # type: ignore[method-assign]
    answering.finish()
    assert len(rooms) == 8 * FIRST_CAPACITY - 1
    assert len(set(rooms)) <= 4  # 16, 32, 64, 128 tokens


def test_the_host_waits_once_a_token(endless: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []
    original = generate.fetched

    def counted(tensor: torch.Tensor) -> Any:
        fetched.append(tensor.numel())
        return original(tensor)

    monkeypatch.setattr(generate, "fetched", counted)
    with _Calls() as calls:
        Generator(endless, BEFORE, 9).answer(packed())
    assert len(fetched) == 9
    assert max(fetched) <= 2 * packed().used_IQ.numel()  # not logits
    assert not WAITING & calls.names.keys()


def test_first_and_further_tokens_are_computed_without_the_numbers_of_any_tensor(
    llava: Llava,
) -> None:
    """torch's fake tensors have none, and raise where one is read."""
    generator, real = Generator(llava, BEFORE, 8), packed()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.inference_mode():
        answering = generator.begin(Packed(*(fake.from_tensor(tensor) for tensor in real)))
        report_IQ = answering._advance()
        with pytest.raises(DataDependentOutputException):
            generate.fetched(report_IQ)


class _Crossings(TorchDispatchMode):
    """Copies between devices: whether each lets the host continue."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bool] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        devices = {tensor.device for tensor in (*_tensors(args), *_tensors(found))}
        if len(devices) > 1:
            self.found.append(bool((kwargs or {}).get("non_blocking")))
        return found


@pytest.mark.slow
def test_a_gpu_gets_a_batch_in_three_copies_that_wait_for_nothing(
    llava: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake tensors of a GPU that is not there: images, ids and lengths, and nothing in a step."""
    gpu, real, made = torch.device("cuda", 0), packed(), torch.tensor

    def tensor(*given: Any, device: Any = None, **named: Any) -> torch.Tensor:
        return made(*given, device="cpu", **named).to(device or "cpu")  # torch's own needs a driver

    monkeypatch.setattr(torch, "tensor", tensor)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.inference_mode():
        with gpu:
            model = transformers.LlavaForConditionalGeneration(llava.model.config).eval()
        max_new_tokens = 2 * FIRST_CAPACITY
        generator = Generator(replace(llava, model=model, device=gpu), BEFORE, max_new_tokens)
        with _Crossings() as crossings:
            answering = generator.begin(Packed(*(fake.from_tensor(one) for one in real)))
            reports = [answering._advance() for _ in range(max_new_tokens - 1)]
    assert crossings.found == [True, True, True]
    assert {report.device for report in reports} == {gpu}


class _Recorded:
    """In place of a CUDA graph: does the work again, or another's."""

    def __init__(self, work: Any) -> None:
        self.work, self.replays = work, 0

    def replay(self) -> None:
        self.replays += 1
        self.work()


class _Graphs(StepGraphs):
    """Captures on a CPU: what a replay writes is where the captured step wrote it."""

    def __init__(self, damage: str = "") -> None:
        super().__init__()
        self.damage, self.made = damage, list[_Recorded]()

    def _capture(self, steps: Any, forward: Any, cache: Any) -> Any:
        if self.damage == "cannot be captured":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        report_IQ = torch.full_like(steps.ids_IQ, -3)

        def work() -> None:
            report_IQ.copy_(steps.advance(forward, cache, cache.capacity))
            if self.damage == "other tokens":
                report_IQ.add_(1)

        self.made.append(_Recorded(work))
        return decoding._Captured(self.made[-1], report_IQ)


def test_steps_are_replayed_where_a_shape_comes_again(endless: Llava) -> None:
    generator = Generator(endless, BEFORE, FIRST_CAPACITY)
    generator.graphs = graphs = _Graphs()
    for seed in (1, 2, 1):
        assert answers(generator, seed) == alone(endless, FIRST_CAPACITY, seed)
    steps = 3 * (FIRST_CAPACITY - 1)
    assert [one.replays for one in graphs.made] == [steps - CAPTURED_AFTER]


@pytest.mark.slow
def test_graphs_are_captured_anew_where_memory_has_moved(endless: Llava) -> None:
    max_new_tokens = 4 * FIRST_CAPACITY
    generator = Generator(endless, BEFORE, max_new_tokens)
    generator.graphs = graphs = _Graphs()
    for _ in range(2):
        assert answers(generator) == alone(endless, max_new_tokens)
    assert len(graphs.made) > 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("other tokens", "without CUDA graphs (a replayed step gave other tokens)"),
        (
            "cannot be captured",
            "without CUDA graphs (RuntimeError: operation not permitted when stream is capturing)",
        ),
    ],
)
def test_graphs_that_are_of_no_use_are_left_for_plain_steps(
    endless: Llava, damage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = Generator(endless, BEFORE, FIRST_CAPACITY)
    generator.graphs = graphs = _Graphs(damage)
    for seed in (1, 2):
        assert answers(generator, seed) == alone(endless, FIRST_CAPACITY, seed)
    assert len(graphs.made) <= 1
    assert capsys.readouterr().out.count(message) == 1
