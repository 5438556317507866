"""True captions of similar images as hard negatives, for ``hnc-ds mine --captions_out``.

Captions are exchanged: caption c of image i gets caption d of image j as a negative if and only if
d gets c. So every caption is as often a negative as it has negatives, every negative was written
for an image, and whatever ranks texts alone is right in one of the two pairs and wrong in the
other: 50 %. Image pairs are visited in rounds, the most similar first, and exchange one pair of
captions a round, the most similar one, so that captions of an image go to different images.

No negative is proven false. Captions are not exchanged if one may be true of both images:

* all its content words are in the true captions of the other image, or
* it is as similar to one of them as captions of one image are: the median, over all captions, of
  the cosine with the most similar other caption of the same image, by the model.

N images of the shards, C captions of all images, A and B captions of two images, D width.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from hnc_ds.atomic_files import atomic_file, atomic_write, writing
from hnc_ds.captions.caption_stats import Counts, stats_json, stats_path_of, summary
from hnc_ds.captions.captions_file import CHUNK_IMAGES, chunk_of
from hnc_ds.captions.coverage import coverage_of
from hnc_ds.captions.text_classifier import TEMPLATE_WORDS, words_of
from hnc_ds.evaluation.encoder import Encoder
from hnc_ds.records import ImageCaptions, Negative, TrainingSample
from hnc_ds.shards.order import NO_NEIGHBOR, Mined, Neighbours
from hnc_ds.shards.reader import ShardReader

TYPE = "similar_caption"
"""Negative type."""

FUNCTION_WORDS = TEMPLATE_WORDS | frozenset(
    "about above across after against along among around at away back be behind being below "
    "beneath beside between by down during for from front has have he her his in inside into it "
    "its like near next off on onto other out outside over past she side their them they this "
    "through to together top toward towards under up very was were what where while with".split()
)
"""Words that say nothing new about an image."""

_ENDING = re.compile(r"(?<=\w\w\w)(?:ing|ed|es|s|e)$")


def content_words(caption: str) -> frozenset[str]:
    """Stems of the words that are not function words: 'dogs running' -> dog, run."""
    words = [word for word in words_of(caption.casefold()) if word[0].isalnum()]
    return frozenset(_stem(word) for word in words if word not in FUNCTION_WORDS)


def _stem(word: str) -> str:
    stem = _ENDING.sub("", word)
    return stem[:-1] if stem[-1] == stem[-2:-1] else stem


@dataclass(frozen=True)
class TrueCaptions:
    """The true captions of images, numbered through."""

    of_image: Sequence[range]
    """Numbers of the captions of each of N images."""
    texts: Sequence[str]
    text_CD: np.ndarray
    """float32, unit rows."""

    def median_cosine(self) -> float:
        """Median over captions of the cosine with the most similar other caption of the image;
        infinite where no image has two captions."""
        nearest: list[float] = []
        for own in self.of_image:
            if len(own) > 1:
                cosine_AA = self.text_CD[own] @ self.text_CD[own].T
                np.fill_diagonal(cosine_AA, -np.inf)
                nearest += cosine_AA.max(axis=1).tolist()
        return float(np.median(nearest)) if nearest else np.inf


def exchanges(
    captions: TrueCaptions, neighbours: Neighbours, most: int
) -> Iterator[tuple[int, int]]:
    """Pairs of captions (numbers) that become each other's negatives.

    Args:
        captions: Of the same images as the neighbours.
        neighbours: Two images are similar if one is among the nearest of the other.
        most: Maximum number of exchanges of a caption.
    """
    room_C = np.full(len(captions.texts), most)
    may_exchange = _Guard(captions)
    negatives: list[set[str]] = [set() for _ in captions.texts]

    def is_free(c: int, d: int) -> bool:
        return bool(room_C[[c, d]].all()) and captions.texts[d] not in negatives[c]

    pairs = _image_pairs(neighbours)
    while pairs:
        exchanging = []
        for i, j in pairs:
            ours, theirs = captions.of_image[i], captions.of_image[j]
            if not (room_C[ours].any() and room_C[theirs].any()):
                continue
            found = ((ours[a], theirs[b]) for a, b in may_exchange(i, j))
            for c, d in found:
                if is_free(c, d) and is_free(d, c):
                    room_C[[c, d]] -= 1
                    negatives[c].add(captions.texts[d])
                    negatives[d].add(captions.texts[c])
                    exchanging.append((i, j))
                    yield c, d
                    break
        pairs = exchanging


class _Guard:
    """Which captions of two images are false of the other image, as far as texts tell."""

    def __init__(self, captions: TrueCaptions) -> None:
        self._captions = captions
        self._limit = captions.median_cosine()
        self._words = [content_words(text) for text in captions.texts]
        self._of_image = [
            frozenset[str]().union(*(self._words[c] for c in own)) for own in captions.of_image
        ]

    def __call__(self, i: int, j: int) -> list[tuple[int, int]]:
        """Places (a, b) of captions of images i and j, the most similar captions first."""
        ours, theirs = self._captions.of_image[i], self._captions.of_image[j]
        text_CD, words = self._captions.text_CD, self._words
        cosine_AB = text_CD[ours] @ text_CD[theirs].T
        new_A = [not words[c] <= self._of_image[j] for c in ours]
        new_B = [not words[c] <= self._of_image[i] for c in theirs]
        false_A = new_A & (cosine_AB.max(axis=1) < self._limit)
        false_B = new_B & (cosine_AB.max(axis=0) < self._limit)
        places = zip(*np.nonzero(false_A[:, None] & false_B), strict=True)
        return sorted(places, key=lambda place: -cosine_AB[place])


def _image_pairs(neighbours: Neighbours) -> list[tuple[int, int]]:
    """Pairs of similar images, lower number first, the most similar pairs first."""
    near_NK = neighbours.nearest_NK
    rows, places = np.nonzero(near_NK != NO_NEIGHBOR)
    others, cosines = near_NK[rows, places], neighbours.cosine_NK[rows, places]
    cosine_of = {
        (min(i, j), max(i, j)): cosine
        for i, j, cosine in zip(rows.tolist(), others.tolist(), cosines.tolist(), strict=True)
    }
    return sorted(cosine_of, key=lambda pair: (-cosine_of[pair], pair))


class _Settings(msgspec.Struct, frozen=True):
    """Everything the captions depend on."""

    source: str
    """Location of the shards."""
    mined: Mined
    per_caption: int
    median_cosine: float
    types: tuple[str, ...] = (TYPE,)


def write_similar_captions(
    out: Path, most: int, encoder: Encoder, reader: ShardReader, neighbours: Neighbours
) -> str:
    """Write the captions of shards, with those of similar images as further negatives.

    Args:
        out: captions.jsonl or captions.jsonl.gz; its statistics are written next to it.
        most: Maximum number of further negatives of a caption.
        encoder: Encoder of the model that found the neighbours.
        reader: Reader of the shards.
        neighbours: Of its samples.

    Returns:
        A summary, for the terminal.

    Raises:
        UserError: The shards cannot be read, or a file cannot be written.
    """
    captions = _true_captions(reader, encoder)
    negatives: list[list[str]] = [[] for _ in captions.texts]
    for c, d in exchanges(captions, neighbours, most):
        negatives[c].append(captions.texts[d])
        negatives[d].append(captions.texts[c])
    with_negatives = (
        _with_negatives(reader.sample(i), [negatives[c] for c in own])
        for i, own in enumerate(captions.of_image)
    )
    counts = Counts(irregular={WITHOUT: sum(not own for own in negatives)})
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as file:
        while some := list(islice(with_negatives, CHUNK_IMAGES)):
            covered = ((image, coverage_of(None, image)) for image in some)
            content, own = chunk_of(covered, Counter(), out.suffix == ".gz")
            file.write(content)
            counts.add(own)
    settings = _Settings(reader.location, neighbours.mined, most, captions.median_cosine())
    atomic_write(stats_path_of(out), stats_json(settings, settings.types, counts))
    return summary(out, settings.types, counts)


WITHOUT = "captions without a caption of a similar image"
"""Reason why something is left out."""


def _true_captions(reader: ShardReader, encoder: Encoder) -> TrueCaptions:
    """All true captions of shards, encoded."""
    texts: list[str] = []
    of_image = []
    for sample in range(len(reader)):
        own = [group.positive for group in reader.sample(sample).groups]
        of_image.append(range(len(texts), len(texts) + len(own)))
        texts += own
    row_of = {caption: row for row, caption in enumerate(dict.fromkeys(texts))}
    text_TD, _ = encoder.texts(list(row_of))
    text_CD = text_TD.cpu().numpy()[[row_of[caption] for caption in texts]]
    return TrueCaptions(of_image, texts, text_CD)


def _with_negatives(sample: TrainingSample, similar: Sequence[Sequence[str]]) -> ImageCaptions:
    """The captions of a sample, with those of similar images after its other negatives."""
    groups = []
    for group, own in zip(sample.groups, similar, strict=True):
        others = [negative for negative in group.negatives if negative.type != TYPE]
        added = [Negative(caption, TYPE, open_world=True) for caption in own]
        groups.append(replace(group, negatives=(*others, *added)))
    return ImageCaptions(sample.image_id, tuple(groups))
