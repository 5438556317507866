"""The contrastive loss with the hard negatives of all images: a slice of the columns at a time,
against the whole matrix of logits. Time in turns; memory in a process of its own for every size.

N rows on one rank, and B = N / 8 of them as one of 8 ranks has them; K = 4 hard negatives an image,
width D = 512, as ViT-B/32 has it.

    python speed/loss.py VARIANT N [B]   forward and backward of one size; prints the peak in MiB
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import math
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from hnc_ds.config import LossConfig
from hnc_ds.objective.loss_inputs import Embeddings, Masks, negatives_vary, pairs_repeat
from hnc_ds.objective.terms import LossInputs, objective
from speed.timing import Check, Comparison, alternate

OURS, THEIRS = "hnc_ds: slices of columns", "the whole matrix"
VARIANTS = ("ours", "theirs", "sigmoid")
WIDTH, NEGATIVES, ALPHA, SCALE = 512, 4, 1.5, 50.0
SIZES = (1024, 2048, 4096, 8192)
RANKS = 8
LARGEST_SHARE = 1 / 6
"""Of the whole matrix's memory that slices may take, for 4096 rows on one rank."""


class Inputs(NamedTuple):
    """Leaves: unit rows."""

    image_ND: torch.Tensor
    text_ND: torch.Tensor
    negative_NKD: torch.Tensor


def measure(folder: Path, quick: bool) -> Comparison:
    """Seconds of one forward and backward pass at N = 4096."""
    torch.set_num_threads(1)
    rows = 128 if quick else 4096
    inputs = made(rows)
    variants = {name: partial(_learn, variant, inputs) for name, variant in _variants().items()}
    sizes = (256,) if quick else SIZES
    peaks = {size: [_peak_of(variant, size) for variant in VARIANTS] for size in sizes}
    memory_line = "; ".join(
        f"N = {size}: {ours:.0f} and {theirs:.0f} MiB ({theirs / ours:.1f} times less)"
        for size, (ours, theirs, _) in peaks.items()
    )
    sigmoid_line = "; ".join(f"N = {size}: {peak:.0f} MiB" for size, (*_, peak) in peaks.items())
    ours, theirs, _ = peaks[sizes[-1] if quick else rows]
    shared = _on_one_of_the_ranks(256 if quick else 8192, rounds=2 if quick else 5)
    return Comparison(
        clock="cpu",
        baseline=THEIRS,
        timings=alternate(variants, rounds=2 if quick else 5),
        checks=(
            *_agreement(),
            Check(
                "memory of slices, of the whole matrix's",
                ours / theirs,
                4 if quick else LARGEST_SHARE,
            ),
        ),
        notes=(
            f"N = {rows} rows, {NEGATIVES} hard negatives each, all of which every image sees: "
            f"{rows * (1 + NEGATIVES)} columns; width {WIDTH}, fp32, one thread.",
            f"Peak memory over that of the embeddings, slices and whole matrix: {memory_line}.",
            f"The same of the sigmoid loss, slices: {sigmoid_line}.",
            shared,
        ),
    )


def _on_one_of_the_ranks(count: int, rounds: int) -> str:
    """Time and memory of a rank of RANKS, in words."""
    inputs, rows = made(count), count // RANKS
    variants = {
        name: partial(_learn, partial(variant, rows=rows), inputs)
        for name, variant in _variants().items()
    }
    timings = alternate(variants, rounds)
    taken = Comparison("cpu", THEIRS, timings, (), ())
    seconds, ahead = taken.measured(OURS, "cpu"), taken.speed_up(OURS)
    peaks = [_peak_of(variant, count, rows) for variant in VARIANTS[:2]]
    return (
        f"One of {RANKS} ranks, {rows} rows against {count * (1 + NEGATIVES)} columns: slices take "
        f"{seconds.median:.3g} CPU s and are {ahead.median:.3g} ({ahead.low:.3g} - "
        f"{ahead.high:.3g}) times as fast as the whole matrix; {peaks[0]:.0f} and "
        f"{peaks[1]:.0f} MiB ({peaks[1] / peaks[0]:.1f} times less)."
    )


def made(rows: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Random unit rows."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((rows, WIDTH), (rows, WIDTH), (rows, NEGATIVES, WIDTH))
    parts = [torch.randn(*shape, generator=draw).to(dtype) for shape in shapes]
    return Inputs(*(part.div_(part.norm(dim=-1, keepdim=True)).requires_grad_() for part in parts))


def ours(inputs: Inputs, rows: int | None = None, term: str = "contrastive") -> torch.Tensor:
    """As training computes it, on a rank that has the first ``rows`` of all."""
    image, text, negative = inputs
    count, device, own = len(image), image.device, slice(rows)
    index = torch.arange(count, device=device)[:, None].repeat(1, 2)
    gathered = image, text, negative.flatten(0, 1)
    images, texts, negatives = _of_rank(inputs, rows)
    of_rank = Embeddings(images, texts, negatives, negatives[:, :0], *gathered)
    used = torch.ones(count, NEGATIVES, dtype=torch.bool, device=device)
    number = torch.arange(count * NEGATIVES, device=device) + count
    masks = pairs_repeat(index), negatives_vary(number, used.flatten(), index)
    of_all = index, number, used.flatten()
    slots = Masks(used[own], used[own, :0], index[own], *of_all, 0, *masks)
    compared = LossInputs(of_rank, slots, image.new_tensor([SCALE]), bias=image.new_tensor([-10.0]))
    config = LossConfig(terms={term: 1.0}, negatives_from="all_images")
    return objective(compared, config, ALPHA).total


def theirs(inputs: Inputs, rows: int | None = None) -> torch.Tensor:
    """As NegCLIP's and CE-CLIP's forks of open_clip do: one matrix of all logits."""
    image, text, negative = inputs
    images, texts, _ = _of_rank(inputs, rows)
    target = torch.arange(len(images), device=image.device)
    to_text = SCALE * images @ text.T
    hard = SCALE * images @ negative.flatten(0, 1).T + math.log(ALPHA)
    to_image = SCALE * texts @ image.T
    return F.cross_entropy(torch.cat([to_text, hard], dim=1), target) + F.cross_entropy(
        to_image, target
    )


def _of_rank(inputs: Inputs, rows: int | None) -> Inputs:
    """The first rows, or all as they are: a slice's gradient would be a copy."""
    return inputs if rows is None else Inputs(*(part[:rows] for part in inputs))


def _variants() -> dict[str, Callable[..., torch.Tensor]]:
    return {OURS: ours, THEIRS: theirs}


def _learn(variant: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> torch.Tensor:
    for leaf in inputs:
        leaf.grad = None
    loss = variant(inputs)
    loss.backward()
    return loss.detach()


def _agreement() -> tuple[Check, ...]:
    """In float64, so that only mistakes differ."""
    inputs = made(256, torch.float64)
    found, expected = _learn(ours, inputs), torch.zeros(())
    gradients = [leaf.grad for leaf in inputs]
    expected = _learn(theirs, inputs)
    apart = max(
        float((ours_ - leaf.grad).abs().max() / leaf.grad.abs().max())
        for ours_, leaf in zip(gradients, inputs, strict=True)
        if ours_ is not None and leaf.grad is not None
    )
    return (
        Check("difference of the loss", float((found - expected).abs()), 1e-9),
        Check("largest difference of a gradient, of the largest gradient", apart, 1e-9),
    )


def _peak_of(variant: str, *sizes: int) -> float:
    command = [sys.executable, str(Path(__file__)), variant, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak_mebibytes(
    variant: Callable[..., torch.Tensor], count: int, rows: int | None = None
) -> float:
    """Largest resident memory of forward and backward pass over that of the inputs; Linux only."""
    torch.set_num_threads(1)
    _learn(variant, made(64))  # what libraries set up at first use is not the loss's
    inputs, peak, over = made(count), 0.0, threading.Event()
    before = _resident()

    def watch() -> None:
        nonlocal peak
        while not over.is_set():
            peak = max(peak, _resident())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _learn(partial(variant, rows=rows), inputs)
    over.set()
    watcher.join()
    return peak - before


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    learned = (ours, theirs, partial(ours, term="sigmoid"))
    variant: Callable[..., torch.Tensor] = learned[VARIANTS.index(sys.argv[1])]
    print(peak_mebibytes(variant, *map(int, sys.argv[2:])))
