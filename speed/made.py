"""Training batches for which no file is read: random images, captions as hnc_ds makes them.

B images, K hard negatives an image, T captions of L tokens, R pixels.
"""

import random
from pathlib import Path

import torch

from hnc_ds.model.clip import Clip
from hnc_ds.shards.loader import Batch, text_number
from speed.graphs import caption_sets
from speed.inputs import filled

CAPTION_SETS = 1024
"""Images with captions of their own; further ones draw from these again."""
MOST_GROUPS = 48

Captions = list[tuple[str, ...]]
"""Of each image, the positive and K hard negatives."""


def drawn_captions(folder: Path, images: int, negatives: int) -> Captions:
    """Captions of HNC's length, as a training draws them; always the same.

    Args:
        folder: For the scene graphs that they are made from.
        images: How many.
        negatives: K of each image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sets = caption_sets(folder, min(images, CAPTION_SETS), MOST_GROUPS)
    usable = [groups for groups in (filled(g, negatives) for g in sets) if groups]
    rng = random.Random(0)
    found = []
    for number in range(images):
        group = rng.choice(usable[number % len(usable)])
        others = [negative.caption for negative in group.negatives]
        own = rng.sample(others, min(negatives, len(others)))
        found.append((group.positive, *own, *own[:1] * (negatives - len(own))))
    return found


def made_batch(clip: Clip, captions: Captions, rows: range) -> Batch:
    """Some rows of a batch of all the captions' images: the same images whoever has them."""
    size, total = clip.image_settings.size, len(captions)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (total, 3, size, size), generator=draw, dtype=torch.uint8)
    distinct: dict[str, int] = {}
    own = captions[rows.start : rows.stop]
    row_BC = torch.tensor([[distinct.setdefault(c, len(distinct)) for c in of] for of in own])
    count, negatives = len(own), row_BC.shape[1] - 1
    token_TL = clip.tokenize(list(distinct))
    return Batch(
        images_B3RR=images[rows.start : rows.stop],
        token_TL=token_TL,
        positive_B=row_BC[:, 0],
        negative_BK=row_BC[:, 1:],
        negative_type_BK=torch.zeros((count, negatives), dtype=torch.int64),
        negative_about_BK=torch.zeros((count, negatives), dtype=torch.int64),
        unrelated_BM=torch.zeros((count, 0), dtype=torch.int64),
        image_index_B=torch.arange(rows.start, rows.stop),
        text_index_T=torch.tensor([text_number(caption) for caption in distinct]),
        used_T=clip.tokenize.used_tokens(token_TL),
        corrupt=(),
    )
