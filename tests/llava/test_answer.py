"""Answers are those of single questions, for any batch size and any number of processes."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from hnc_ds.config import AnswerConfig
from hnc_ds.errors import UserError
from hnc_ds.llava import answer as module
from hnc_ds.llava.answer import answer
from hnc_ds.llava.batches import Packed, batches
from hnc_ds.llava.generate import Generator, PendingBatch
from hnc_ds.llava.model import ImageView
from hnc_ds.llava.predictions import AnswerLog, Job, write_for_server
from hnc_ds.llava.questions import read_vqa_questions, short_question
from hnc_ds.llava.scorers import normalise_m4c
from hnc_ds.model.llava_prompt import prompt
from tests.llava.tiny_llava import save_llava

LONGEST = 12


@pytest.fixture
def settings(
    llava_folder: Path, images: Path, questions: Path, tmp_path: Path
) -> Callable[..., AnswerConfig]:
    defaults: dict[str, Any] = {
        "model": llava_folder,
        "dataset": "vqav2",
        "questions": questions,
        "images": images,
        "out": tmp_path / "answers",
        "max_new_tokens": LONGEST,
    }
    return lambda **other: AnswerConfig(**(defaults | other))


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def alone(llava_folder: Path, images: Path, questions: Path) -> list[str]:
    """What transformers' own generation answers to each question by itself."""
    model = transformers.LlavaForConditionalGeneration.from_pretrained(llava_folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(llava_folder)
    view = LlavaImageProcessorPil.from_pretrained(llava_folder, do_pad=True)
    found = []
    for row in json.loads(questions.read_text())["questions"]:
        image = Image.open(images / f"COCO_val2014_{row['image_id']:012d}.jpg")
        message = prompt(short_question(row["question"]))
        ids = words(message.replace("<image>", "<image>" * 16), return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=view(image, return_tensors="pt")["pixel_values"],
                max_new_tokens=LONGEST,
                do_sample=False,
            )
        found.append(words.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return found


@pytest.mark.parametrize("batch", [1, 2, 4, 16, 32, 128])
def test_answers_are_those_of_transformers_to_each_question_alone(
    settings: Callable[..., AnswerConfig], alone: list[str], tmp_path: Path, batch: int
) -> None:
    answer(settings(batch=batch))
    found = [line["text"] for line in answers(tmp_path / "answers")]
    assert found == alone
    assert len(set(found)) > 10  # else equal answers would prove little


def test_the_servers_list_has_every_question_as_it_is_or_as_llava_converts_it(
    settings: Callable[..., AnswerConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for normalise in (False, True):
        answer(settings(normalise=normalise))
        rows = json.loads((tmp_path / "answers" / "answers.vqa.json").read_text())
        texts = [line["text"] for line in answers(tmp_path / "answers")]
        assert [row["question_id"] for row in rows] == list(range(1000, 1033))
        expected = [normalise_m4c(text) for text in texts] if normalise else texts
        assert [row["answer"] for row in rows] == expected
    assert "33 answers; not for VQA's server, which only takes test2015" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["official", "llava"])
def test_the_servers_list_of_test_dev_is_completed_from_the_file_of_test2015(
    settings: Callable[..., AnswerConfig],
    images: Path,
    tmp_path: Path,
    layout: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "test2015"
    folder.mkdir()
    shutil.copy(images / "COCO_val2014_000000000001.jpg", folder / _test_image(1))
    dev, whole = (_test_split(tmp_path, name, layout) for name in ("test-dev2015", "test2015"))
    asked = {"questions": dev, "images": folder, "max_new_tokens": 2}
    answer(settings(**asked))
    rows = json.loads((tmp_path / "answers" / "answers.vqa.json").read_text())
    assert [row["question_id"] for row in rows] == [10, 11]
    message = capsys.readouterr().out
    assert (
        "2 answers; not for VQA's server, which takes all 447,793 questions of test2015" in message
    )
    answer(settings(**asked, complete_with=whole))
    completed = json.loads((tmp_path / "answers" / "answers.vqa.json").read_text())
    assert completed[:2] == rows
    empty = [{"question_id": n, "answer": ""} for n in (20, 21, 30, 31)]
    assert completed[2:] == empty
    assert "6 answers, 4 of them empty (not asked)" in capsys.readouterr().out
    turned = asked | {"questions": whole, "complete_with": dev, "allow_missing": True}
    for check in (True, False):
        with pytest.raises(UserError, match=r"lacks 4 of the 6 questions that are asked"):
            answer(settings(**turned, check=check))


def _test_image(number: int) -> str:
    return f"COCO_test2015_{number:012d}.jpg"


def _test_split(folder: Path, name: str, layout: str) -> Path:
    """Two questions on each of three images; in test-dev on the first alone."""
    path, ids = folder / f"{name}.json", (1,) if "dev" in name else (1, 2, 3)
    rows: list[dict[str, Any]] = [
        {"question_id": 10 * n + k, "image_id": n, "question": f"What is thing {k}?"}
        for n in ids
        for k in (0, 1)
    ]
    if layout == "official":
        path.write_text(json.dumps({"data_subtype": name, "questions": rows}))
    else:
        lines = (
            {
                "question_id": row["question_id"],
                "image": _test_image(row["image_id"]),
                "text": short_question(row["question"]),
            }
            for row in rows
        )
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_servers_list_is_for_the_server_where_it_is_whole(tmp_path: Path) -> None:
    pairs = [(number, "yes") for number in range(107_394)]
    beside = range(107_394, 447_793)
    message = write_for_server(tmp_path, pairs, beside, normalise=False, of_test=True)
    assert message.endswith("447,793 answers, 340,399 of them empty (not asked); for VQA's server")


def test_strict_is_one_at_a_time_in_float32(
    settings: Callable[..., AnswerConfig],
    alone: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    original = Generator.begin

    def counted(self: Generator, packed: Packed) -> Any:
        sizes.append(packed.used_IQ.numel())
        assert self.llava.model.dtype == torch.float32
        return original(self, packed)

    monkeypatch.setattr(Generator, "begin", counted)
    answer(settings(strict=True, dtype="bfloat16"))
    assert sizes == [1] * 33
    assert [line["text"] for line in answers(tmp_path / "answers")] == alone


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_answers_the_same(
    settings: Callable[..., AnswerConfig],
    alone: list[str],
    tmp_path: Path,
    processes: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(processes):
        assert not (tmp_path / "answers" / "answers.jsonl").exists()
        answer(settings(batch=4, part=f"{number}/{processes}"))
    assert [line["text"] for line in answers(tmp_path / "answers")] == alone
    assert "process 0 of" in capsys.readouterr().out


def _answer_slowly(config: AnswerConfig) -> None:
    original = Generator.begin

    def slow(self: Generator, packed: Packed) -> Any:
        time.sleep(0.3)
        return original(self, packed)

    Generator.begin = slow  # type: ignore[method-assign]
    torch.set_num_threads(1)
    answer(config)


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_it_wrote(
    settings: Callable[..., AnswerConfig], alone: list[str], tmp_path: Path
) -> None:
    part = tmp_path / "answers" / "parts" / "00000.jsonl"
    process = multiprocessing.get_context("fork").Process(
        target=_answer_slowly, args=(settings(batch=4),)
    )
    process.start()
    deadline = time.monotonic() + 120
    while not part.exists() or part.read_bytes().count(b"\n") < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with part.open("ab") as file:
        file.write(b'{"item":"answer","question_id":1')  # as a line that was being written
    before = part.read_bytes()
    kept = before[: before.rfind(b"\n") + 1]
    assert 6 <= kept.count(b"\n") < 34
    answer(settings(batch=2))
    assert part.read_bytes().startswith(kept)
    assert [line["text"] for line in answers(tmp_path / "answers")] == alone


def test_what_is_answered_is_not_asked_again(
    settings: Callable[..., AnswerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(settings())
    monkeypatch.setattr(module, "load_llava", None)
    answer(settings(batch=3))


@pytest.mark.parametrize(("part", "name"), [(Generator, "begin"), (PendingBatch, "finish")])
def test_where_memory_does_not_suffice_a_batch_is_halved(
    settings: Callable[..., AnswerConfig],
    alone: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: Any,
    name: str,
) -> None:
    original, sizes, refused = getattr(part, name), [], []

    def small(self: Any, *arguments: Any) -> Any:
        slots = (arguments[0].used_IQ if arguments else self._steps.ids_IQ).numel()
        if slots > 3:
            refused.append(slots)
            raise torch.OutOfMemoryError
        sizes.append(slots)
        return original(self, *arguments)

    monkeypatch.setattr(part, name, small)
    answer(settings(batch=8))
    assert max(sizes) in (2, 3)
    assert len(refused) <= 2  # then it is known
    assert [line["text"] for line in answers(tmp_path / "answers")] == alone


def test_each_image_of_a_batch_is_encoded_once(
    settings: Callable[..., AnswerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the images have different numbers of questions and stand in several batches."""
    seen: list[int] = []
    original = Generator.begin

    def counted(self: Generator, packed: Packed) -> Any:
        seen.append(len(packed.pixels_I3RR))
        return original(self, packed)

    monkeypatch.setattr(Generator, "begin", counted)
    answer(settings(batch=16))
    assert sum(seen) == 6 < len(seen) * 6


def test_images_are_seen_as_llavas_own_code_sees_them(llava_folder: Path, images: Path) -> None:
    """Padded with the mean colour, the image in the middle, resized with Pillow's bicubic."""
    view = ImageView(llava_folder)
    for path in sorted(images.iterdir()):
        image = Image.open(path).convert("RGB")
        side = max(image.size)
        square = Image.new("RGB", (side, side), (122, 116, 104))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        small = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
        mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
        std = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
        expected = ((small - mean) / std).transpose(2, 0, 1)
        assert np.allclose(view(path).numpy(), expected, atol=1e-5)


def test_images_that_are_missing_or_broken_are_reported_or_answered_with_nothing(
    settings: Callable[..., AnswerConfig], images: Path, tmp_path: Path, capsys: Any
) -> None:
    some = tmp_path / "some"
    shutil.copytree(images, some)
    (some / "COCO_val2014_000000000001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 6 images are missing, the first is COCO_"):
        answer(settings(images=some))
    (some / "COCO_val2014_000000000001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"000000000001\.jpg: .*--allow-missing"):
        answer(settings(images=some))
    answer(settings(images=some, allow_missing=True))
    lines = answers(tmp_path / "answers")
    empty = [line for line in lines if line["image"] == "COCO_val2014_000000000001.jpg"]
    assert {(line["text"], line["margin"]) for line in empty} == {("", None)}
    assert all(line["margin"] is not None for line in lines if line not in empty)
    assert f"{len(empty)} of" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 2])
def test_answers_before_an_image_that_cannot_be_read_are_kept(
    settings: Callable[..., AnswerConfig],
    images: Path,
    questions: Path,
    tmp_path: Path,
    workers: int,
) -> None:
    """All of them: those of the batch before are written while the device does the next one."""
    some = tmp_path / "some"
    shutil.copytree(images, some)
    planned = batches(read_vqa_questions("vqav2", questions).asked, 16)
    assert len(planned) > 2
    (some / planned[-1][-1].image).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"\.jpg: .*answers so far are kept"):
        answer(settings(batch=16, images=some, workers=workers))
    part = (tmp_path / "answers" / "parts" / "00000.jsonl").read_text().splitlines()
    kept = {json.loads(line)["question_id"] for line in part[1:]}
    assert kept == {question.question_id for batch in planned[:-1] for question in batch}


def test_answers_of_another_model_or_with_other_settings_are_refused(
    settings: Callable[..., AnswerConfig], tmp_path: Path
) -> None:
    answer(settings())
    other = save_llava(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"holds answers with model_sha256 .*choose another --out"):
        answer(settings(model=other))
    with pytest.raises(UserError, match=r"holds answers with max_new_tokens 12, not 5"):
        answer(settings(max_new_tokens=5))


@pytest.mark.parametrize("version", ["prompt_version", "view_version"])
def test_answers_to_another_prompt_or_view_are_refused(
    settings: Callable[..., AnswerConfig], tmp_path: Path, version: str
) -> None:
    """Also those of files that do not have the versions yet."""
    answer(settings())
    part = tmp_path / "answers" / "parts" / "00000.jsonl"
    header, *rest = part.read_bytes().splitlines(keepends=True)
    job = json.loads(header)
    now = job.pop(version)
    part.write_bytes(b"".join([json.dumps(job).encode() + b"\n", *rest]))
    with pytest.raises(UserError, match=f"holds answers with {version} 0, not {now}; choose"):
        answer(settings())


def test_answers_to_other_questions_of_the_same_ids_are_refused(
    settings: Callable[..., AnswerConfig], questions: Path, tmp_path: Path
) -> None:
    answer(settings())
    content = json.loads(questions.read_text())
    content["questions"][4]["question"] = "What else?"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    message = r"another question 1004 \('.*\?' about COCO_.*, not 'What else\?' about"
    with pytest.raises(UserError, match=message):
        answer(settings(questions=other))


def test_images_that_came_back_are_answered_after_all(
    settings: Callable[..., AnswerConfig], alone: list[str], images: Path, tmp_path: Path
) -> None:
    some = tmp_path / "some"
    shutil.copytree(images, some)
    (some / "COCO_val2014_000000000001.jpg").unlink()
    answer(settings(images=some, allow_missing=True))
    assert "" in [line["text"] for line in answers(tmp_path / "answers")]
    answer(settings())
    assert [line["text"] for line in answers(tmp_path / "answers")] == alone


@pytest.mark.parametrize("damage", ["nan", "missing"])
def test_weights_that_are_no_numbers_or_not_there_answer_nothing(
    settings: Callable[..., AnswerConfig], llava_folder: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(llava_folder, folder)
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("layers.1.mlp.up_proj.weight"))
    if damage == "nan":
        state[name][0, 0] = float("nan")
    else:
        del state[name]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    message = "logits are not finite" if damage == "nan" else r"lack 1 .* the first is .*up_proj"
    with pytest.raises(UserError, match=message):
        answer(settings(model=folder))
    assert not (tmp_path / "answers" / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("file", "settings_there", "message"),
    [
        ("config.json", {"text_config/num_hidden_layers": 1}, r"have 9 weights .*layers\.1\."),
        ("config.json", {"text_config/num_hidden_layers": -1}, "have 18 weights .*layers"),
        ("generation_config.json", {"eos_token_id": None}, "answers end with token None"),
        (
            "generation_config.json",
            {"eos_token_id": [50]},
            r"token \[50\] .* the tokenizer's end",
        ),
        (
            "preprocessor_config.json",
            {"crop_size": {"height": 3, "width": 32}},
            r"returns \[3, 3, 32\],",
        ),
        (
            "preprocessor_config.json",
            {"crop_size": 64},
            r"\[3, 64, 64\], its tower takes 32 x 32",
        ),
    ],
)
def test_settings_of_another_model_are_refused(
    settings: Callable[..., AnswerConfig],
    llava_folder: Path,
    tmp_path: Path,
    file: str,
    settings_there: dict[str, Any],
    message: str,
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(llava_folder, folder)
    content = json.loads((folder / file).read_text())
    for name, value in settings_there.items():
        part, _, key = name.rpartition("/")
        (content[part] if part else content)[key] = value
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        answer(settings(model=folder))


@pytest.mark.parametrize("content", ["cut off", "version https://git-lfs.github.com/spec/v1\n"])
def test_weights_that_were_not_copied_whole_are_named_before_a_job_waits(
    settings: Callable[..., AnswerConfig], llava_folder: Path, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(llava_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(
        weights.read_bytes()[:-9] if content == "cut off" else content.encode() + b"oid sha256:0"
    )
    message = "cut off" if content == "cut off" else "only a Git LFS pointer"
    with pytest.raises(UserError, match=rf"model\.safetensors: no whole .*{message}"):
        answer(settings(model=folder, check=True))


def test_two_processes_with_one_number_are_refused(
    settings: Callable[..., AnswerConfig], tmp_path: Path
) -> None:
    answer(settings())
    job = msgspec.json.decode(
        (tmp_path / "answers" / "parts" / "00000.jsonl").read_bytes().splitlines()[0], type=Job
    )
    with (
        AnswerLog(tmp_path / "answers", job, 0),
        pytest.raises(UserError, match="another process writes part 0"),
    ):
        answer(settings())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no LLaVA folder of Hugging Face's"),
        ("{", "no LLaVA folder of Hugging Face's"),
        ('{"architectures": ["LlamaForCausalLM"]}', "no LlavaForConditionalGeneration"),
    ],
)
def test_a_folder_that_is_no_llava_is_reported(
    settings: Callable[..., AnswerConfig], tmp_path: Path, config: str | None, message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        answer(settings(model=folder))


def test_checking_answers_nothing(
    settings: Callable[..., AnswerConfig], tmp_path: Path, capsys: Any
) -> None:
    answer(settings(check=True, out=None))
    assert "33 questions" in capsys.readouterr().out
    with pytest.raises(UserError, match="no --out"):
        settings(out=None)


@pytest.mark.parametrize("part", ["1", "2/2", "a/b", "-1/2"])
def test_a_part_that_is_none_is_refused(settings: Callable[..., AnswerConfig], part: str) -> None:
    with pytest.raises(UserError, match="such as 0/4"):
        settings(part=part)


def test_the_place_among_processes_is_that_of_the_launcher(
    settings: Callable[..., AnswerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert settings().place == (2, 5)
    assert settings(part="0/1").place == (2, 5)
    slots_of = {settings(part=f"{job}/3").place for job in range(3)}  # of an array, 5 tasks each
    assert slots_of == {(2, 15), (7, 15), (12, 15)}
