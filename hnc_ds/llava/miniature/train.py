"""Train the connector and the language model of a little LLaVA; its tower stays as it is.

B questions, P tokens up to and with the picture, L after it (question, answer, end), V words.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from hnc_ds.llava.model import Llava
from hnc_ds.llava.questions import VqaQuestion

NO_LABEL = -100


class Lesson(NamedTuple):
    """A question with the answer that is to be learned."""

    question: VqaQuestion
    folder: Path
    """Of its picture."""
    answer: str


class Course(NamedTuple):
    """How it is taught."""

    steps: int
    batch: int
    rate: float
    """The highest learning rate; it rises for a twentieth of the steps and then falls to 0."""
    seed: int


def teach(llava: Llava, lessons: Sequence[Lesson], course: Course) -> list[float]:
    """Train in place.

    Returns:
        The loss of every step.
    """
    model = llava.model
    model.model.vision_tower.requires_grad_(False)
    features = _features(llava, lessons)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=course.rate, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, course.rate, total_steps=course.steps, pct_start=0.05
    )
    draw, losses = random.Random(course.seed), list[float]()
    for _ in tqdm(range(course.steps), "lessons", unit="step", disable=None):
        drawn = [lessons[draw.randrange(len(lessons))] for _ in range(course.batch)]
        loss = _loss(llava, drawn, features)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@torch.inference_mode()
def _features(llava: Llava, lessons: Sequence[Lesson]) -> dict[Path, torch.Tensor]:
    """What the connector gets of each picture, computed once."""
    paths = list(dict.fromkeys(one.folder / one.question.image for one in lessons))
    found: dict[Path, torch.Tensor] = {}
    for start in tqdm(range(0, len(paths), 256), "pictures", unit="batch", disable=None):
        some = paths[start : start + 256]
        pixels = torch.stack([llava.pictures(path) for path in some])
        found |= dict(zip(some, _seen(llava.model, pixels), strict=True))
    return found


def _seen(model: Any, pixels_I3RR: torch.Tensor) -> torch.Tensor:
    """Hidden states of the patches at the layer that the configuration names."""
    config = model.config
    states = model.model.vision_tower(pixels_I3RR, output_hidden_states=True).hidden_states
    hidden: torch.Tensor = states[config.vision_feature_layer]
    return hidden[:, 1:] if config.vision_feature_select_strategy == "default" else hidden


def _loss(
    llava: Llava, drawn: Sequence[Lesson], features: dict[Path, torch.Tensor]
) -> torch.Tensor:
    model, words = llava.model, llava.model.get_input_embeddings()
    end = min(llava.stop_ids)
    rows, labels = [], []
    for one in drawn:
        before, after = llava.split_prompt(one.question.text)
        answer = [*llava.tokenizer(one.answer, add_special_tokens=False)["input_ids"], end]
        rows.append([*after, *answer])
        labels.append([NO_LABEL] * len(after) + answer)
    longest = max(map(len, rows))
    ids_BL = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
    label_BL = torch.tensor([row + [NO_LABEL] * (longest - len(row)) for row in labels])
    seen = torch.stack([features[one.folder / one.question.image] for one in drawn])
    image_BPD = model.model.multi_modal_projector(seen)
    before_BPD = words(torch.tensor([before])).expand(len(drawn), -1, -1)
    whole_BLD = torch.cat([before_BPD, image_BPD, words(ids_BL)], dim=1)
    hidden = model.model.language_model(inputs_embeds=whole_BLD, use_cache=False)[0]
    # A position tells the next token; what is padded on the right is after all that is told.
    logits_BLV = model.lm_head(hidden[:, -longest - 1 : -1])
    return cross_entropy(logits_BLV.flatten(0, 1), label_BL.flatten(), ignore_index=NO_LABEL)
