"""Columns a slice at a time give what the whole matrix of logits gives."""

import math

import pytest
import torch
import torch.nn.functional as F

from hnc_ds.objective import softmax
from hnc_ds.objective.loss_inputs import (
    Embeddings,
    Masks,
    image_to_text,
    negatives_vary,
    pairs_repeat,
    text_to_image,
)
from hnc_ds.objective.softmax import Tiling, column_slices, divergence, log_partition

from .made import SCALE, compared, unit

CPU = torch.device("cpu")
ROWS, COLUMNS, SLOTS, OTHERS, WIDTH, FIRST = 6, 14, 3, 2, 5, 4
"""A rank of 6 rows of 14, the first of which is column 4."""


@pytest.fixture(params=[1, 3, 2**20])
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of 1 and 3 columns, and all of them."""
    monkeypatch.setattr(softmax, "ON_CPU", Tiling(request.param * ROWS, min(request.param, 64)))


def leaves(seed: int) -> list[torch.Tensor]:
    shapes = ((COLUMNS, WIDTH), (COLUMNS, WIDTH), (COLUMNS, SLOTS, WIDTH), (ROWS, OTHERS, WIDTH))
    return [unit(*shape, seed=seed + n).requires_grad_() for n, shape in enumerate(shapes)]


def rows_of(parts: list[torch.Tensor], all_negatives: bool) -> Embeddings:
    image, text, negative, other = parts
    own = slice(FIRST, FIRST + ROWS)
    of_all = negative.flatten(0, 1)[: None if all_negatives else 0]
    return Embeddings(image[own], text[own], negative[own], other, image, text, of_all)


def slots(all_negatives: bool) -> Masks:
    """Two rows with one image, two with one text, empty slots, a negative true of another row."""
    draw = torch.Generator().manual_seed(5)
    index = torch.stack([torch.arange(COLUMNS), torch.arange(COLUMNS) + 100], dim=1)
    index[8, 0], index[3, 1] = index[6, 0], index[5, 1]
    used = torch.rand(COLUMNS, SLOTS, generator=draw) > 0.3
    used[5] = False
    number = torch.randint(200, 215, (COLUMNS, SLOTS), generator=draw)
    number[2, 1] = index[7, 1]
    used[2, 1] = True
    own = slice(FIRST, FIRST + ROWS)
    of_all = slice(None) if all_negatives else slice(0)
    return Masks(
        used[own],
        torch.rand(ROWS, OTHERS, generator=draw) > 0.3,
        index[own],
        index,
        number.flatten()[of_all],
        used.flatten()[of_all],
        FIRST,
    )


def logits(
    rows: Embeddings, of: Masks, scale: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, ...]:
    """The whole matrices, image to text and text to image."""
    same = (of.index_B2[:, None] == of.index_N2).any(dim=2)
    same[torch.arange(ROWS), torch.arange(ROWS) + FIRST] = False
    image = rows.image_BD
    other = scale * torch.einsum("bd,bmd->bm", image, rows.unrelated_BMD)
    parts = [
        (scale * image @ rows.text_ND.T).masked_fill(same, -torch.inf),
        other.masked_fill(~of.unrelated_used_BM, -torch.inf),
    ]
    if alpha and len(rows.negative_CD):
        true = of.index_B2[:, 1:] == of.negative_index_C
        hard = scale * image @ rows.negative_CD.T + math.log(alpha)
        parts.append(hard.masked_fill(true | ~of.negative_used_C, -torch.inf))
    elif alpha:
        hard = scale * torch.einsum("bd,bkd->bk", image, rows.negative_BKD) + math.log(alpha)
        parts.append(hard.masked_fill(~of.negative_used_BK, -torch.inf))
    back = (scale * rows.text_BD @ rows.image_ND.T).masked_fill(same, -torch.inf)
    return torch.cat(parts, dim=1), back


def assert_same_gradients(
    found: torch.Tensor, expected: torch.Tensor, inputs: list[torch.Tensor]
) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    pair = [torch.autograd.grad(v.sum(), inputs, allow_unused=True) for v in (found, expected)]
    for ours, reference in zip(*pair, strict=True):
        zero = torch.zeros(())
        ours, reference = (zero if g is None else g for g in (ours, reference))
        assert (ours - reference).abs().max() < 1e-12


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("alpha", [0.0, 1.7])
@pytest.mark.parametrize("all_negatives", [False, True])
def test_slices_have_the_log_sum_exp_and_gradients_of_the_whole(
    alpha: float, all_negatives: bool
) -> None:
    parts, scale = leaves(0), SCALE.clone().requires_grad_()
    rows, of = rows_of(parts, all_negatives), slots(all_negatives)
    weights = torch.arange(1.0, ROWS + 1, dtype=torch.float64)
    log_alpha = math.log(alpha) if alpha else -math.inf
    to_text = log_partition(image_to_text(rows, of, log_alpha), scale)
    to_image = log_partition(text_to_image(rows, of), scale)
    whole = [matrix.logsumexp(dim=1) for matrix in logits(rows, of, scale, alpha)]
    for found, expected in zip((to_text, to_image), whole, strict=True):
        assert_same_gradients(weights * found, weights * expected, [*parts, scale])


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("all_negatives", [False, True])
def test_slices_have_the_divergence_and_gradients_of_the_whole(all_negatives: bool) -> None:
    parts, of = leaves(0), slots(all_negatives)
    rows = rows_of(parts, all_negatives)
    start = Embeddings(*(part.detach() for part in rows_of(leaves(50), all_negatives)))
    sides = (
        (image_to_text(rows, of, 0.5), image_to_text(start, of, 0.5)),
        (text_to_image(rows, of), text_to_image(start, of)),
    )
    both = [logits(these, of, SCALE, math.exp(0.5)) for these in (rows, start)]
    pairs = zip(*both, strict=True)
    for (side, before), (matrix, start_matrix) in zip(sides, pairs, strict=True):
        hidden = matrix == -torch.inf
        share = start_matrix.softmax(dim=1)
        apart = start_matrix.log_softmax(dim=1) - matrix.log_softmax(dim=1)
        expected = (share * apart.masked_fill(hidden, 0)).nansum(dim=1)
        assert_same_gradients(divergence(side, before, SCALE), expected, parts)


@pytest.mark.usefixtures("_tile")
def test_a_row_that_sees_none_of_the_columns_has_no_nan() -> None:
    parts = leaves(0)
    of = slots(all_negatives=True)
    of = of._replace(negative_used_C=torch.zeros_like(of.negative_used_C))
    rows = rows_of(parts, all_negatives=True)
    start = Embeddings(*(part.detach() for part in rows))
    without = log_partition(image_to_text(rows, of, -math.inf), SCALE)
    found = log_partition(image_to_text(rows, of, 0.0), SCALE)
    torch.testing.assert_close(found, without)
    total = (
        found.sum()
        + divergence(image_to_text(rows, of, 0.0), image_to_text(start, of, 0.0), SCALE).sum()
    )
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(total, parts))


def test_large_logits_do_not_overflow() -> None:
    made = compared(rows=4)
    rows, scale = made.embeddings, torch.tensor([100.0])
    narrow = Embeddings(*(part.float() for part in rows))
    found = log_partition(text_to_image(narrow, made.masks), scale)
    expected = (100.0 * rows.text_BD @ rows.image_ND.T).logsumexp(dim=1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (7, 1), (4096, 20480), (10**7, 200)])
def test_slices_cover_every_column_once(rows: int, columns: int) -> None:
    covered = [
        c for part in column_slices(rows, columns, CPU) for c in range(part.start, part.stop)
    ]
    assert covered == list(range(columns))


def test_no_tensor_of_rows_times_columns_is_kept_between_the_passes() -> None:
    """What is saved for the backward pass is embeddings, numbers of a row, and one tile."""
    rows, columns = 300, 5000
    row = F.normalize(torch.randn(rows, 8), dim=-1).requires_grad_()
    column = F.normalize(torch.randn(columns, 8), dim=-1).requires_grad_()
    saved: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    def nothing(of: slice) -> torch.Tensor:
        return torch.zeros(of.stop - of.start, rows, dtype=torch.bool)

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        softmax._LogSumExp.apply(row, column, nothing)
    tile = softmax.ON_CPU.logits
    assert column.numel() < max(saved) <= tile < rows * columns
    assert sum(saved) <= row.numel() + column.numel() + tile + 4 * rows


def test_masks_are_left_out_only_where_they_would_hide_nothing() -> None:
    made = compared(rows=4, all_negatives=True)
    of = made.masks
    assert not pairs_repeat(of.index_N2)
    assert not negatives_vary(of.negative_index_C, of.negative_used_C, of.index_N2)
    bare = of._replace(pairs_repeat=False, negatives_vary=False)
    for log_alpha in (0.0, -math.inf):
        pair = [
            log_partition(image_to_text(made.embeddings, s, log_alpha), SCALE) for s in (of, bare)
        ]
        assert torch.equal(*pair)

    twice = of.index_N2.clone()
    twice[3, 1] = twice[0, 1]
    assert pairs_repeat(twice)
    true_of_row_2 = of.negative_index_C.clone()
    true_of_row_2[0] = of.index_N2[2, 1]
    assert negatives_vary(true_of_row_2, of.negative_used_C, of.index_N2)
    assert negatives_vary(of.negative_index_C, of.negative_index_C > 1000, of.index_N2)
