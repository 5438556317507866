"""THE TABLES of benchmarks: one record each, with everything that depends on the name.

To add a released benchmark, write a reader in released/, a rule in released/rules.py if none fits,
and a record in RELEASED. To add a measure on held-out shards, write a class with the methods of
``HardNegatives`` in held_out.py, add a record to HELD_OUT and the class to MEASURES of evaluate.py.
This module imports no torch, so reports can read it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.evaluation.released import (
    csv_choices,
    one_image,
    several_images,
    zero_shot,
)
from hnc_ds.evaluation.released.rules import (
    Question,
    Rule,
    Scores,
    both_ways,
    caption_picks_image,
    captions_pick_images,
    each_picks_its_own,
    same_meaning,
    statements_pick_images,
    true_beats_false,
    true_comes_first,
)
from hnc_ds.evaluation.released.summary import Averages, Row, pairs_as_labels, single_captions

LEAST_PAIRS = 50
"""Fewest pairs of a predicate or attribute class that has a row of its own: with fewer, the 95 %
interval would be wider than 28 points."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What reports show of a benchmark."""

    title: str
    about: str
    """What counts as right, and how ties count."""
    chance: float | None = None
    """Score of guessing; None where it depends on the set or the metric."""
    version: int = 1
    """Raise it when the same model would now score differently."""


@dataclass(frozen=True, kw_only=True)
class HeldOutBenchmark(Benchmark):
    """A measure on held-out shards."""

    headlines: dict[str, str]
    """Title by metric of the scores that are shown first, over all items."""


HARD_NEGATIVES = "hnc-shards"
RETRIEVAL = "retrieval"

HELD_OUT = {
    HARD_NEGATIVES: HeldOutBenchmark(
        title="Hard negatives",
        about="Share of pairs in which the image is more similar to its true caption than to the "
        "hard negative made from it. A tie counts as wrong.",
        chance=0.5,
        headlines={"pair_accuracy": "hard negatives"},
    ),
    RETRIEVAL: HeldOutBenchmark(
        title="Image-text retrieval",
        about="Each image with its longest true caption among those of all images: share of "
        "queries with a right answer among the first 1, 5 or 10. Any caption written for the "
        "image is right; of equal scores the wrong answer comes first.",
        headlines={
            "image_to_text_R@1": "image to text, R@1",
            "text_to_image_R@1": "text to image, R@1",
        },
    ),
}


def chosen_benchmarks(names: Sequence[str]) -> tuple[str, ...]:
    """The named measures in the order of the table; all of them if none is named.

    Raises:
        UserError: A name is not in the table.
    """
    for name in names:
        if name not in HELD_OUT:
            raise UserError(
                f"benchmarks: there is no '{name}'{did_you_mean(name, HELD_OUT)}; "
                f"there are {', '.join(HELD_OUT)}"
            )
    return tuple(name for name in HELD_OUT if not names or name in names)


LEAST_ATTRIBUTE_PAIRS = 25
"""Fewest items of an attribute pair that ARO counts."""

BOTH_WAYS = ("image_to_text_R@1", "text_to_image_R@1")


@dataclass(frozen=True, kw_only=True)
class ReleasedBenchmark(Benchmark):
    """A benchmark with released annotations, scored by image-text similarities."""

    headline: str
    """Metric that is shown first, over all items."""
    relations: str = ""
    """Metric on the relations axis of a report; empty if the benchmark is not about relations."""
    recognition: tuple[str, ...] = ()
    """Metrics whose mean is the recognition axis of a report; empty if it is not one."""
    read: Callable[[Path, bool], Iterator[Question]]
    """Reads the path of --data; the flag allows missing files."""
    rule: Rule | None
    """Judges one question; None if all scores come from ``further_scores`` or a search."""
    files: str
    """Files in the path of --data."""
    sources: tuple[str, ...]
    """Image sources, keys of SOURCES in images.py."""
    origin: str
    licence: str
    """Licence of the annotations."""
    averages: Averages = field(default_factory=Averages)
    searches: bool = False
    """Whether queries search all images and captions of the benchmark (retrieval)."""
    further_scores: Callable[[Sequence[Question], Sequence[Scores], int], Iterator[Row]] | None = (
        None
    )
    """Scores over all questions, from questions, similarities and a seed."""
    has_images: bool = False
    """Whether the path of --data holds the images of its one source."""
    released: Mapping[str, int] = field(default_factory=dict)
    """Items of each group in the release, if known."""


@dataclass(frozen=True, kw_only=True)
class FreeFormBenchmark(Benchmark):
    """A benchmark with free-form answers of a LLaVA, scored by 'hnc-ds score'."""

    headline: str
    """Scorer that papers report; the other scorers are shown over all questions only."""
    splits: Mapping[int, str]
    """Name of each released split by its number of questions."""
    groups: str = "answer type"
    """Beginning of the names of the groups that 'hnc-ds score' prints."""
    by_group: tuple[str, ...] = ()
    """Scorers that it prints by group; empty for the headline."""
    pooled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Scorers that are the mean over the values of several others."""


ZERO_SHOT = "zero-shot"

SEARCHED = (
    "Recall: each image searches all captions and is right with any of its own; each caption "
    "searches all images. Of equal similarities the wrong one comes first."
)

RELEASED = {
    "hnc-test": ReleasedBenchmark(
        title="HNC human test",
        about="accuracy: share of pairs in which the image is more similar to the true caption; a "
        "tie is wrong. auroc: how often a true caption is more similar than a false one of any "
        "image. best_threshold_accuracy: single captions classified by the best threshold. "
        "ratio_R: the true caption is at least R times as similar as the false one; a similarity "
        "above 0 is so compared with one that is not, and of two below 0 the false one is R times "
        "as far from 0.",
        headline="accuracy",
        relations="accuracy",
        read=one_image.read_hnc_test,
        rule=true_beats_false,
        files=one_image.HNC_TEST_FILE,
        sources=("gqa",),
        origin="https://doi.org/10.18419/darus-4341",
        licence="MIT",
        chance=0.5,
        further_scores=pairs_as_labels,
        version=2,
    ),
    "sugarcrepe": ReleasedBenchmark(
        title="SugarCrepe",
        about="Share of items in which the image is more similar to the true caption. A tie is "
        "wrong.",
        headline="accuracy",
        relations="accuracy",
        read=one_image.read_sugarcrepe,
        rule=true_beats_false,
        files=", ".join(one_image.SUGARCREPE_FILES.values()),
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
        released=one_image.SUGARCREPE_RELEASED,
    ),
    "sugarcrepe++": ReleasedBenchmark(
        title="SugarCrepe++",
        about="itt: both true captions are more similar to the image than the false one, and "
        "itt_p1 and itt_p2: the first of them, and the second; tot: they are more similar to each "
        "other than either is to it. A tie is wrong.",
        headline="itt",
        read=one_image.read_sugarcrepe_pp,
        rule=same_meaning,
        files=", ".join(one_image.PLUS_FILES.values()),
        sources=("coco2017",),
        origin="https://github.com/Sri-Harsha/scpp",
        licence="CC BY 4.0 (README), MIT (LICENSE)",
        chance=1 / 3,
        released={
            n: c for n, c in one_image.SUGARCREPE_RELEASED.items() if n in one_image.PLUS_FILES
        },
    ),
    "aro-relation": ReleasedBenchmark(
        title="ARO VG-Relation",
        about="Share of items in which the crop is more similar to the true caption. A tie is "
        "wrong. 'official' is the mean over the relations of ARO's official list; 'all' is the "
        "mean over items.",
        headline="accuracy",
        relations="accuracy",
        read=one_image.read_relation,
        rule=true_beats_false,
        files=one_image.RELATION_FILE,
        sources=("vg",),
        origin="https://github.com/mertyg/vision-language-models-are-bows",
        licence="MIT",
        chance=0.5,
        averages=Averages({"official": lambda group, _: group not in one_image.ARO_LEFT_OUT}),
        version=2,
    ),
    "aro-attribution": ReleasedBenchmark(
        title="ARO VG-Attribution",
        about="Share of items in which the crop is more similar to the true caption. A tie is "
        "wrong. 'official' is the mean over attribute pairs with at least 25 items; 'all' is the "
        "mean over items.",
        headline="accuracy",
        relations="accuracy",
        read=one_image.read_attribution,
        rule=true_beats_false,
        files=one_image.ATTRIBUTION_FILE,
        sources=("vg",),
        origin="https://github.com/mertyg/vision-language-models-are-bows",
        licence="MIT",
        chance=0.5,
        averages=Averages({"official": lambda _, count: count >= LEAST_ATTRIBUTE_PAIRS}),
    ),
    "aro-order": ReleasedBenchmark(
        title="ARO Order",
        about="Share of items in which no shuffled caption is more similar to the image than the "
        "true one. A tie is right, as in ARO's own code.",
        headline="accuracy",
        read=one_image.read_order,
        rule=true_comes_first,
        files="order.json, a list of {image_path, caption_options} with the true one first",
        sources=("coco2014", "flickr30k"),
        origin="https://github.com/mertyg/vision-language-models-are-bows",
        licence="as the captions'",
        chance=0.2,
    ),
    "winoground": ReleasedBenchmark(
        title="Winoground",
        about="text: each image picks its caption; image: each caption picks its image; group: "
        "both; group_match: the right assignment of captions to images has the higher sum of "
        "similarities. A tie is wrong.",
        headline="text",
        relations="group",
        read=several_images.read_winoground,
        rule=both_ways,
        files="examples.jsonl",
        sources=("winoground",),
        origin="https://huggingface.co/datasets/facebook/winoground",
        licence="META IMAGES RESEARCH LICENSE",
        averages=Averages(of_tags=True),
    ),
    "eqben": ReleasedBenchmark(
        title="EqBen",
        about="As Winoground: text, image, group and group_match, per sub-set. A tie is wrong.",
        headline="group",
        read=several_images.read_eqben,
        rule=both_ways,
        files=" or ".join(several_images.EQBEN_FILES),
        sources=("eqben",),
        origin="https://github.com/Wangt-CN/EqBen",
        licence="Apache-2.0",
    ),
    "crepe-productivity": ReleasedBenchmark(
        title="CREPE productivity",
        about="Share of regions whose true caption is more similar than all of its hard negatives, "
        "R@1 of CREPE, by type and complexity. A tie is wrong.",
        headline="accuracy",
        read=csv_choices.read_productivity,
        rule=true_beats_false,
        files="the folder prod_hard_negatives, with atom, swap and negate",
        sources=("vg",),
        origin="https://github.com/RAIVNLab/CREPE",
        licence="none given",
        averages=Averages(of_tags=True),
    ),
    "crepe-systematicity": ReleasedBenchmark(
        title="CREPE systematicity",
        about="As CREPE productivity, by training data (CC12M, YFCC-15M, LAION-400M), whether "
        "compounds of the caption are in them, and type. Its authors' groups are for models "
        "trained on those data only.",
        headline="accuracy",
        read=csv_choices.read_systematicity,
        rule=true_beats_false,
        files="the folder syst_hard_negatives",
        sources=("vg",),
        origin="https://github.com/RAIVNLab/CREPE",
        licence="none given",
    ),
    "negbench": ReleasedBenchmark(
        title="NegBench multiple choice",
        about="Share of images whose most similar caption of four is the true one, by set and by "
        "template of that caption. A tie is right, as in its own code, where the true caption is "
        "the first.",
        headline="accuracy",
        read=csv_choices.read_negbench,
        rule=true_comes_first,
        files=", ".join(csv_choices.NEGBENCH_FILES.values()),
        sources=("coco2017", "voc2007"),
        origin="https://github.com/m1k2zoo/negbench",
        licence="MIT",
        chance=0.25,
        averages=Averages(of_tags=True),
    ),
    "svo": ReleasedBenchmark(
        title="SVO-Probes",
        about="Share of pairs in which the sentence is more similar to its own image than to one "
        "that differs in subject, verb or object. A tie is wrong.",
        headline="accuracy",
        read=csv_choices.read_svo,
        rule=caption_picks_image,
        files=csv_choices.SVO_FILE,
        sources=("svo",),
        origin="https://github.com/google-deepmind/svo_probes",
        licence="CC BY 4.0",
        chance=0.5,
    ),
    "valse": ReleasedBenchmark(
        title="VALSE",
        about="Pairwise accuracy: share of valid items in which the image is more similar to the "
        "caption than to the foil. A tie is wrong.",
        headline="accuracy",
        relations="accuracy",
        read=one_image.read_valse,
        rule=true_beats_false,
        files=", ".join(one_image.VALSE_FILES.values()),
        sources=("visual7w", "coco2017", "coco2014", "coco2014-train", "swig", "visdial"),
        origin="https://github.com/Heidelberg-NLP/VALSE",
        licence="MIT",
        chance=0.5,
        released=one_image.VALSE_VALID,
    ),
    "whatsup": ReleasedBenchmark(
        title="What'sUp",
        about="Share of items in which no other preposition is more similar to the image than the "
        "true one, by subset and preposition; pair and set: both opposite images, and all four "
        "images of two objects, are right. CONTROLLED, COCO and VG are means of two subsets. A "
        "tie is right, as in its own code.",
        headline="accuracy",
        relations="accuracy",
        read=one_image.read_whatsup,
        rule=true_comes_first,
        files=", ".join(
            (
                *one_image.WHATSUP_CONTROLLED.values(),
                *(f for f, _ in one_image.WHATSUP_PAIRS.values()),
            )
        ),
        sources=("whatsup", "coco2017", "vg"),
        origin="https://github.com/amitakamath/whatsup_vlms",
        licence="MIT",
        averages=Averages(
            {
                "CONTROLLED": lambda group, _: group in one_image.WHATSUP_CONTROLLED,
                "COCO": lambda group, _: group.startswith("coco"),
                "VG": lambda group, _: group.startswith("vg"),
            },
            of_tags=True,
            bundles=("pair", "set"),
        ),
        version=2,
    ),
    "vsr": ReleasedBenchmark(
        title="VSR",
        about="Single captions, true or false: auroc, and accuracy at the similarity that is best "
        "for the captions of dev.jsonl, also by relation and kind of relation.",
        headline="auroc",
        read=one_image.read_vsr,
        rule=None,
        files=", ".join(one_image.VSR_FILES.values()),
        sources=("coco2017",),
        origin="https://github.com/cambridgeltl/visual-spatial-reasoning",
        licence="Apache-2.0",
        chance=0.5,
        further_scores=single_captions,
    ),
    "bivlc": ReleasedBenchmark(
        title="BiVLC",
        about="I2T: each image picks its caption; T2I: each caption its image; group: both. The "
        "others are of one image or caption; 'tag: swap' and similar rows are the authors' means. "
        "A tie is wrong.",
        headline="I2T",
        relations="group",
        read=several_images.read_bivlc,
        rule=each_picks_its_own,
        files="the test split's *.parquet, with captions and images",
        sources=(several_images.BIVLC_SOURCE,),
        origin="https://huggingface.co/datasets/imirandam/BiVLC",
        licence="MIT",
        averages=Averages(of_tags=True),
        released=several_images.BIVLC_RELEASED,
        has_images=True,
    ),
    "cola": ReleasedBenchmark(
        title="Cola multi-object",
        about="Share of items in which each of two captions is more similar to its own image than "
        "to the other. A tie is wrong.",
        headline="accuracy",
        relations="accuracy",
        read=several_images.read_cola,
        rule=captions_pick_images,
        files=several_images.COLA_FILE,
        sources=("vg",),
        origin="https://github.com/arijitray1993/COLA",
        licence="MIT",
        chance=0.25,
        released={"multi-object": 210},
    ),
    "mmvp": ReleasedBenchmark(
        title="MMVP-VLM",
        about="Share of pairs in which each statement picks its image. A tie counts as the second "
        "image, as in its own code: wrong for the first statement, right for the second. "
        "group_match: the right assignment of statements to images has the higher sum of "
        "similarities.",
        headline="accuracy",
        read=several_images.read_mmvp,
        rule=statements_pick_images,
        files="Questions.csv",
        sources=("mmvp",),
        origin="https://huggingface.co/datasets/MMVP/MMVP_VLM",
        licence="MIT",
        chance=0.25,
    ),
    "coco-retrieval": ReleasedBenchmark(
        title="COCO retrieval, Karpathy's test split",
        about=SEARCHED,
        headline="image_to_text_R@1",
        recognition=BOTH_WAYS,
        read=several_images.read_coco_retrieval,
        rule=None,
        files="coco_karpathy_test.json, or Karpathy's dataset_coco.json",
        sources=("coco2014",),
        origin="https://cs.stanford.edu/people/karpathy/deepimagesent",
        licence="CC BY 4.0",
        searches=True,
        released={"all": 5000},
    ),
    "flickr30k-retrieval": ReleasedBenchmark(
        title="Flickr30k retrieval, Karpathy's test split",
        about=SEARCHED,
        headline="image_to_text_R@1",
        recognition=BOTH_WAYS,
        read=several_images.read_flickr_retrieval,
        rule=None,
        files="flickr30k_test.json, Karpathy's dataset_flickr30k.json, or lines of image,caption",
        sources=("flickr30k",),
        origin="https://cs.stanford.edu/people/karpathy/deepimagesent",
        licence="research only",
        searches=True,
        released={"all": 1000},
    ),
    ZERO_SHOT: ReleasedBenchmark(
        title="Zero-shot classification",
        about="Share of images whose class is the most similar one (acc1), or among five (acc5); "
        "mean over classes of their acc1. Of equal similarities the wrong class comes first. A "
        "folder of several sets has these for each, and their means over the sets that are there; "
        "the count of these is that of the sets.",
        headline="acc1",
        recognition=("acc1",),
        read=zero_shot.read_classes,
        rule=None,
        files=f"{zero_shot.NAMES_FILE}, {zero_shot.TEMPLATES_FILE} and a folder of images a class; "
        "a WebDataset folder of CLIP_benchmark; ImageNet's folders n01440764, ... or val; or a "
        f"folder with such folders, and with {', '.join(zero_shot.FOLDERS)}",
        sources=(zero_shot.CLASSES_SOURCE,),
        origin="https://github.com/LAION-AI/CLIP_benchmark (WebDataset folders, names, templates); "
        "torchvision.datasets",
        licence="of each set",
        has_images=True,
    ),
}


FREE_FORM = {
    "vqav2": FreeFormBenchmark(
        title="VQA v2.0",
        about="Agreement of the free-form answer with those of ten annotators, mean over "
        "questions; papers report vqa_official.",
        headline="vqa_official",
        splits={214_354: "val2014", 443_757: "train2014", 107_394: "test-dev", 447_793: "test"},
    ),
    "textvqa": FreeFormBenchmark(
        title="TextVQA",
        about="Agreement of the free-form answer with those of ten annotators, mean over "
        "questions; papers report m4c.",
        headline="m4c",
        splits={5_000: "val 0.5.1", 34_602: "train 0.5.1", 5_734: "test 0.5.1"},
    ),
    "gqa": FreeFormBenchmark(
        title="GQA",
        about="Share of balanced questions whose answer is the annotated word or phrase, in lower "
        "case and without a period at its end. validity and plausibility: the answer is among "
        "those that could, or plausibly do, answer the question; consistency: accuracy on the "
        "questions that a right answer entails.",
        headline="accuracy",
        splits={
            12_578: "testdev_balanced",
            172_174: "testdev_all",
            132_062: "val_balanced",
            2_011_853: "val_all",
        },
    ),
    "pope": FreeFormBenchmark(
        title="POPE",
        about="Whether an object is in the image, by how the others are chosen (random, popular, "
        "adversarial); an answer is no if its first sentence has no or not, else yes. f1 is of "
        "the answer yes; yes_ratio is the share of yes.",
        headline="accuracy",
        splits={9_000: "coco", 8_910: "coco, as LLaVA uses it", 3_000: "a category of coco"},
        groups="category",
        by_group=("accuracy", "precision", "recall", "f1", "yes_ratio"),
        pooled={"f1": ("precision", "recall")},
        chance=0.5,
    ),
    "vizwiz": FreeFormBenchmark(
        title="VizWiz-VQA",
        about="Agreement of the free-form answer with those of ten annotators, mean over "
        "questions; vqa_submitted is vqa_official of the normalized answer, as LLaVA submits it.",
        headline="vqa_submitted",
        splits={20_523: "train", 4_319: "val", 8_000: "test"},
    ),
    "mmvp-vqa": FreeFormBenchmark(
        title="MMVP",
        about="Share of pairs of images whose question is answered right for both; accuracy is of "
        "single questions. An answer is its first letter A or B; MMVP's own code asks GPT-4.",
        headline="pair_accuracy",
        splits={300: "all"},
        chance=0.25,
    ),
    "naturalbench": FreeFormBenchmark(
        title="NaturalBench",
        about="Share of groups of two questions and two images with four right answers; "
        "question_accuracy and image_accuracy: a question is right on both images, an image with "
        "both questions. An answer is its first word yes or no, or A or B.",
        headline="group_accuracy",
        splits={7_600: "all"},
        groups="question type",
        chance=1 / 16,
    ),
    "vsr-vqa": FreeFormBenchmark(
        title="VSR as questions",
        about="Share of captions that are judged right as true (yes) or false (no); an answer "
        "with neither word is wrong.",
        headline="accuracy",
        splits={2_195: "test, random split", 1_222: "test, zero-shot split"},
        groups="kind",
        chance=0.5,
    ),
}


def described(name: str) -> Benchmark:
    """The record of a benchmark of any kind; an unknown name is its own title."""
    known = HELD_OUT.get(name) or RELEASED.get(name) or FREE_FORM.get(name)
    return known or Benchmark(title=name, about="")
