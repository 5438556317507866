"""Settings of the rendered scenes, and of the demonstration on them."""

from dataclasses import dataclass, field
from pathlib import Path

from hnc_ds.config.checks import Settings, at_least, share
from hnc_ds.config.cores import cores
from hnc_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(Settings):
    """What the rendered scenes look like and how many there are (hnc_ds/scenes)."""

    out: Path
    """Folder for train_sceneGraphs.json, val_sceneGraphs.json and images/."""

    train: int = 4000
    """Training scenes."""

    val: int = 500
    """Held-out scenes."""

    seed: int = 0
    """Same seed, same bytes."""

    size: int = 224
    """Pixels on a side."""

    objects: tuple[int, int] = (2, 5)
    """Fewest and most objects in a picture."""

    fewest: float = 0.0
    """Share of pictures that have the fewest objects; the others have any number of them."""

    shapes: int = 8
    """Kinds of shape, taken from the front of the list."""

    colours: int = 8
    """Colours, taken from the front of the list."""

    patterned: float = 0.25
    """Share of objects that are striped or dotted."""

    namesakes: float = 0.3
    """Share of pictures in which a shape may occur more than once."""

    overlaps: float = 0.3
    """Share of pictures with an object inside, on or in front of another."""

    workers: int = field(default_factory=cores)
    """Processes. The bytes do not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, train=self.train, val=self.val, seed=self.seed)
        at_least(1, workers=self.workers)
        at_least(32, size=self.size)
        at_least(2, shapes=self.shapes, colours=self.colours)
        share(fewest=self.fewest, patterned=self.patterned)
        share(namesakes=self.namesakes, overlaps=self.overlaps)
        fewest, most = self.objects
        if not 1 <= fewest <= most <= 8:
            raise UserError(
                f"objects is {fewest} {most}; give a smaller and a larger number from 1 to 8"
            )


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Settings):
    """The whole job on rendered scenes: the same training with and without hard negatives."""

    out: Path = Path("runs/demo")
    """Folder for the runs and the report."""

    scenes: Path = Path("data/demo")
    """Folder for the scenes, captions and shards."""

    train: int = 8000
    """Training scenes."""

    val: int = 500
    """Held-out scenes."""

    steps: int = 1300
    """Of each of the two trainings."""

    alpha: float = 3.0
    """Weight of the hard negatives in the second training; the first has 0."""

    ranks: int = 2
    """Processes that train."""

    seed: int = 0
    """Of scenes, captions, start weights and order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, train=self.train, val=self.val, steps=self.steps, ranks=self.ranks)


@dataclass(frozen=True, kw_only=True)
class DemoLlavaConfig(Settings):
    """The experiment with LLaVA in little, on rendered scenes (hnc_ds/llava/miniature)."""

    out: Path = Path("runs/demo-llava")
    """Folder for the runs, the models, their answers and the report."""

    scenes: Path = Path("data/demo-llava")
    """Folder for scenes, captions, shards and questions."""

    train: int = 8000
    """Training scenes."""

    val: int = 500
    """Held-out scenes."""

    questions: int = 4
    """Most of VQA v2.0's kind about a picture."""

    steps: int = 500
    """Of plain CLIP, whose tower is the baseline."""

    more_steps: int = 1000
    """From there with hard negatives."""

    alpha: float = 3.0
    """Weight of the hard negatives."""

    lessons: int = 800
    """Steps of the little LLaVA's connector and language model."""

    width: int = 128
    """Of the language model."""

    layers: int = 3
    """Of the language model."""

    ranks: int = 2
    """Processes that train the towers."""

    seed: int = 0
    """Of everything."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, train=self.train, val=self.val, questions=self.questions, ranks=self.ranks)
        at_least(1, steps=self.steps, more_steps=self.more_steps, lessons=self.lessons)
        at_least(1, width=self.width, layers=self.layers)
