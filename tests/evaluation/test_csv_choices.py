"""CREPE, NegBench, SVO-Probes and EqBen are read as their own code reads them."""

import io
from pathlib import Path

import numpy as np
import pytest

from hnc_ds.errors import UserError
from hnc_ds.evaluation.inputs import find_images, read_questions
from hnc_ds.evaluation.released.csv_choices import SVO_FILE
from hnc_ds.evaluation.released.images import read_image
from hnc_ds.evaluation.released.rules import EACH_ITS_OWN, IDENTICAL, ImageRef
from hnc_ds.images import CorruptImage, read_rgb

PRODUCTIVITY = "image_id,caption,hard_negs,x,y,width,height\n"
SYSTEMATICITY = (
    "image_id,caption,valid_hard_negs_atom,valid_hard_negs_comp,valid_hard_negs_combined,"
    "x,y,width,height\n"
)


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_crepe_has_a_region_and_all_its_negatives_by_type_and_complexity(tmp_path: Path) -> None:
    row = """7,a dog,"['a cat', ""it's a, b""]",1,2,30,40\n"""
    put(tmp_path / "atom/prod_vg_hard_negs_atom_complexity_4.csv", PRODUCTIVITY + row)
    put(
        tmp_path / "swap/prod_vg_hard_negs_swap_complexity_12.csv",
        PRODUCTIVITY + row + "8,a cat,[],1,2,30,40\n",  # nothing to choose from
    )
    atom, swap = read_questions("crepe-productivity", tmp_path, allow_missing=True)
    assert atom.images == (ImageRef("vg", "7.jpg", (1, 2, 31, 42)),)
    assert atom.captions == ("a dog", "a cat", "it's a, b")
    assert atom.true_captions() == [0]
    assert (atom.group, atom.tags) == ("atom", ("atom, 4 atoms",))
    assert (swap.group, swap.tags) == ("swap", ("swap, 12 atoms",))


def test_crepe_systematicity_has_a_question_for_each_type_that_a_row_has(tmp_path: Path) -> None:
    row = """7,a dog,"['a cat']",[],"['a cat', 'a dog']",1,2,30,40\n"""
    put(tmp_path / "syst_vg_hard_negs_unseen_compounds_in_laion.csv", SYSTEMATICITY + row)
    atom, both = read_questions("crepe-systematicity", tmp_path, allow_missing=True)
    assert (atom.group, both.group) == ("laion unseen atom", "laion unseen combined")
    assert (atom.tags, both.tags) == ((), (IDENTICAL,))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("7,a,__import__('os'),1,2,3,4", "is not a list of texts"),
        ("7,a,[1],1,2,3,4", "is not a list of texts"),
        ('7,a,"[\'a",1,2,3,4', "is not a list of texts"),
        (f'7,a,"{"[" * 300}",1,2,3,4', "list of texts"),
        ("7,a,['b'],1,2,3,", "'' is not a whole number"),
        ("x,a,['b'],1,2,3,4", "'x' is not a whole number"),
    ],
)
def test_cells_of_another_kind_are_reported_in_a_line(
    tmp_path: Path, cells: str, message: str
) -> None:
    name = "prod_vg_hard_negs_atom_complexity_4.csv"
    put(tmp_path / "atom" / name, f"{PRODUCTIVITY}{cells}\n")
    with pytest.raises(UserError, match=rf"{name}: row .*{message}") as error:
        read_questions("crepe-productivity", tmp_path, allow_missing=True)
    assert "\n" not in str(error.value)


NEGBENCH = (
    "correct_answer,caption_0,caption_1,caption_2,caption_3,correct_answer_template,image_path\n"
)


def test_negbench_puts_the_true_caption_first(tmp_path: Path) -> None:
    put(
        tmp_path / "COCO_val_mcq_llama3.1_rephrased.csv",
        f"{NEGBENCH}0,a,b,c,d,hybrid,data/coco/images/val2017/000000000139.jpg\n",
    )
    put(
        tmp_path / "VOC2007_mcq_llama3.1_rephrased.csv",
        f"{NEGBENCH}2,a,b,c,d,negative,/x/000001.jpg\n",
    )
    coco, voc = read_questions("negbench", tmp_path, allow_missing=False)
    assert coco.images == (ImageRef("coco2017", "000000000139.jpg"),)
    assert voc.images == (ImageRef("voc2007", "000001.jpg"),)
    assert (coco.captions, voc.captions) == (tuple("abcd"), tuple("cabd"))
    assert (coco.group, coco.tags) == ("coco", ("coco hybrid",))
    put(
        tmp_path / "VOC2007_mcq_llama3.1_rephrased.csv",
        f"{NEGBENCH}4,a,b,c,d,negative,/x/000001.jpg\n",
    )
    with pytest.raises(UserError, match=r"VOC2007.*row 0: there is no caption 4"):
        read_questions("negbench", tmp_path, allow_missing=False)


SVO = (
    ",sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,"
    "subj_neg,verb_neg,obj_neg\n"
)


def test_svo_has_pairs_that_differ_in_one_part(tmp_path: Path) -> None:
    row = '{},A girl sits.,"girl,sit,grass","girl,run,grass",http://a,http://b,{},9,{}\n'
    rows = [
        row.format(0, 7, "False,True,False"),
        row.format(1, 8, "True,True,False"),
        row.format(2, 7, "False,False,True"),
    ]
    put(tmp_path / SVO_FILE, SVO + "".join(rows))
    verb, other = read_questions("svo", tmp_path, False)
    assert verb.images == (ImageRef("svo", "7.jpg"), ImageRef("svo", "9.jpg"))
    assert (verb.id, verb.group, verb.captions) == ("svo/0", "verb", ("A girl sits.",))
    assert (other.id, other.group) == ("svo/2", "object")
    put(tmp_path / SVO_FILE, SVO + row.format(0, 7, "False,1,False"))
    with pytest.raises(UserError, match=r"svo_probes\.csv: row 0: '1' is neither True nor False"):
        read_questions("svo", tmp_path, False)


def test_eqben_is_grouped_by_sub_set_and_its_frames_are_arrays_of_blue_green_red(
    tmp_path: Path,
) -> None:
    put(
        tmp_path / "all_select.json",
        '[{"image0": "eqbenyoucook2/0.npy", "image1": "eqbensd/1.jpg", "caption0": "a", '
        '"caption1": "b", "private_info": 1}]',
    )
    (question,) = read_questions("eqben", tmp_path, False)
    assert (question.group, question.match) == ("eqbenyoucook2", EACH_ITS_OWN)
    frame = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = tmp_path / "eqbenyoucook2/0.npy"
    file.parent.mkdir()
    np.save(file, frame)
    image = question.images[0]
    path = find_images(f"eqben={tmp_path}", {}).find(image)
    assert path is not None
    assert (np.asarray(read_rgb(read_image(path, image))) == frame[:, :, ::-1]).all()
    np.save(file, frame.astype(float))
    with pytest.raises(ValueError, match="not an image of bytes"):
        read_image(path, image)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 20, 3)}
    )
    file.write_bytes(header.getvalue())
    with pytest.raises((ValueError, CorruptImage)):
        read_image(path, image)
