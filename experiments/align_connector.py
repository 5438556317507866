"""Train the connector of a LLaVA alone: what does a swapped tower give once it is re-aligned?

    python experiments/align_connector.py llava-first --out llava-first-aligned \\
        --captions blip_laion_cc_sbu_558k.json --images LLaVA-Pretrain/images
    deepspeed --num_gpus 8 experiments/align_connector.py ... --micro-batches 2

Captions are LLaVA's JSON or shards of 'hnc-ds pack'; defaults are those of LLaVA-1.5's first stage.
Tower and language model are frozen, all their bytes stay. Started again, it resumes from
OUT.checkpoints, on any number of ranks. B images of a micro-batch, P patches, D width.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import random
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
import tyro
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from experiments.presets import main
from hnc_ds import checkpoint
from hnc_ds.distributed import on_rank_zero, rank, world_size
from hnc_ds.engine.deepspeed_config import find_deepspeed_config, read_deepspeed_config, resolve
from hnc_ds.engine.engine import Engine, device, is_accelerated, start_process_group
from hnc_ds.errors import UserError
from hnc_ds.evaluation.released.annotations import read_json
from hnc_ds.export.into_llava import write_connector
from hnc_ds.images import CorruptImage, read_rgb
from hnc_ds.launch import readers
from hnc_ds.llava.model import Llava, load_llava
from hnc_ds.llava.tiny_model import loss_after_image, tower_features
from hnc_ds.model.llava_prompt import IMAGE, around_image
from hnc_ds.model.load import WEIGHTS_NAME
from hnc_ds.shards.reader import ShardReader
from hnc_ds.worker_processes import FORK, identity


@dataclass(frozen=True)
class Settings:
    """Train the connector of a LLaVA; tower and language model are frozen."""

    model: tyro.conf.Positional[Path]
    """LLaVA folder, such as the output of 'hnc-ds export --into'."""
    captions: Path
    """blip_laion_cc_sbu_558k.json, another JSON in its layout, or a folder of shards."""
    out: Path
    """Output folder; checkpoints are in OUT.checkpoints."""
    images: Path | None = None
    """Folder of the JSON's images."""
    prompt: Literal["plain", "vicuna"] = "plain"
    """plain: the caption follows the image. vicuna: LLaVA-1.5's prompt with the JSON's question."""
    steps: int = 2180
    """Training steps."""
    batch: int = 256
    """Images of a step, over all ranks."""
    micro_batches: int = 1
    """Parts of a rank's images, which go through the model one after the other."""
    lr: float = 1e-3
    """Peak learning rate, after a warm-up of 3 % of the steps."""
    save_every: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of the order."""

    def deepspeed(self) -> dict[str, Any]:
        """The shipped settings for a CPU with those of LLaVA-1.5's first stage."""
        config = read_deepspeed_config(find_deepspeed_config(Path("cpu")))
        config |= {
            "train_batch_size": self.batch,
            "gradient_accumulation_steps": self.micro_batches,
        }
        adam = {"lr": self.lr, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8}
        config["optimizer"]["params"] |= adam
        config["scheduler"]["params"]["warmup_num_steps"] = max(2, round(0.03 * self.steps))
        return config


class _Row(msgspec.Struct):
    image: str
    conversations: list[dict[str, str]]


Example = tuple[torch.Tensor, list[int], list[int], list[int]]
"""Pixels [3, R, R]; token ids before the image, after it, and those to be predicted."""


class MicroBatches(Dataset["list[Example] | UserError"]):
    """This rank's micro-batches from a step on; the order depends on the seed alone."""

    def __init__(self, settings: Settings, llava: Llava, start: int) -> None:
        self._settings, self._llava, self._place = settings, llava, (rank(), world_size())
        self._rows = settings.batch // world_size() // settings.micro_batches
        self.start = start * settings.micro_batches
        shards = settings.captions.is_dir()
        if not shards and settings.images is None:
            raise UserError(f"{settings.captions}: name the folder of its images (--images)")
        self._shards = ShardReader(settings.captions) if shards else None
        self._json = [] if shards else read_json(settings.captions, list[_Row], "LLaVA's JSON")
        self._order = lru_cache(maxsize=2)(self._drawn_order)

    def __len__(self) -> int:
        return self._settings.steps * self._settings.micro_batches - self.start

    def __getitem__(self, number: int) -> list[Example] | UserError:
        own, ranks = self._place
        first = ((self.start + number) * ranks + own) * self._rows
        try:
            return [self._example(position) for position in range(first, first + self._rows)]
        except (CorruptImage, UserError) as error:  # a worker's would come with its traceback
            return UserError(f"{error}; copy it again, or leave it out")

    def _drawn_order(self, epoch: int) -> list[int]:
        order = list(range(len(self._shards or self._json)))
        random.Random(f"{self._settings.seed}/{epoch}").shuffle(order)
        return order

    def _example(self, position: int) -> Example:
        epoch, place = divmod(position, len(self._shards or self._json))
        number = self._order(epoch)[place]
        if self._shards is not None:
            groups = self._shards.sample(number).groups
            caption = random.Random(f"{self._settings.seed}/{position}").choice(groups).positive
            pixels = self._llava.view.of_image(read_rgb(self._shards.image_bytes(number)))
            return (pixels, *self._tokens("", caption))
        row = self._json[number]
        question, answer = (turn["value"] for turn in row.conversations[:2])
        pixels = self._llava.view((self._settings.images or Path()) / row.image)
        return (pixels, *self._tokens(question.replace(IMAGE, "").strip(), answer))

    def _tokens(self, question: str, answer: str) -> tuple[list[int], list[int], list[int]]:
        tokenizer = self._llava.tokenizer
        if self._settings.prompt == "plain":  # as LLaVA: a line break ends a caption
            before, target = around_image(tokenizer, "", f"{answer}\n")
            return before, [], target
        target = tokenizer(answer, add_special_tokens=False)["input_ids"]
        return (*self._llava.split_prompt(question), [*target, min(self._llava.stop_ids)])


def run(settings: Settings) -> None:
    """Train or resume, and write the folder, unless it is there."""
    if settings.out.exists():
        print(f"{settings.out}: is there; remove it to train anew")
        return
    start_process_group()
    llava = load_llava(
        settings.model, torch.bfloat16 if is_accelerated() else torch.float32, device()
    )
    connector = llava.model.requires_grad_(False).model.multi_modal_projector
    connector.float().cpu().requires_grad_(True)
    saves = settings.out.with_name(f"{settings.out.name}.checkpoints")
    found = on_rank_zero(partial(checkpoint.latest, saves, checkpoint.CONTINUED_FROM))
    saved = checkpoint.read(found) if found else None
    for name, tensor in (saved.weights if saved else {}).items():
        connector.get_parameter(name.removeprefix(checkpoint.PREFIX)).data.copy_(tensor)
    deepspeed = resolve(settings.deepspeed(), settings.out, world_size(), settings.steps)
    engine = Engine(connector, [{"params": list(connector.parameters())}], deepspeed)
    if saved:
        engine.restore(saved.moments, saved.scalars)
    train(settings, llava, engine, saved.step if saved else 0, saves)
    weights = engine.whole_weights()
    on_rank_zero(partial(write_connector, settings.model, weights, settings.out))


def train(settings: Settings, llava: Llava, engine: Engine, start: int, saves: Path) -> None:
    """Train from a step on; write checkpoints, and print the mean loss since the last one."""
    data, losses = MicroBatches(settings, llava, start), list[torch.Tensor]()
    loading = {"num_workers": min(4, readers()), "multiprocessing_context": FORK}
    loader = DataLoader(data, None, collate_fn=identity, **loading)  # type: ignore[arg-type]
    for number, batch in enumerate(tqdm(loader, disable=rank() > 0 or None), data.start + 1):
        if isinstance(batch, UserError):
            raise batch
        pixels, before, after, targets = zip(*batch, strict=True)
        seen_BPD = tower_features(llava.model, torch.stack(pixels).to(device(), llava.model.dtype))
        image_BPD = engine.forward(seen_BPD.float()).to(llava.model.dtype)
        loss = loss_after_image(llava.model, before[0], image_BPD, after, targets)
        engine.backward_and_step(loss / settings.micro_batches)
        losses.append(loss.detach())
        step, more = divmod(number, settings.micro_batches)
        if not more and (step % settings.save_every == 0 or step == settings.steps):
            state, mean = engine.state(), float(torch.stack(losses).mean())
            files = {WEIGHTS_NAME: state.weights, checkpoint.MOMENTS_NAME: state.moments}
            content = checkpoint.CheckpointFiles(files, None, state.scalars, {})
            on_rank_zero(partial(checkpoint.write, saves, step, content, 1))
            on_rank_zero(partial(print, f"step {step}: loss {mean:.3f}", flush=True))
            losses.clear()


if __name__ == "__main__":
    sys.exit(main("align_connector", Settings, run))
