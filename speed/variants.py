"""A training step as hnc_ds has it, as open_clip's script has it, and as hnc_ds without an engine,
on any device and number of ranks.

What a step is given is in memory, so that reading is not compared. B images of a rank, N of all W
ranks, K hard negatives an image, T captions of L tokens, width D.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.nn.functional import all_gather
from torch.nn.parallel import DistributedDataParallel

from hnc_ds.config import LossConfig
from hnc_ds.engine.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.engine.engine import Engine, start_process_group
from hnc_ds.model.clip import LARGEST_LOGIT_SCALE, Clip
from hnc_ds.model.compiled import compile_blocks
from hnc_ds.objective.terms import LossInputs, LossTerms, objective
from hnc_ds.shards.loader import EMPTY, Batch
from hnc_ds.training import grad_cache
from hnc_ds.training.grad_cache import Embedded, embed, gather_inputs
from hnc_ds.training.loop import Reports

Phases = dict[str, tuple[Any, str]]
"""By name, in their order: the object and its method that a step calls once for it."""
RATE, DECAY, BETAS, EPSILON, CLIPPING = 1e-5, 0.1, (0.9, 0.98), 1e-6, 1.0
"""Of AdamW in every variant; they are those of ds_configs/."""


def shipped(name: str, **changed: Any) -> dict[str, Any]:
    """A configuration of ds_configs/, without a schedule, with sections of one's own."""
    config = read_deepspeed_config(find_deepspeed_config(Path(name)))
    config.pop("scheduler", None)
    return cast(dict[str, Any], json.loads(json.dumps(config | changed)))


class Ours:
    """As ``hnc_ds.train`` steps.

    Args:
        clip: What trains; it moves to the engine's device.
        deepspeed: DeepSpeed's JSON.
        ranks: Processes that train.
        all_negatives: Whether images compete with the hard negatives of all, as the peer's do.
    """

    def __init__(
        self, clip: Clip, deepspeed: Mapping[str, Any], ranks: int = 1, all_negatives: bool = False
    ) -> None:
        start_process_group()
        config = resolve(dict(deepspeed), Path("-"), ranks, 1000)
        self.engine = Engine(clip, clip.parameter_groups(), config)
        self._loss = LossConfig(negatives_from="all_images" if all_negatives else "own_image")
        self._reports = Reports(self.engine.device)
        self._steps = 0

    def step(self, batch: Batch) -> torch.Tensor:
        """One optimizer step; the loss of this rank. As in training, whether it is finite is seen
        when the next one is under way."""
        terms, _ = grad_cache.step(self.engine, batch, partial(self._objective, batch), 0)
        unsound = None if self.engine.scales_loss else self.engine.unsound()
        self._reports.send(self._steps, 0, False, terms.total, unsound)
        for report in self._reports.read(self._steps - 1):
            if not (report.is_finite and report.is_sound):
                raise ValueError("the loss or its gradient is not finite")
        self._steps += 1
        return terms.total.detach()

    def _objective(self, batch: Batch, embedded: Embedded) -> tuple[LossTerms, LossInputs]:
        compared = gather_inputs(embedded, batch, self._loss)
        terms = objective(compared, self._loss, 1.0)
        return terms, compared

    def compile(self, backend: str) -> None:
        """torch.compile of the blocks of both towers, as ``--compile`` has it."""
        compile_blocks(self.engine.module, backend)

    def phases(self) -> Phases:
        """Of a step in one pass; what is not in them is between them."""
        deepspeeds: Any = self.engine._engine
        return {
            "forward": (self.engine, "forward"),
            "objective": (self, "_objective"),
            "backward": (deepspeeds, "backward"),
            "engine.step": (deepspeeds, "step"),
        }

    def close(self) -> None:
        """Let go of the memory."""
        self.engine.close()


class NoEngine:
    """The same work as ``Ours`` without DeepSpeed: what an engine costs is the difference.

    Weights, gradients and moments are all in one precision, so there are no fp32 weights to update:
    less than a training in bf16 should do, and the least that the work can take.

    Args:
        clip: What trains; it moves to the device.
        device: Where.
        dtype: Of the weights.
        all_negatives: Whether images compete with the hard negatives of all.
    """

    def __init__(
        self,
        clip: Clip,
        device: torch.device,
        dtype: torch.dtype = torch.bfloat16,
        all_negatives: bool = False,
    ) -> None:
        self.clip = clip.to(device, dtype)
        self._loss = LossConfig(negatives_from="all_images" if all_negatives else "own_image")
        groups = [{"weight_decay": DECAY} | group for group in clip.parameter_groups()]
        self._trained = [p for group in groups for p in group["params"]]
        self._optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON, fused=True)

    def step(self, batch: Batch) -> torch.Tensor:
        """One optimizer step; the loss."""
        embedded = embed(self._forward, batch)
        terms = self._objective(batch, embedded)
        self._backward(terms.total + embedded.bound_pull.squeeze())
        self._update()
        return terms.total.detach()

    def _forward(self, *inputs: Any) -> Any:
        return self.clip(*inputs)

    def _objective(self, batch: Batch, embedded: Embedded) -> LossTerms:
        compared = gather_inputs(embedded, batch, self._loss)
        return objective(compared, self._loss, 1.0)

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self._trained, CLIPPING, foreach=True)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def compile(self, backend: str) -> None:
        """As ``Ours`` does it."""
        compile_blocks(self.clip, backend)

    def phases(self) -> Phases:
        """As those of ``Ours``; the last one clips and updates."""
        names = ("forward", "objective", "backward", "engine.step")
        methods = ("_forward", "_objective", "_backward", "_update")
        return {name: (self, method) for name, method in zip(names, methods, strict=True)}


class TheirBatch(NamedTuple):
    """What open_clip's script would have from its loader."""

    images_B3RR: torch.Tensor
    """Normalised."""
    token_TL: torch.Tensor
    """The B positives and then all hard negatives, however often they repeat; full length."""


def their_batch(clip: Clip, batch: Batch) -> TheirBatch:
    """The same rows in the peer's form, on the batch's device."""
    rows_T = torch.cat([batch.positive_B, batch.negative_BK[batch.negative_BK != EMPTY]])
    missing = clip.tokenize.context_length - batch.token_TL.shape[1]
    settings = clip.image_settings
    mean, std = (
        batch.images_B3RR.new_tensor(values, dtype=torch.float32).view(3, 1, 1)
        for values in (settings.mean, settings.std)
    )
    images_B3RR = batch.images_B3RR.float().div_(255).sub_(mean).div_(std)
    return TheirBatch(images_B3RR, F.pad(batch.token_TL, (0, missing))[rows_T])


class Theirs:
    """As open_clip's training script steps (--local-loss --gather-with-grad), with the negatives
    appended to the captions, as NegCLIP's fork does it.

    Args:
        towers: An open_clip model.
        device: Where it trains.
        autocast: Precision under autocast, of the loss as well (--precision amp_bf16).
    """

    def __init__(
        self, towers: nn.Module, device: torch.device, autocast: torch.dtype | None = None
    ) -> None:
        self.towers: Any = towers.to(device)
        for module in towers.modules():  # as open_clip has it, not as ours may have changed it
            while type(module).__module__.startswith("hnc_ds."):
                module.__class__ = cast(type[nn.Module], type(module).__base__)
        self._model: Any = self.towers
        if _ranks() > 1:
            self._model = DistributedDataParallel(self.towers)
            self._model.register_comm_hook(None, _averaged)
        self._device, self._autocast = device, autocast
        groups = decay_groups(self.towers.named_parameters())
        self._optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON)

    def step(self, batch: TheirBatch) -> torch.Tensor:
        """One optimizer step; the loss of this rank."""
        with _their_flags():
            return self._step(batch)

    def compile(self, backend: str) -> None:
        """torch.compile of the blocks of both towers: of the whole model it takes minutes."""
        _compile_blocks(self.towers, backend)

    def _step(self, batch: TheirBatch) -> torch.Tensor:
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            image_BD, text_TD, scale, *_ = self._model(batch.images_B3RR, batch.token_TL)
            loss = their_loss(image_BD, text_TD, scale)
        loss.backward()
        nn.utils.clip_grad_norm_(self.towers.parameters(), CLIPPING)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.towers.logit_scale.clamp_(0, math.log(LARGEST_LOGIT_SCALE))
        return loss.detach()


def _compile_blocks(towers: Any, backend: str) -> None:
    """Where attention takes packed captions its lengths would break the graph in every block."""
    text = getattr(towers, "text", towers)
    for block in (*towers.visual.transformer.resblocks, *text.transformer.resblocks):
        if type(block.attn) is nn.MultiheadAttention:
            block.compile(backend=backend)


@contextmanager
def _their_flags() -> Iterator[None]:
    """What open_clip_train/main.py sets for the process, and takes back what was set before."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.benchmark
    matmul.allow_tf32, cudnn.benchmark = True, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.benchmark = before


def decay_groups(named: Iterable[tuple[str, nn.Parameter]]) -> list[dict[str, Any]]:
    """open_clip's split into what decays and what does not."""
    trained = [(name, p) for name, p in named if p.requires_grad]
    plain = [p for n, p in trained if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n]
    chosen = {id(p) for p in plain}
    decayed = [p for _, p in trained if id(p) not in chosen]
    return [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]


def their_loss(image_BD: torch.Tensor, text_TD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """InfoNCE of the images with all captions, and of the positive captions with the images, as
    one matrix of logits each; the first B texts are the positives."""
    rows, first = len(image_BD), 0
    image_ND, positive_ND, negative_CD = image_BD, text_TD[:rows], text_TD[rows:]
    if _ranks() > 1:
        first = dist.get_rank() * rows
        image_ND, gathered = torch.cat(all_gather(image_BD)), all_gather(text_TD)
        positive_ND = torch.cat([text[:rows] for text in gathered])
        negative_CD = torch.cat([text[rows:] for text in gathered])
    target = torch.arange(first, first + rows, device=image_BD.device)
    to_text = scale * image_BD @ torch.cat([positive_ND, negative_CD]).T
    to_image = scale * text_TD[:rows] @ image_ND.T
    return F.cross_entropy(to_text, target) + F.cross_entropy(to_image, target)


def _averaged(
    _: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """What DistributedDataParallel does by itself, in Python, where it can be counted."""
    buffer = bucket.buffer().div_(dist.get_world_size())
    return dist.all_reduce(buffer, async_op=True).get_future().then(lambda sent: sent.value()[0])


def _ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
