"""`pack --check`: whole input is reported as whole, and everything missing is named at once."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from hnc_ds.errors import UserError
from hnc_ds.shards import inputs
from hnc_ds.shards.inputs import check_pack
from hnc_ds.shards.pack import pack


class Disk(NamedTuple):
    free: int


@pytest.fixture
def whole(packing: Any) -> Any:
    packing.write(["a", "b", "c", "d", "e", "f"])
    return packing


def refusal(config: Any) -> str:
    with pytest.raises(UserError) as raised:
        check_pack(config)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_whole_input_is_complete_and_nothing_is_written(whole: Any) -> None:
    before = files(whole.folder)
    message = check_pack(whole.config())
    assert f"all 6 images of {whole.captions} are in {whole.images}, 6 of them decoded" in message
    assert message.endswith("out: no shards yet")
    assert files(whole.folder) == before
    assert not (whole.folder / "out").exists()


def test_the_flag_of_pack_checks_and_packs_nothing(
    whole: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(whole.config(check=True))
    assert capsys.readouterr().out.startswith("pack: complete: all 6 images")
    assert not (whole.folder / "out").exists()


def test_missing_images_are_counted_and_the_first_named(whole: Any) -> None:
    for name in ("b", "e"):
        (whole.images / f"{name}.jpg").unlink()
    message = refusal(whole.config())
    assert f"{whole.images}: 2 of 6 images missing, e.g. b.jpg, e.jpg; check --images" in message


def test_images_that_pack_would_find_are_found(whole: Any) -> None:
    """ID.jpeg, and an id that has its suffix already."""
    (whole.images / "a.jpg").rename(whole.images / "a.jpeg")
    whole.captions.write_text(whole.captions.read_text().replace('"e"', '"e.jpg"'))
    assert "all 6 images" in check_pack(whole.config())
    pack(whole.config())
    assert json.loads((whole.folder / "out" / "index.json").read_text())["samples"] == 6


def test_images_without_captions_are_not_wanted(whole: Any) -> None:
    with whole.captions.open("a") as file:
        file.write('{"image_id": "none", "groups": []}\n')
    assert "all 6 images" in check_pack(whole.config())


def test_images_unpacked_too_deep_are_found_and_those_that_are_no_jpeg_counted(whole: Any) -> None:
    deep = whole.folder / "deep"
    deep.mkdir()
    shutil.move(whole.images, deep / "images")
    deep.rename(whole.images)
    png = whole.images / "images" / "b.PNG"
    Image.open(png.with_suffix(".jpg")).save(png)
    png.with_suffix(".jpg").unlink()
    message = check_pack(whole.config())
    assert "6 of them decoded, 1 of which are no JPEG and will be encoded as one" in message


def test_empty_cut_off_and_other_files_are_found(whole: Any) -> None:
    (whole.images / "a.jpg").write_bytes(b"")
    data = (whole.images / "c.jpg").read_bytes()
    (whole.images / "c.jpg").write_bytes(data[: len(data) // 2])
    (whole.images / "d.jpg").write_text("<html>not found</html>")
    message = refusal(whole.config())
    assert "1 empty files, e.g. a.jpg" in message
    assert "2 of 6 checked images did not decode, e.g. c.jpg (" in message
    assert "), d.jpg (no JPEG, PNG, WEBP, TIFF, BMP or GIF, or damaged at its start)" in message


def test_the_sample_is_spread_over_all_images(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(inputs, "DECODED", 3)
    monkeypatch.setattr(inputs, "_decoded", lambda path: looked_at.append(path.name) or True)
    assert "3 of them decoded" in check_pack(whole.config())
    assert looked_at == ["a.jpg", "c.jpg", "e.jpg"]


def test_too_little_room_is_reported_with_both_sizes(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda folder: Disk(free=1000))
    message = refusal(whole.config())
    assert "MB needed, 0.0 MB free; make room or name another --out" in message


def test_the_estimate_of_the_room_is_enough_but_not_far_off(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = whole.config(samples_per_shard=6)
    pack(config)
    tar = (whole.folder / "out" / "shard-000000.tar").stat().st_size
    shutil.rmtree(whole.folder / "out")
    for free, enough in ((tar // 2, False), (2 * tar, True)):
        monkeypatch.setattr(inputs.shutil, "disk_usage", lambda folder, free=free: Disk(free))
        if enough:
            assert "complete" in check_pack(config)
        else:
            assert "needed" in refusal(config)


def test_shards_that_are_there_count_as_room(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(whole.config())
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda folder: Disk(free=0))
    assert check_pack(whole.config()).endswith("packed already, 6 images")


def test_an_unfinished_folder_is_continued(whole: Any) -> None:
    pack(whole.config())
    out = whole.folder / "out"
    (out / "index.json").rename(out / "source.json")
    (out / "shard-000001.tar").unlink()
    assert check_pack(whole.config()).endswith("shards already done: 1")
    assert "something else, which will be replaced: 1" in check_pack(
        whole.config(samples_per_shard=3)
    )


def test_a_folder_of_other_shards_is_refused_as_pack_refuses_it(whole: Any) -> None:
    pack(whole.config())
    other = whole.config(samples_per_shard=3)
    message = refusal(other)
    assert "holds shards of other captions, images or settings" in message
    with pytest.raises(UserError, match="holds shards of other captions, images or settings"):
        pack(other)
    assert "will be replaced: 2" in check_pack(whole.config(samples_per_shard=3, overwrite=True))


def test_a_finished_folder_that_lost_a_shard_is_reported(whole: Any) -> None:
    pack(whole.config())
    (whole.folder / "out" / "shard-000001.tar").unlink()
    assert "packed, but" in check_pack(whole.config())


def test_all_problems_are_reported_at_once(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole.images / "a.jpg").unlink()
    (whole.images / "b.jpg").write_bytes(b"")
    (whole.folder / "out").write_text("a file")
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda folder: Disk(free=0))
    message = refusal(whole.config())
    for part in ("1 of 6 images missing", "1 empty files", "0.0 MB free", "is a file; --out"):
        assert part in message


def test_broken_captions_are_refused(whole: Any) -> None:
    text = whole.captions.read_text()
    whole.captions.write_text(text + text.splitlines()[2] + "\n")
    assert "image c occurs twice" in refusal(whole.config())
    whole.captions.write_text(text[:-20])
    assert "line 6: not an image's captions" in refusal(whole.config())
    whole.captions.write_bytes(gzip.compress(text.encode())[:-9])
    assert "truncated or broken gzip" in refusal(whole.config())
    whole.captions.write_text('{"image_id": "a", "groups": []}\n')
    assert "holds no captions" in refusal(whole.config())
    whole.captions.unlink()
    assert "no such file" in refusal(whole.config())


def test_a_folder_of_images_that_is_not_there_is_refused(whole: Any) -> None:
    whole.images.rename(whole.folder / "elsewhere")
    assert "no such folder; --images" in refusal(whole.config())
