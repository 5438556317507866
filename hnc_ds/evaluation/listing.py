"""What can be measured, what it needs, and what of it was found: 'hnc-ds benchmarks'."""

import textwrap

from hnc_ds.config import BenchmarksConfig
from hnc_ds.errors import counted
from hnc_ds.evaluation.benchmarks import BENCHMARKS
from hnc_ds.evaluation.image_files import SOURCES
from hnc_ds.evaluation.places import find_images, read_places, read_questions
from hnc_ds.evaluation.question_sets import QUESTION_SETS

WIDTH = 100


def list_benchmarks(config: BenchmarksConfig) -> None:
    """Print every benchmark, and of those that --data names what was found.

    Raises:
        UserError: As the readers of annotations.
    """
    places = read_places(config.data)
    files = find_images(config.images, places)
    for name, of_shards in BENCHMARKS.items():
        _tell(name, of_shards.title, {"about": of_shards.about, "needs": "--shards"})
    for name, known in QUESTION_SETS.items():
        facts = {
            "about": known.about,
            "needs": f"--data {name}=PLACE with {known.files}",
            "pictures": "; ".join(f"{one}: {SOURCES[one].holds}" for one in known.sources),
            "from": known.origin,
            "licence": known.licence,
        }
        if name in places:
            questions = read_questions(name, places[name], allow_missing=True)
            images = {image for question in questions for image in question.images}
            there = sum(files.find(image) is not None for image in images)
            released = sum(known.released.values())
            of = f" of {released:,} in the release" if released else ""
            facts["found"] = (
                f"{counted(len(questions), 'question')}{of}, {there:,} of {len(images):,} pictures"
            )
        _tell(name, known.title, facts)
    print("Sources of pictures, for --images SOURCE=FOLDER:FOLDER,...\n")
    for name, source in SOURCES.items():
        print(f"  {name:16}{source.origin}  (licence: {source.licence})")


def _tell(name: str, title: str, facts: dict[str, str]) -> None:
    print(f"{name}: {title}")
    for fact, text in facts.items():
        lines = textwrap.wrap(f"{fact:10}{text}", WIDTH - 2, subsequent_indent=" " * 10)
        print("".join(f"  {line}\n" for line in lines), end="")
    print()
