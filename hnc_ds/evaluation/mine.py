"""Mine the most similar other images of every image, for ``--similar`` of a training; also their
captions as hard negatives (similar_captions.py).

    hnc-ds mine --model ViT-B-32 --pretrained openai --shards data/gqa/shards/train \\
        --out data/gqa/similar.safetensors

N readable images, k neighbours, width D. Cosines are float32 and computed in blocks, so memory is
not quadratic in N; of equal cosines the lower sample number comes first. Runs in one process.

Source: NegCLIP (Yuksekgonul et al. 2023) adds one of the 3 nearest images to the batch.
"""

import numpy as np
import torch
from tqdm import tqdm

from hnc_ds.captions.captions_file import check_output
from hnc_ds.checkpoint import load_trained
from hnc_ds.config import MineConfig, ModelConfig
from hnc_ds.errors import UserError
from hnc_ds.evaluation.embed import EmbeddedImages, refuse_broken_weights
from hnc_ds.evaluation.encoder import Encoder, model_name
from hnc_ds.evaluation.similar_captions import write_similar_captions
from hnc_ds.model.clip import Clip
from hnc_ds.model.load import load_model
from hnc_ds.shards.order import NO_NEIGHBOR, Mined, Neighbours, images_fingerprint, write_neighbours
from hnc_ds.shards.reader import ShardReader

QUERIES, CANDIDATES = 1024, 8192
"""Rows and columns of a block of cosines."""

UNITS = 2**30
"""A float32 cosine is a multiple of 1 / UNITS, or within 0.01 of 0."""

LEAST = -1.5
"""Replaces a cosine that is not finite: below all others, and above NO_CANDIDATE."""

NUMBERS = 2**32
NO_CANDIDATE = -(2**63)


def mine(config: MineConfig) -> None:
    """Embed the images of shards and write the nearest neighbours of each.

    Raises:
        UserError: The model or the shards do not exist, more than 1 % of the images cannot be
            decoded, there are fewer than two images, or the output cannot be written.
    """
    if config.out.suffix != ".safetensors" or config.out.is_dir():
        raise UserError(f"--out is {config.out}; name a file that ends in .safetensors")
    if config.captions_out is not None:
        check_output(config.captions_out, config.overwrite)
    reader = ShardReader(config.shards)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, model = _load(config, device)
    refuse_broken_weights(model, name)
    encoder = Encoder(model, device, config.batch, config.workers, name=name)
    embedded = encoder.shards(reader)
    neighbours = find_neighbours(embedded, reader, config.k, name)
    write_neighbours(config.out, neighbours)
    if config.captions_out is not None:
        print(
            write_similar_captions(
                config.captions_out, config.per_caption, encoder, reader, neighbours
            )
        )
    print(
        f"mine: {neighbours.described()}; of the nearest {neighbours.first(1).mean_cosine():.3f}; "
        f"{len(embedded.unreadable)} unreadable; wrote {config.out}"
    )


def find_neighbours(
    embedded: EmbeddedImages, reader: ShardReader, k: int, model: str
) -> Neighbours:
    """The nearest neighbours of every sample of a reader, by sample number.

    Args:
        embedded: Images of the reader. Unreadable ones have no neighbours and are not neighbours.
        reader: Reader of the samples.
        k: Neighbours of each sample.
        model: Name of the model.

    Raises:
        UserError: There are fewer than two images.
    """
    rows: dict[str, int] = {}
    keys = [reader.key(sample) for sample in embedded.samples]
    identity_N = torch.tensor([rows.setdefault(key, len(rows)) for key in keys])
    if len(rows) < 2:
        raise UserError(f"{reader.location}: holds no two images that could be similar")
    row_NK, cosine_NK = nearest_rows(embedded.image_ND, identity_N, k)
    samples = np.array(embedded.samples, dtype=np.int32)
    nearest = np.full((len(reader), k), NO_NEIGHBOR, dtype=np.int32)
    cosine = np.zeros((len(reader), k), dtype=np.float32)
    nearest[samples] = np.where(row_NK == NO_NEIGHBOR, NO_NEIGHBOR, samples[row_NK])
    cosine[samples] = cosine_NK
    return Neighbours(nearest, cosine, Mined(images_fingerprint(reader), model, k))


@torch.inference_mode()
def nearest_rows(
    image_ND: torch.Tensor,
    identity_N: torch.Tensor,
    k: int,
    *,
    queries: int = QUERIES,
    candidates: int = CANDIDATES,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows most similar to each row, without rows of the same identity.

    Args:
        image_ND: float32, unit rows.
        identity_N: Equal for rows of the same image.
        k: Rows to return for each row.
        queries: Rows of a block of cosines.
        candidates: Columns of a block.

    Returns:
        Rows int64 [N, k], nearest first and lower rows first among equals, padded with
        NO_NEIGHBOR; and their cosines, float32, padded with 0.
    """
    identity_N = identity_N.to(image_ND.device)
    blocks = range(0, len(image_ND), queries)
    ranked_NK = torch.cat(
        [
            _nearest_of(slice(start, start + queries), image_ND, identity_N, k, candidates)
            for start in tqdm(blocks, "neighbours", unit="block", disable=None)
        ]
    ).cpu()
    row_NK = NUMBERS - 1 - ranked_NK % NUMBERS
    cosine_NK = (ranked_NK // NUMBERS).double() / UNITS
    missing_NK = ranked_NK == NO_CANDIDATE
    return (
        row_NK.masked_fill(missing_NK, NO_NEIGHBOR).numpy(),
        cosine_NK.masked_fill(missing_NK, 0).float().numpy(),
    )


def _nearest_of(
    rows: slice, image_ND: torch.Tensor, identity_N: torch.Tensor, k: int, candidates: int
) -> torch.Tensor:
    """The k highest ranks of candidates for a slice of rows, int64 [Q, k], highest first."""
    query_QD, identity_Q1 = image_ND[rows], identity_N[rows, None]
    best_QK = torch.full((len(query_QD), k), NO_CANDIDATE, device=image_ND.device)
    for start in range(0, len(image_ND), candidates):
        columns = slice(start, start + candidates)
        rank_QC = _ranks(query_QD @ image_ND[columns].T, start)
        rank_QC.masked_fill_(identity_Q1 == identity_N[columns], NO_CANDIDATE)
        block_QK = rank_QC.topk(min(k, rank_QC.shape[1])).values
        best_QK = torch.cat([best_QK, block_QK], dim=1).topk(k).values
    return best_QK


def _ranks(cosine_QC: torch.Tensor, first: int) -> torch.Tensor:
    """Distinct integers that are higher for a greater cosine, then for a lower row.

    So the k highest do not depend on the sorting algorithm or the block size.
    """
    row_C = torch.arange(first, first + cosine_QC.shape[1], device=cosine_QC.device)
    cosine_QC = torch.where(cosine_QC.isfinite(), cosine_QC, LEAST)
    return (cosine_QC * UNITS).long().mul_(NUMBERS).add_(NUMBERS - 1 - row_C)


def _load(config: MineConfig, device: torch.device) -> tuple[str, Clip]:
    """Name and model."""
    if config.run is not None:
        return model_name(config.run), load_trained(config.run, device).eval()
    model = config.model or ""
    if config.pretrained is None and not model.startswith(("hf-hub:", "local-dir:")):
        raise UserError(
            f"--model {model} has random weights without --pretrained; add it, or give a run"
        )
    settings = ModelConfig(model=model, pretrained=config.pretrained)
    name = model if config.pretrained is None else f"{model} {config.pretrained}"
    return name, load_model(settings, seed=0).to(device).eval()
