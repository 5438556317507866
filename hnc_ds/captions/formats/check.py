"""Is a file of scene graphs complete? ``hnc-ds generate --check FILE`` says so in seconds.

Reads and decodes every graph just as generating captions does, so a file that passes is one that
generate.py can read to its end.
"""

from pathlib import Path

from tqdm import tqdm

from hnc_ds.captions.formats.gzipped import is_gzipped
from hnc_ds.captions.formats.scene_graphs import ReadCounts, read_scene_graphs
from hnc_ds.errors import UserError, counted
from hnc_ds.reading import kind_of

GQA_IMAGES = {"train_sceneGraphs.json": 74_942, "val_sceneGraphs.json": 10_696}
"""Graphs in GQA's own files, by their names.

Source: counts of GQA 1.1 reported by its readers, github.com/XiaoxinHe/G-Retriever/issues/5.
"""

AGAIN = "unpack or download it again (docs/data.md says from where)"


def check_scene_graphs(path: Path) -> str:
    """Read every graph of a file and compare their number with GQA's.

    Args:
        path: A .json file, or a .json.gz. A number is expected only of a file with the name of one
            of GQA's and with ids like theirs, which are numbers.

    Returns:
        What the file holds, in one line.

    Raises:
        UserError: Missing, cut off, broken or empty file, not GQA's layout, or images missing.
    """
    _check_start(path)
    read = ReadCounts()
    objects = relations = 0
    numbered = True
    for graph in tqdm(read_scene_graphs(path, read), desc="check", unit=" images", disable=None):
        objects += len(graph.objects)
        relations += sum(len(found.relations) for found in graph.objects.values())
        numbered = numbered and graph.image_id.isdecimal()
    expected = GQA_IMAGES.get(path.name.removesuffix(".gz")) if numbered else None
    _check_number(path, read.images, expected)
    met = ", ".join(f"{number:,} {reason}" for reason, number in sorted(read.irregular.items()))
    return (
        f"{path}: complete: {counted(read.images, 'image')}{', as GQA has' if expected else ''}, "
        f"{counted(objects, 'object')}, {counted(relations, 'relation')}"
        + (f"; met {met}" if met else "")
    )


def _check_start(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give GQA's train_sceneGraphs.json or one of that layout"
        )
    if not is_gzipped(path) and (kind := kind_of(path)):
        raise UserError(f"{path}: is {kind}")


def _check_number(path: Path, images: int, expected: int | None) -> None:
    if not images:
        raise UserError(f"{path}: holds no images; {AGAIN}")
    if expected and images != expected:
        raise UserError(
            f"{path}: {images:,} images, but GQA's file of this name has {expected:,}; {AGAIN}, "
            "or give a part of it a name of its own"
        )
