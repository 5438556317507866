"""The loss of a large run on one device: one rank's rows against the columns that it has gathered,
as hnc_ds computes it and as one matrix of logits.

B rows of a rank, N of all ranks, K hard negatives an image, width D.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F

from hnc_ds.config import LossConfig
from hnc_ds.objective.loss_inputs import Embeddings, Masks, negatives_vary, pairs_repeat
from hnc_ds.objective.terms import LossInputs, objective
from speed.on_gpu.ground import GIB, Ground, Recorder, Row, is_out_of_memory
from speed.on_gpu.steps import repeat
from speed.timing import Check

SLICES, MATRIX = "hnc_ds: slices of columns", "the whole matrix"
ALPHA, SCALE, WIDTH = 1.5, 50.0, 512


class Sizes(NamedTuple):
    """Of a run."""

    rows: int
    """B, of one rank."""
    ranks: int
    negatives: int
    """K; 0 leaves images with their own captions' negatives out."""


ON_CUDA = (Sizes(4096, 8, 0), Sizes(4096, 8, 4))
ON_CPU = (Sizes(256, 8, 0), Sizes(256, 8, 4))
QUICK = (Sizes(16, 4, 0), Sizes(16, 4, 2))
ROUNDS, TURN_SECONDS = 5, 0.3
APART = 1e-4
"""What losses and gradients may differ by, as a share."""


class Inputs(NamedTuple):
    """Unit rows, all of them leaves: what is gathered has gradients as well, which travel back."""

    image_BD: torch.Tensor
    text_BD: torch.Tensor
    negative_BKD: torch.Tensor
    image_ND: torch.Tensor
    text_ND: torch.Tensor
    negative_CD: torch.Tensor


def measure(ground: Ground, recorder: Recorder) -> None:
    """Rows and a check without and with the hard negatives of all images."""
    for sizes in ground.pick(ON_CUDA, ON_CPU, QUICK):
        with recorder.attempt(f"loss of {sizes}"):
            _compare(sizes, ground, recorder)
        ground.free()


def _compare(sizes: Sizes, ground: Ground, recorder: Recorder) -> None:
    inputs = made(sizes, ground.device)
    works: dict[str, Callable[[], torch.Tensor]] = {
        SLICES: partial(_learn, partial(in_slices, as_compared(inputs)), inputs),
        MATRIX: partial(_learn, partial(as_matrix, inputs), inputs),
    }
    columns = f"{sizes.rows * sizes.ranks:,} images"
    if sizes.negatives:
        columns += f" and {sizes.rows * sizes.ranks * sizes.negatives:,} hard negatives"
    title = f"{sizes.rows:,} rows against {columns}"
    memory = {name: _peak_gib(work, ground) for name, work in works.items()}
    if memory[MATRIX] is None and ground.device.type == "cuda":
        recorder.note(f"{title}: the matrix has no room.")
        del works[MATRIX]
    else:
        recorder.check(
            Check(f"{title}: loss and gradients off the matrix's", _apart(works, inputs), APART)
        )
    seconds = _timed(works, ground)
    for name, taken in seconds.items():
        beside = zip(seconds.get(MATRIX, ()), taken, strict=False)
        ahead = [theirs / ours for theirs, ours in beside] or None
        speeds = [sizes.rows / s for s in taken]
        recorder.row(Row(f"{title}: {name}", sizes.rows, speeds, ahead, memory_gib=memory[name]))
        if name == SLICES and ahead:
            recorder.reached("loss ahead", median(ahead))
    if MATRIX in works:
        recorder.note(
            f"{title}: times as fast as the matrix; forward and backward, float32, width {WIDTH}."
        )


def _timed(works: Mapping[str, Callable[[], object]], ground: Ground) -> dict[str, list[float]]:
    """Seconds of a forward and backward pass, in turns."""
    times = {
        name: max(1, round((0 if ground.quick else TURN_SECONDS) / repeat(work, 1, ground)))
        for name, work in works.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ground.pick(ROUNDS, 2, 2)):
        for name, work in works.items():
            taken[name].append(repeat(work, times[name], ground) / times[name])
    return taken


def made(sizes: Sizes, device: torch.device) -> Inputs:
    """Random unit rows; this rank's are the first of all."""
    draw = torch.Generator(device).manual_seed(0)
    count = sizes.rows * sizes.ranks

    def unit(rows: int) -> torch.Tensor:
        return F.normalize(torch.randn((rows, WIDTH), generator=draw, device=device), dim=1)

    image_ND, text_ND, negative_CD = unit(count), unit(count), unit(count * sizes.negatives)
    own = sizes.rows
    negative_BKD = negative_CD[: own * sizes.negatives].view(own, sizes.negatives, WIDTH)
    parts = (image_ND[:own], text_ND[:own], negative_BKD, image_ND, text_ND, negative_CD)
    return Inputs(*(part.clone().requires_grad_() for part in parts))


def as_compared(inputs: Inputs) -> LossInputs:
    """What training would give to the objective on the first rank."""
    rows, negatives, _ = inputs.negative_BKD.shape
    device, count = inputs.image_ND.device, len(inputs.image_ND)
    index_N2 = torch.arange(count, device=device)[:, None].repeat(1, 2)
    number_C = torch.arange(count * negatives, device=device) + count
    used_C = torch.ones_like(number_C, dtype=torch.bool)
    used_BK = used_C[: rows * negatives].view(rows, negatives)
    masks = pairs_repeat(index_N2), negatives_vary(number_C, used_C, index_N2)
    index_B2 = index_N2[:rows]
    slots = Masks(used_BK, used_BK[:, :0], index_B2, index_N2, number_C, used_C, 0, *masks)
    image, text, negative, image_N, text_N, negative_C = inputs
    none = negative.new_zeros((rows, 0, WIDTH))
    compared = Embeddings(image, text, negative, none, image_N, text_N, negative_C)
    return LossInputs(compared, slots, image.new_tensor([SCALE]))


def in_slices(compared: LossInputs) -> torch.Tensor:
    """As training computes it."""
    return objective(compared, LossConfig(negatives_from="all_images"), ALPHA).total


def as_matrix(inputs: Inputs) -> torch.Tensor:
    """All logits at once; a row's own text and image are those among the gathered."""
    target = torch.arange(len(inputs.image_BD), device=inputs.image_BD.device)
    to_text = SCALE * inputs.image_BD @ inputs.text_ND.T
    if len(inputs.negative_CD):
        hard = SCALE * inputs.image_BD @ inputs.negative_CD.T + math.log(ALPHA)
        to_text = torch.cat([to_text, hard], dim=1)
    to_image = SCALE * inputs.text_BD @ inputs.image_ND.T
    return F.cross_entropy(to_text, target) + F.cross_entropy(to_image, target)


def _learn(loss_of: Callable[[], torch.Tensor], inputs: Inputs) -> torch.Tensor:
    for leaf in inputs:
        leaf.grad = None
    loss = loss_of()
    loss.backward()
    return loss.detach()


def _apart(works: Mapping[str, Callable[[], torch.Tensor]], inputs: Inputs) -> float:
    """Largest difference of the loss, and of the gradients that the whole run would have (a row's
    own and its gathered copy's added), as a share of the largest."""
    found = []
    for work in (works[SLICES], works[MATRIX]):
        loss = work()
        found.append((loss, [gradient.clone() for gradient in _whole_gradients(inputs)]))
    (ours, own), (theirs, other) = found
    pairs = [(a, b) for a, b in zip(own, other, strict=True) if b.numel()]
    apart = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    return max(float((ours - theirs).abs() / theirs.abs()), *apart)


def _whole_gradients(inputs: Inputs) -> list[torch.Tensor]:
    own, gathered = inputs[:3], inputs[3:]
    whole = []
    for of_rank, of_all in zip(own, gathered, strict=True):
        gradient = torch.zeros_like(of_all) if of_all.grad is None else of_all.grad.clone()
        if of_rank.grad is not None:
            flat = of_rank.grad.view(-1, WIDTH)
            gradient[: len(flat)] += flat
        whole.append(gradient)
    return whole


def _peak_gib(work: Callable[[], object], ground: Ground) -> float | None:
    """Most that a pass holds beside the inputs; None on a CPU, and where there is no room."""
    ground.free()
    before = ground.held()
    try:
        repeat(work, 1, ground)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return (ground.most_held() - before) / GIB if ground.device.type == "cuda" else None
