"""What makes the objective fit for a device, seen from the operations that a CPU is given."""

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hnc_ds.config import LossConfig
from hnc_ds.metrics import measure_similarities
from hnc_ds.objective import softmax
from hnc_ds.objective.loss_inputs import Embeddings, Masks
from hnc_ds.objective.softmax import ON_DEVICE, Tiling, column_slices
from hnc_ds.objective.terms import TERMS, LossInputs, objective

from .made import unit

EVERYTHING = dict.fromkeys(TERMS, 1.0)
ROWS, COLUMNS, SLOTS, OTHERS, WIDTH, FIRST = 24, 96, 2, 3, 4, 48
"""A rank of 24 rows of 96, the first of which is column 48."""

WAITS = {
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "unique",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "equal",
    "bincount",
    "_assert_async",
}
"""Operations for which Python waits until a device has done everything before.
Copies to the host are not seen, as all is there already."""


class Watch(TorchDispatchMode):
    """Notes operations that wait, the elements of the largest tensor that one makes, and what is
    made."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.largest = 0
        self.calls = 0
        self._made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        masks = name.startswith("index") and any(_is_mask(i) for i in _flat(args[1:]))
        if name in WAITS or masks:
            self.waits.append(name)
        given = {t.untyped_storage().data_ptr() for t in _flat(args)}
        found = function(*args, **(kwargs or {}))
        self.calls += 1
        for made in _flat((found,)):
            if made.untyped_storage().data_ptr() not in given:  # no view
                self.largest = max(self.largest, made.numel())
                self._made.append(weakref.ref(made))
        return found

    def kept(self) -> int:
        """Bytes of what was made and is still there."""
        return sum(made.nbytes for ref in self._made if (made := ref()) is not None)


def _flat(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _flat(value)


def _is_mask(index: torch.Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def made(
    all_negatives: bool, trains: Iterable[int] = range(6)
) -> tuple[LossInputs, list[torch.Tensor]]:
    """With repeated images and texts, empty slots and a negative that is another row's true text;
    and its leaves, by number those that train: images, three of texts, the scale and the bias."""
    shapes = (COLUMNS, WIDTH), (COLUMNS, WIDTH), (COLUMNS, SLOTS, WIDTH), (ROWS, OTHERS, WIDTH)
    leaves = [unit(*s, seed=n) for n, s in enumerate(shapes)]
    leaves += [torch.tensor([value], dtype=torch.float64) for value in (7.0, -4.0)]
    for number in trains:
        leaves[number].requires_grad_()
    start = [unit(*s, seed=50 + n) for n, s in enumerate(shapes)]
    draw = torch.Generator().manual_seed(5)
    index = torch.stack([torch.arange(COLUMNS), torch.arange(COLUMNS) + 200], dim=1)
    index[60, 0], index[3, 1] = index[50, 0], index[55, 1]
    used = torch.rand(COLUMNS, SLOTS, generator=draw) > 0.3
    number = torch.arange(COLUMNS * SLOTS).view(COLUMNS, SLOTS) + 1000
    number[2, 1], used[2, 1] = index[53, 1], True
    own, of_all = slice(FIRST, FIRST + ROWS), slice(None if all_negatives else 0)
    slots = Masks(
        used[own],
        torch.rand(ROWS, OTHERS, generator=draw) > 0.3,
        index[own],
        index,
        number.flatten()[of_all],
        used.flatten()[of_all],
        FIRST,
    )

    def rows(image: Any, text: Any, negative: Any, other: Any) -> Embeddings:
        hard = negative.flatten(0, 1)[of_all]
        return Embeddings(image[own], text[own], negative[own], other, image, text, hard)

    scale, bias = leaves[4:]
    learning, before = rows(*leaves[:4]), rows(*start)
    gap = torch.tensor([0.2], dtype=torch.float64)
    return LossInputs(learning, slots, scale, before, scale.detach(), bias, gap), leaves


def config(all_negatives: bool) -> LossConfig:
    where = "all_images" if all_negatives else "own_image"
    return LossConfig(terms=EVERYTHING, negatives_from=where)


def learned(
    all_negatives: bool, watch: AbstractContextManager[object] | None = None
) -> list[torch.Tensor]:
    """The terms, their sum and its gradients."""
    compared, leaves = made(all_negatives)
    with watch or nullcontext():
        terms = objective(compared, config(all_negatives), 1.5)
        gradients = torch.autograd.grad(terms.total, leaves)
    return [terms.total, *terms.parts.values(), *gradients]


TILINGS = (Tiling(ROWS, 1), Tiling(5 * ROWS, 1), Tiling(50 * ROWS, 7), Tiling(2, 13))
"""Slices of 1, 5 or fewer, 49 or fewer, and 13 columns."""


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
@pytest.mark.parametrize("all_negatives", [False, True])
def test_terms_and_gradients_do_not_depend_on_the_size_of_tiles(
    all_negatives: bool, tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learned(all_negatives)
    monkeypatch.setattr(softmax, "ON_CPU", tiling)
    for found, expected in zip(learned(all_negatives), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tiling", [Tiling(5 * ROWS, 1), Tiling(2**20, 64)], ids=str)
@pytest.mark.parametrize("all_negatives", [False, True])
def test_nothing_waits_for_the_device(
    all_negatives: bool, tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "ON_CPU", tiling)
    watch = Watch()
    learned(all_negatives, watch)
    with watch:
        measure_similarities(made(all_negatives)[0])
    assert watch.calls > 100
    assert watch.waits == []


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
    ],
)
def test_the_watch_sees_what_waits(wait: Callable[[torch.Tensor], object]) -> None:
    watch, numbers = Watch(), torch.arange(3)
    with watch:
        wait(numbers)
    assert watch.waits


@pytest.mark.parametrize("all_negatives", [False, True])
def test_no_tensor_is_larger_than_a_tile_or_the_embeddings(
    all_negatives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiling = Tiling(5 * ROWS, 1)
    monkeypatch.setattr(softmax, "ON_CPU", tiling)
    watch = Watch()
    learned(all_negatives, watch)
    with watch:
        measure_similarities(made(all_negatives)[0])
    embeddings = COLUMNS * SLOTS * WIDTH
    assert watch.largest <= max(tiling.logits, embeddings) < COLUMNS * ROWS * (1 + all_negatives)


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("name", TERMS)
def test_what_a_term_keeps_for_its_backward_pass_is_linear_in_the_batch(
    name: str, repeat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than one byte for each row and column."""
    rows, columns = 480, 960
    for constant, value in (("ROWS", rows), ("COLUMNS", columns), ("FIRST", rows)):
        monkeypatch.setattr(sys.modules[__name__], constant, value)
    monkeypatch.setattr(softmax, "ON_CPU", Tiling(5 * rows, 1))
    compared, leaves = made(all_negatives=False)
    compared = compared._replace(masks=compared.masks._replace(pairs_repeat=repeat))
    watch = Watch()
    with watch:
        total = objective(compared, LossConfig(terms={name: 1.0}), 1.5).total
    embeddings = (2 + SLOTS + OTHERS) * rows + columns
    assert watch.kept() < 2 * 8 * WIDTH * embeddings < rows * columns
    assert total.requires_grad
    assert leaves


def test_the_watch_sees_a_whole_matrix() -> None:
    watch, (compared, _) = Watch(), made(all_negatives=True)
    with watch:
        _ = compared.embeddings.image_BD @ compared.embeddings.negative_CD.T
    assert watch.largest == ROWS * COLUMNS * SLOTS


def test_tiles_of_a_device_are_wide_and_of_widths_that_its_kernels_like() -> None:
    device = torch.device("cuda")
    for rows, columns in ((4096, 32768), (4096, 131072), (3000, 100_000), (64, 320), (10**7, 1000)):
        slices = column_slices(rows, columns, device)
        assert [s.start for s in slices[1:]] == [s.stop for s in slices[:-1]]
        assert (slices[0].start, slices[-1].stop) == (0, columns)
        assert all((s.stop - s.start) % 256 == 0 for s in slices[:-1])
        widest = max(s.stop - s.start for s in slices)
        assert rows * widest <= max(ON_DEVICE.logits, rows * 256)
    assert len(column_slices(4096, 32768, device)) == 2
    assert len(column_slices(64, 320, device)) == 1


@pytest.mark.parametrize("tiling", [Tiling(5 * ROWS, 1), Tiling(2**20, 64)], ids=str)
def test_a_graph_that_is_kept_gives_the_same_gradients_again(
    tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "ON_CPU", tiling)
    compared, leaves = made(all_negatives=True)
    total = objective(compared, config(all_negatives=True), 1.5).total
    once = torch.autograd.grad(total, leaves, retain_graph=True)
    again = torch.autograd.grad(total, leaves)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("tiling", [Tiling(5 * ROWS, 1), Tiling(2**20, 64)], ids=str)
@pytest.mark.parametrize(
    "trains", [(0,), (1, 2, 3), (4,), (5,)], ids=["image", "text", "scale", "bias"]
)
def test_what_does_not_train_changes_no_gradient_of_what_does(
    trains: tuple[int, ...], tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "ON_CPU", tiling)
    compared, leaves = made(all_negatives=True)
    total = objective(compared, config(all_negatives=True), 1.5).total
    expected = torch.autograd.grad(total, leaves)
    compared, leaves = made(all_negatives=True, trains=trains)
    total = objective(compared, config(all_negatives=True), 1.5).total
    found = torch.autograd.grad(total, [leaves[n] for n in trains])
    for n, gradient in zip(trains, found, strict=True):
        torch.testing.assert_close(gradient, expected[n], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tiling", [Tiling(5 * ROWS, 1), Tiling(2**20, 64)], ids=str)
def test_float32_at_the_largest_scale_has_the_gradients_of_float64(
    tiling: Tiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows from opposite to equal, so that logits span -100 to 100."""
    monkeypatch.setattr(softmax, "ON_CPU", tiling)
    narrow = [unit(*shape, seed=n).float() for n, shape in enumerate(((24, 6), (96, 6)))]
    narrow[1][::7], narrow[1][3::7] = narrow[0][:14], -narrow[0][10:24]

    def learned_in(dtype: torch.dtype, whole: bool) -> tuple[torch.Tensor, ...]:
        row, column = (part.to(dtype).requires_grad_() for part in narrow)
        logits = 100 * row @ column.T
        found = (
            logits.logsumexp(dim=1) if whole else softmax._LogSumExp.apply(100 * row, column, None)
        )
        return found, *torch.autograd.grad(found.sum(), (row, column))

    expected, found = learned_in(torch.float64, True), learned_in(torch.float32, False)
    for ours, reference in zip(found, expected, strict=True):
        assert (ours - reference).abs().max() < 5e-5 * reference.abs().max()
