"""THE TABLE of benchmarks in released files: reader, rule, means, and what they need.

Add one: a reader in readers/, a rule in rules.py if none fits, a line here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hnc_ds.evaluation.benchmarks import BENCHMARKS, IN_WORDS, Benchmark
from hnc_ds.evaluation.labels import Row, pairs_as_labels, single_captions
from hnc_ds.evaluation.question import Question
from hnc_ds.evaluation.readers import (
    aro,
    bivlc,
    classes,
    galleries,
    hnc_test,
    spatial,
    sugarcrepe,
    two_images,
    valse,
)
from hnc_ds.evaluation.readers.aro_relations import LEFT_OUT
from hnc_ds.evaluation.rules import (
    Rule,
    Scores,
    both_ways,
    captions_pick_images,
    each_picks_its_own,
    same_meaning,
    statements_pick_images,
    true_beats_false,
    true_comes_first,
)
from hnc_ds.evaluation.summary import Averages

LEAST_ATTRIBUTE_PAIRS = 25
"""Items of a pair of attributes without which ARO does not count it."""


@dataclass(frozen=True)
class QuestionSet:
    """One benchmark."""

    title: str
    about: str
    """What is right, and how ties count."""
    read: Callable[[Path, bool], Iterator[Question]]
    """Of the place that --data names; whether files of it may be missing."""
    rule: Rule | None
    """None where every score is in ``beyond``."""
    files: str
    """What --data has to hold."""
    sources: tuple[str, ...]
    """Of pictures: what --images has to name."""
    origin: str
    licence: str
    """Of the annotations."""
    chance: float | None
    averages: Averages = field(default_factory=Averages)
    searches: bool = False
    """Whether pictures and captions of all questions are searched among, instead of within each."""
    beyond: Callable[[Sequence[Question], Sequence[Scores], int], Iterator[Row]] | None = None
    """Further scores, of the questions, their similarities and a seed."""
    has_pictures: bool = False
    """Whether the pictures, of its one source, lie where --data says."""
    released: Mapping[str, int] = field(default_factory=dict)
    """Items of each group in the release, where that is known."""
    version: int = 1
    """Raise it when the same model would now score differently."""


ZERO_SHOT = "zero-shot"

SEARCHED = (
    "Hit rates: each picture among all captions, right with any of its own; each caption among all "
    "pictures. Of equal similarities the wrong one comes first."
)

QUESTION_SETS = {
    "hnc-test": QuestionSet(
        title="HNC human test",
        about="accuracy: share of pairs in which the image is more similar to the true caption; a "
        "tie is wrong. auroc: how often a true caption is more similar than a false one of any "
        "image. best_threshold_accuracy: single captions called true from the best similarity "
        "on. ratio_R: the true caption is R times as similar or more; a similarity above 0 is so "
        "beside one that is not, and of two below 0 the false one lies R times as far below.",
        read=hnc_test.read_hnc_test,
        rule=true_beats_false,
        files=hnc_test.TEST_FILE,
        sources=("gqa",),
        origin="https://doi.org/10.18419/darus-4341",
        licence="MIT",
        chance=0.5,
        beyond=pairs_as_labels,
        version=2,
    ),
    "sugarcrepe": QuestionSet(
        title="SugarCrepe",
        about="Share of items in which the image is more similar to the true caption. A tie is "
        "wrong.",
        read=sugarcrepe.read_sugarcrepe,
        rule=true_beats_false,
        files=", ".join(sugarcrepe.FILES.values()),
        sources=("coco2017",),
        origin="https://github.com/RAIVNLab/sugar-crepe",
        licence="MIT",
        chance=0.5,
        averages=Averages(
            {
                "REPLACE": lambda group, _: group.startswith("replace"),
                "SWAP": lambda group, _: group.startswith("swap"),
                "ADD": lambda group, _: group.startswith("add"),
            }
        ),
        released=sugarcrepe.RELEASED,
    ),
    "sugarcrepe++": QuestionSet(
        title="SugarCrepe++",
        about="itt: both true captions are more similar to the image than the false one, and "
        "itt_p1 and itt_p2: the first of them, and the second; tot: they are more similar to each "
        "other than either is to it. A tie is wrong.",
        read=sugarcrepe.read_sugarcrepe_pp,
        rule=same_meaning,
        files=", ".join(sugarcrepe.PLUS_FILES.values()),
        sources=("coco2017",),
        origin="https://github.com/Sri-Harsha/scpp",
        licence="CC BY 4.0 (README), MIT (LICENSE)",
        chance=1 / 3,
        released={n: c for n, c in sugarcrepe.RELEASED.items() if n in sugarcrepe.PLUS_FILES},
    ),
    "aro-relation": QuestionSet(
        title="ARO VG-Relation",
        about="Share of items in which the cut-out is more similar to the true caption. A tie is "
        "wrong. 'official' is the mean over relations without those that ARO's notebook leaves "
        "out; 'all' counts items alike.",
        read=aro.read_relation,
        rule=true_beats_false,
        files=aro.RELATION_FILE,
        sources=("vg",),
        origin="https://github.com/mertyg/vision-language-models-are-bows",
        licence="MIT",
        chance=0.5,
        averages=Averages({"official": lambda group, _: group not in LEFT_OUT}),
        version=2,
    ),
    "aro-attribution": QuestionSet(
        title="ARO VG-Attribution",
        about="Share of items in which the cut-out is more similar to the true caption. A tie is "
        "wrong. 'official' is the mean over pairs of attributes with 25 items or more; 'all' "
        "counts items alike.",
        read=aro.read_attribution,
        rule=true_beats_false,
        files=aro.ATTRIBUTION_FILE,
        sources=("vg",),
        origin="https://github.com/mertyg/vision-language-models-are-bows",
        licence="MIT",
        chance=0.5,
        averages=Averages({"official": lambda _, count: count >= LEAST_ATTRIBUTE_PAIRS}),
    ),
    "aro-order": QuestionSet(
        title="ARO Order",
        about="Share of items in which no shuffled caption is more similar to the image than the "
        "true one. A tie is right, as in ARO's own code.",
        read=aro.read_order,
        rule=true_comes_first,
        files="order.json, a list of {image_path, caption_options} with the true one first",
        sources=("coco2014", "flickr30k"),
        origin="https://github.com/mertyg/vision-language-models-are-bows",
        licence="as the captions'",
        chance=0.2,
    ),
    "winoground": QuestionSet(
        title="Winoground",
        about="text: each image picks its caption; image: each caption picks its image; group: "
        "both. A tie is wrong.",
        read=two_images.read_winoground,
        rule=both_ways,
        files="examples.jsonl",
        sources=("winoground",),
        origin="https://huggingface.co/datasets/facebook/winoground",
        licence="META IMAGES RESEARCH LICENSE",
        chance=None,
        averages=Averages(of_tags=True),
    ),
    "valse": QuestionSet(
        title="VALSE",
        about="Pairwise accuracy: share of valid items in which the image is more similar to the "
        "caption than to the foil. A tie is wrong.",
        read=valse.read_valse,
        rule=true_beats_false,
        files=", ".join(valse.FILES.values()),
        sources=("visual7w", "coco2017", "coco2014", "coco2014-train", "swig", "visdial"),
        origin="https://github.com/Heidelberg-NLP/VALSE",
        licence="MIT",
        chance=0.5,
        released=valse.VALID,
    ),
    "whatsup": QuestionSet(
        title="What'sUp",
        about="Share of items in which no other preposition is more similar to the image than the "
        "true one, by sub-set and by its prepositions; pair and set: of opposite pictures, and of "
        "all four of two things, all right. CONTROLLED, COCO and VG are means of two sub-sets. A "
        "tie is right, as in its own code.",
        read=spatial.read_whatsup,
        rule=true_comes_first,
        files=", ".join((*spatial.CONTROLLED.values(), *(f for f, _ in spatial.PAIRS.values()))),
        sources=("whatsup", "coco2017", "vg"),
        origin="https://github.com/amitakamath/whatsup_vlms",
        licence="MIT",
        chance=None,
        averages=Averages(
            {
                "CONTROLLED": lambda group, _: group in spatial.CONTROLLED,
                "COCO": lambda group, _: group.startswith("coco"),
                "VG": lambda group, _: group.startswith("vg"),
            },
            of_tags=True,
            bundles=("pair", "set"),
        ),
        version=2,
    ),
    "vsr": QuestionSet(
        title="VSR",
        about="Single captions, true or false: auroc, and accuracy at the similarity that is best "
        "for the captions of dev.jsonl, also by relation and by the kind of relation.",
        read=spatial.read_vsr,
        rule=None,
        files=", ".join(spatial.VSR_FILES.values()),
        sources=("coco2017",),
        origin="https://github.com/cambridgeltl/visual-spatial-reasoning",
        licence="Apache-2.0",
        chance=0.5,
        beyond=single_captions,
    ),
    "bivlc": QuestionSet(
        title="BiVLC",
        about="I2T: each image picks its caption; T2I: each caption its image; group: both. The "
        "others are of one image or caption; 'tag: swap' and its like are the means that the "
        "authors give. A tie is wrong.",
        read=bivlc.read_bivlc,
        rule=each_picks_its_own,
        files="the test split's *.parquet, with captions and pictures",
        sources=(bivlc.SOURCE,),
        origin="https://huggingface.co/datasets/imirandam/BiVLC",
        licence="MIT",
        chance=None,
        averages=Averages(of_tags=True),
        released=bivlc.RELEASED,
        has_pictures=True,
    ),
    "cola": QuestionSet(
        title="Cola, several objects",
        about="Share of items in which each of two captions is more similar to its own image than "
        "to the other. A tie is wrong.",
        read=two_images.read_cola,
        rule=captions_pick_images,
        files=two_images.COLA_FILE,
        sources=("vg",),
        origin="https://github.com/arijitray1993/COLA",
        licence="MIT",
        chance=0.25,
        released={"multi-object": 210},
    ),
    "mmvp": QuestionSet(
        title="MMVP-VLM",
        about="Share of pairs in which each statement picks its image. A tie counts as the second "
        "image, as in its own code: wrong for the first statement, right for the second.",
        read=two_images.read_mmvp,
        rule=statements_pick_images,
        files="Questions.csv",
        sources=("mmvp",),
        origin="https://huggingface.co/datasets/MMVP/MMVP_VLM",
        licence="MIT",
        chance=0.25,
    ),
    "coco-retrieval": QuestionSet(
        title="COCO retrieval, Karpathy's test split",
        about=SEARCHED,
        read=galleries.read_coco_retrieval,
        rule=None,
        files="coco_karpathy_test.json, or Karpathy's dataset_coco.json",
        sources=("coco2014",),
        origin="https://cs.stanford.edu/people/karpathy/deepimagesent",
        licence="CC BY 4.0",
        chance=None,
        searches=True,
        released={"all": 5000},
    ),
    "flickr30k-retrieval": QuestionSet(
        title="Flickr30k retrieval, Karpathy's test split",
        about=SEARCHED,
        read=galleries.read_flickr_retrieval,
        rule=None,
        files="flickr30k_test.json, Karpathy's dataset_flickr30k.json, or lines of image,caption",
        sources=("flickr30k",),
        origin="https://cs.stanford.edu/people/karpathy/deepimagesent",
        licence="research only",
        chance=None,
        searches=True,
        released={"all": 1000},
    ),
    ZERO_SHOT: QuestionSet(
        title="Zero-shot classification",
        about="Share of pictures whose class is the most similar one (acc1), or among five (acc5); "
        "mean over classes of their acc1. Of equal similarities the wrong class comes first.",
        read=classes.read_classes,
        rule=None,
        files=f"{classes.NAMES_FILE}, {classes.TEMPLATES_FILE} and a folder of pictures a class",
        sources=(classes.SOURCE,),
        origin="https://github.com/LAION-AI/CLIP_benchmark (names and templates of many sets)",
        licence="of each set",
        chance=None,
        has_pictures=True,
    ),
}


def described(name: str) -> Benchmark | QuestionSet | None:
    """What is known of a benchmark, of whatever kind."""
    return BENCHMARKS.get(name) or QUESTION_SETS.get(name) or IN_WORDS.get(name)
