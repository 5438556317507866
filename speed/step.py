"""A whole training step of ViT-B/32 with 4 hard negatives an image, from the tar to new weights.

Against a step of open_clip's training script with the negatives appended, as NegCLIP's fork does
it: webdataset and PIL, every caption padded to 77 tokens and encoded, one matrix of logits, torch's
AdamW. One process, one thread, fp32; random weights, the same for both.
"""

import random
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
import webdataset as wds

from hnc_ds.config import DataConfig, LossConfig, ModelConfig
from hnc_ds.engine.deepspeed_config import resolve
from hnc_ds.engine.engine import Engine, start_process_group
from hnc_ds.model.load import load_model
from hnc_ds.objective.terms import LossInputs, LossTerms, objective
from hnc_ds.records import TrainingSample
from hnc_ds.shards.format import decode_sample, read_index
from hnc_ds.shards.loader import EMPTY, Batch, TrainingData
from hnc_ds.shards.negatives import draw_negatives, type_weights
from hnc_ds.training import grad_cache
from hnc_ds.training.grad_cache import Embedded, embed, gather_inputs
from speed.inputs import packed, photograph, write_pack_input
from speed.timing import Check, Comparison, alternate
from speed.variants import BETAS, DECAY, RATE, decay_groups, their_loss

MODEL, NEGATIVES = "ViT-B-32", 4
OURS, THEIRS = "hnc_ds", "open_clip's step, negatives appended"
SEED = 0
DEEPSPEED = {
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": RATE, "betas": BETAS, "weight_decay": DECAY, "torch_adam": True},
    },
    "zero_optimization": {"stage": 0},
    "gradient_clipping": 1.0,
}


def measure(folder: Path, quick: bool) -> Comparison:
    """Images/s of whole steps."""
    torch.set_num_threads(1)
    model, batch = ("tiny", 4) if quick else (MODEL, 16)
    start_process_group()
    photographs = [photograph(seed) for seed in range(batch)]
    shards = packed(write_pack_input(folder, photographs, batch, negatives=NEGATIVES))
    ours = Ours(model, shards, batch)
    theirs = Theirs(model, shards, batch)
    used = ours.batch(0)
    drawn = batch + int((used.negative_BK != EMPTY).sum())
    lengths = (used.token_TL.argmax(dim=1) + 1).float()
    return Comparison(
        clock="cpu",
        baseline=THEIRS,
        timings=alternate({OURS: ours.step, THEIRS: theirs.step}, rounds=2 if quick else 3),
        checks=_agreement(ours, theirs),
        notes=(
            f"{model}, fp32, one thread, batch {batch}, {NEGATIVES} hard negatives an image: "
            f"{drawn} captions, {len(lengths)} of them distinct, "
            f"{lengths.mean():.1f} tokens on average, {lengths.max():.0f} at most.",
            "Reading, decoding, cropping, tokenising, forward, loss, backward, clipping and AdamW "
            "are timed; both crop at random, so that only the loss of one batch is compared.",
        ),
        items="images",
        count=batch,
    )


class Ours:
    """As ``hnc_ds.train`` does it, on one rank."""

    def __init__(self, model: str, shards: Path, batch: int) -> None:
        clip = load_model(ModelConfig(model=model), SEED)
        config = DataConfig(hard_negatives=NEGATIVES, workers=0)
        views = (clip.image_settings, clip.tokenize)
        self._data = TrainingData(shards, config, SEED, batch, range(batch), *views)
        settings: dict[str, Any] = DEEPSPEED | {"train_batch_size": batch}
        self.engine = Engine(clip, clip.parameter_groups(), resolve(settings, Path("-"), 1, 1000))
        self._steps = 0

    def batch(self, step: int) -> Batch:
        """What is drawn at a step."""
        return self._data.batch(step)

    def step(self) -> None:
        """One optimizer step."""
        batch = self.batch(self._steps)
        grad_cache.step(self.engine, batch, partial(loss_of, batch), self._steps)
        self._steps += 1


def loss_of(batch: Batch, embedded: Embedded) -> tuple[LossTerms, LossInputs]:
    """Against the hard negatives of all images, as the peer."""
    config = LossConfig(negatives_from="all_images")
    compared = gather_inputs(embedded, batch, config)
    return objective(compared, config, 1.0), compared


class Theirs:
    """As open_clip's training script does it, with hard negatives appended to the captions."""

    def __init__(self, model: str, shards: Path, batch: int) -> None:
        clip = load_model(ModelConfig(model=model), SEED)
        self.towers: Any = clip.towers
        self._tokenize, self._length = clip.tokenize._tokenize, clip.tokenize.context_length
        self._shards, self._batch = shards, batch
        self._transform = open_clip.image_transform(clip.image_settings.size, is_train=True)
        self._types = type_weights(DataConfig(), tuple(read_index(shards).negatives), shards)
        groups = decay_groups(self.towers.named_parameters())
        self._optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)

    def step(self) -> None:
        """One optimizer step."""
        images_B3RR, positives, negatives = self._next()
        self._optimizer.zero_grad(set_to_none=True)
        self.loss(images_B3RR, self._tokenize(positives + negatives, self._length)).backward()
        torch.nn.utils.clip_grad_norm_(self.towers.parameters(), 1.0)
        self._optimizer.step()

    def _next(self) -> tuple[torch.Tensor, list[str], list[str]]:
        """Images, and the captions drawn as hnc_ds draws them, so that there are as many."""
        images, positives, negatives = [], [], []
        for number, (image, sample) in enumerate(self._samples()):
            rng = random.Random(number)
            group, drawn = draw_negatives(sample.groups, self._types, NEGATIVES, rng, 0.0)
            images.append(image)
            positives.append(group.positive)
            negatives += [negative.caption for negative in drawn]
        return torch.stack(images), positives, negatives

    def _samples(self) -> Iterator[tuple[torch.Tensor, TrainingSample]]:
        tars = [str(path) for path in sorted(self._shards.glob("*.tar"))]
        stream = wds.WebDataset(tars, shardshuffle=False).decode("pilrgb", only=["jpg"])
        for sample in islice(stream, self._batch):
            yield self._transform(sample["jpg"]), decode_sample(sample["json"], sample["__key__"])

    def loss(self, images_B3RR: torch.Tensor, token_TL: torch.Tensor) -> torch.Tensor:
        """InfoNCE of the images with all captions, and of the positive captions with the images."""
        image_BD = self.towers.encode_image(images_B3RR, normalize=True)
        text_TD = self.towers.encode_text(token_TL, normalize=True)
        return their_loss(image_BD, text_TD, self.towers.logit_scale.exp())


def _agreement(ours: Ours, theirs: Theirs) -> tuple[Check, ...]:
    """Both losses of one batch, under the same weights."""
    batch, clip = ours.batch(0), ours.engine.module
    with torch.no_grad():
        terms, _ = loss_of(batch, embed(clip.forward, batch))
        theirs.towers.load_state_dict(clip.state_by_open_clip_name())
        rows = torch.cat([batch.positive_B, batch.negative_BK[batch.negative_BK != EMPTY]])
        missing = clip.tokenize.context_length - batch.token_TL.shape[1]
        padded_TL = F.pad(batch.token_TL, (0, missing))[rows]
        settings = clip.image_settings
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (settings.mean, settings.std))
        expected = theirs.loss((batch.images_B3RR / 255 - mean) / std, padded_TL)
    return (
        Check("difference of the loss of one batch", float((terms.total - expected).abs()), 1e-4),
    )
