"""Answer a benchmark's questions with a LLaVA folder, in batches, with any number of processes.

    hnc-ds answer LLAVA_DIR --dataset vqav2 --images coco/val2014 --out answers/trained \\
        --questions v2_OpenEnded_mscoco_val2014_questions.json
    torchrun --nproc-per-node 8 --no-python hnc-ds answer ...

Processes do not communicate: each takes every n-th batch and writes its own file; the process that
finds all questions answered merges the files.
"""

from collections.abc import Iterator, Mapping, Sequence
from os.path import isfile  # also False for names that no file can have
from pathlib import Path, PurePosixPath

import torch
from tqdm import tqdm

from hnc_ds.config import AnswerConfig
from hnc_ds.distributed import local_device
from hnc_ds.errors import UserError, counted
from hnc_ds.evaluation.benchmarks import FREE_FORM
from hnc_ds.evaluation.released.images import image_file
from hnc_ds.export.into_llava import read_llava_config, weight_files
from hnc_ds.export.llava_files import differs_as_a_whole, load_tokenizer
from hnc_ds.export.tensor_files import tensor_names
from hnc_ds.llava.batches import Batch, batches, images, read_batches, slots_of
from hnc_ds.llava.benchmark_files import QuestionId
from hnc_ds.llava.generate import Generated, Generator, HalvingGenerator
from hnc_ds.llava.model import VIEW_VERSION, ImageView, Llava, load_llava
from hnc_ds.llava.predictions import (
    AnswerLine,
    AnswerLog,
    Job,
    folder_sha256,
    questions_not_asked,
    write_for_server,
    write_for_vizwiz,
)
from hnc_ds.llava.questions import (
    PROMPT_VERSION,
    Questions,
    VqaQuestion,
    read_vqa_questions,
)
from hnc_ds.output_lock import only_writer


def answer(config: AnswerConfig) -> None:
    """Answer the questions that have no answer yet, and merge the answers once all have one.

    Raises:
        UserError: The LLaVA folder, questions or images are missing or broken; --out holds answers
            of another model; an image cannot be read without --allow-missing.
    """
    _check_model(config.model)
    questions = read_vqa_questions(config.dataset, config.questions, config.ocr)
    check_inputs(config, questions)
    not_asked = _not_asked(config, questions)
    if config.check or config.out is None:
        return
    number, count = config.place
    job = _job(config, questions)
    with only_writer(config.out, config.place), AnswerLog(config.out, job, number) as log:
        todo = _todo(questions, log, config)
        if todo:
            _answer_all(config, job, log, todo)
        whole = log.merge(questions.asked)
        if whole:
            _finish(config, config.out, questions, log.known(), not_asked)
    print(
        f"{config.out}: {counted(len(questions.asked), 'answer')}, {whole.name} is complete"
        if whole
        else f"{config.out}: process {number} of {count} is done, others are not"
    )


def check_inputs(config: AnswerConfig, questions: Questions) -> None:
    """Print how many questions and images there are.

    Raises:
        UserError: Images are missing without --allow-missing; an image path leaves the folder.
    """
    asked = questions.asked
    names = sorted({question.image for question in asked})
    missing = missing_images(config.images, names)
    split = FREE_FORM[config.dataset].splits.get(len(asked), "not the size of a released split")
    print(
        f"{config.dataset}: {counted(len(asked), 'question')} ({split}), OCR tokens: "
        f"{questions.ocr}; "
        f"{len(names) - len(missing):,} of {len(names):,} images"
    )
    if missing and not config.allow_missing:
        raise UserError(
            f"{config.images}: {len(missing):,} of {len(names):,} images are missing, the "
            f"first is {missing[0]}; name their folder (--images), or give --allow-missing to "
            "write empty answers to their questions"
        )


def missing_images(folder: Path, names: Sequence[str]) -> list[str]:
    """The names that are not in the folder.

    Raises:
        UserError: There is no such folder, or a name leaves it.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise UserError(f"image '{name}' leaves its folder; correct the questions' file")
    return [name for name in names if not isfile(folder / (image_file(name) or name))]


def _check_model(folder: Path) -> None:
    """Check weights, tokenizer and image size of a LLaVA folder without loading the model."""
    config = read_llava_config(folder)
    for path in weight_files(folder):
        tensor_names(path)
    found = load_tokenizer(folder, config)
    side = (config.get("vision_config") or {}).get("image_size")
    if isinstance(side, int):
        ImageView(folder).check_side(side)
    if warning := differs_as_a_whole(*found):
        print(warning)


def _finish(
    config: AnswerConfig,
    out: Path,
    questions: Questions,
    known: Mapping[str, AnswerLine],
    not_asked: Sequence[QuestionId],
) -> None:
    """Write the file for VQA's or VizWiz's server, and print how many answers have no image."""
    lines = [known[question.unit] for question in questions.asked]
    if config.dataset == "vqav2":
        pairs = [(line.question_id, line.text) for line in lines]
        of_test = lines[0].image.startswith("COCO_test2015_")
        print(write_for_server(out, pairs, not_asked, config.normalise, of_test))
    if config.dataset == "vizwiz":
        print(write_for_vizwiz(out, [(line.image, line.text) for line in lines]))
    if lost := sum(line.margin is None for line in lines):
        print(f"answer: {lost:,} of {len(lines):,} questions have no image; their answer is empty")


def _not_asked(config: AnswerConfig, questions: Questions) -> list[QuestionId]:
    if config.complete_with is None:
        return []
    return questions_not_asked(questions, config.complete_with)


def _job(config: AnswerConfig, questions: Questions) -> Job:
    return Job(
        model=config.model.resolve().name.encode(errors="replace").decode(),
        model_sha256=folder_sha256(config.model),
        dataset=config.dataset,
        ocr=questions.ocr,
        dtype=str(_dtype(config)).removeprefix("torch."),
        max_new_tokens=config.max_new_tokens,
        prompt_version=PROMPT_VERSION,
        view_version=VIEW_VERSION,
    )


def _dtype(config: AnswerConfig) -> torch.dtype:
    if config.strict:
        return torch.float32
    if config.dtype == "auto":
        return torch.float16 if torch.cuda.is_available() else torch.float32
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def _todo(questions: Questions, log: AnswerLog, config: AnswerConfig) -> list[list[VqaQuestion]]:
    """This process's batches without the answered questions."""
    number, count = config.place
    # A missing image may have been copied since, unless missing ones are allowed.
    known = {
        unit
        for unit, line in log.known_to(questions.asked).items()
        if line.margin is not None or config.allow_missing
    }
    planned = batches(questions.asked, 1 if config.strict else config.batch)[number::count]
    left = [[question for question in batch if question.unit not in known] for batch in planned]
    return [batch for batch in left if batch]


def _answer_all(
    config: AnswerConfig, job: Job, log: AnswerLog, todo: list[list[VqaQuestion]]
) -> None:
    llava = load_llava(config.model, _dtype(config), local_device())
    read = read_batches(llava, config.images, todo, config.workers, log.close_in_worker)
    total = sum(map(len, todo))
    with tqdm(total=total, unit=" questions", disable=config.place[0] != 0 or None) as bar:
        for batch, answers in _answered(llava, config, todo, read):
            lines = [_line(q, answers.get(q), llava, job) for q in batch]
            log.add(lines)
            bar.update(len(lines))


Answers = dict[VqaQuestion, Generated]
"""Lacks questions whose image cannot be read."""


def _answered(
    llava: Llava, config: AnswerConfig, todo: Sequence[list[VqaQuestion]], read: Iterator[Batch]
) -> Iterator[tuple[list[VqaQuestion], Answers]]:
    """The answers of each batch, yielded once the device has started on the next one."""
    before, _ = llava.split_prompt(todo[0][0].text)  # the same for every question
    generator = HalvingGenerator(
        Generator(llava, before, config.max_new_tokens, cuda_graphs=config.cuda_graphs)
    )
    last: tuple[list[VqaQuestion], Answers] | None = None
    for batch, one in zip(todo, read, strict=True):
        try:
            _check_readable(one, config)
            running = None if one.packed is None else generator.begin(one.packed)
        except UserError:
            if last is not None:
                yield last
            raise
        if last is not None:
            yield last
        last = batch, _by_question(batch, one, [] if running is None else running())
    if last is not None:
        yield last


def _check_readable(one: Batch, config: AnswerConfig) -> None:
    if one.unreadable and not config.allow_missing:
        _, why = one.unreadable[0]
        raise UserError(
            f"{why}; copy the image again, or give --allow-missing to write empty answers to its "
            "questions (answers so far are kept)"
        )


def _by_question(
    batch: Sequence[VqaQuestion], one: Batch, grid: Sequence[Sequence[Generated]]
) -> Answers:
    """The answers of a grid of rows and slots, by question."""
    lost = {name for name, _ in one.unreadable}
    asked = [question for question in batch if question.image not in lost]
    names = images(asked)
    slots = slots_of([names.index(question.image) for question in asked])
    return {q: grid[row][slot] for q, (row, slot) in zip(asked, slots, strict=True)}


def _line(question: VqaQuestion, generated: Generated | None, llava: Llava, job: Job) -> AnswerLine:
    return AnswerLine(
        question_id=question.question_id,
        image=question.image,
        prompt=question.text,
        text="" if generated is None else llava.decode(generated.ids),
        answer_id=question.unit,
        model_id=job.model,
        margin=None if generated is None else round(generated.margin, 4),
        metadata={"ocr": job.ocr},
    )
