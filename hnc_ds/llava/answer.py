"""Questions about pictures put to a LLaVA folder, in batches, by any number of processes.

    hnc-ds answer LLAVA_DIR --dataset vqav2 --images coco/val2014 --out answers/trained \\
        --questions v2_OpenEnded_mscoco_val2014_questions.json
    torchrun --nproc-per-node 8 --no-python hnc-ds answer ...

Processes do not talk to each other: each takes every n-th batch, writes a file of its own, and
whoever finds all answered puts them together.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from hnc_ds.config import AnswerConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.export.into_llava import read_llava_config, weight_files
from hnc_ds.export.llava_tokenizer import differs_as_a_whole, load_tokenizer
from hnc_ds.export.safetensors_file import read_header
from hnc_ds.llava import prompts
from hnc_ds.llava.check import check_inputs
from hnc_ds.llava.feed import Ready, images, ready
from hnc_ds.llava.fingerprint import folder_sha256
from hnc_ds.llava.generate import Generated, Generator
from hnc_ds.llava.halving import Halving
from hnc_ds.llava.journal import AnswerLine, Job, Journal
from hnc_ds.llava.model import VIEW_VERSION, Llava, PictureView, load_llava
from hnc_ds.llava.packing import places
from hnc_ds.llava.plan import batches
from hnc_ds.llava.questions import QuestionId, Questions, VqaQuestion, read_vqa_questions
from hnc_ds.llava.server_file import questions_beside, write_for_server
from hnc_ds.output_lock import only_writer


def answer(config: AnswerConfig) -> None:
    """Answer what is not answered yet, and put the answers together when all are there.

    Raises:
        UserError: No LLaVA folder, questions or pictures; answers of another model lie there; a
            picture that cannot be read and may not be missing.
    """
    _check_model(config.model)
    questions = read_vqa_questions(config.dataset, config.questions, config.ocr)
    check_inputs(config, questions)
    beside = _beside(config, questions)
    if config.check or config.out is None:
        return
    number, count = config.place
    job = _job(config, questions)
    with only_writer(config.out, config.place), Journal(config.out, job, number) as journal:
        todo = _todo(questions, journal, config)
        if todo:
            _answer_all(config, job, journal, todo)
        whole = journal.merge(questions.asked)
        if whole:
            _finish(config, config.out, questions, journal.known(), beside)
    print(
        f"{config.out}: {counted(len(questions.asked), 'answer')}, {whole.name} is whole"
        if whole
        else f"{config.out}: process {number} of {count} is done, others are not"
    )


def _check_model(folder: Path) -> None:
    """Before a job waits: is it a whole LLaVA, and does it take our images and words?"""
    config = read_llava_config(folder)
    for path in weight_files(folder):
        read_header(path)
    found = load_tokenizer(folder, config)
    side = (config.get("vision_config") or {}).get("image_size")
    if isinstance(side, int):
        PictureView(folder).check_side(side)
    if warning := differs_as_a_whole(*found):
        print(warning)


def _finish(
    config: AnswerConfig,
    out: Path,
    questions: Questions,
    known: Mapping[str, AnswerLine],
    beside: Sequence[QuestionId],
) -> None:
    """Write what others take, and count answers without an image."""
    lines = [known[question.unit] for question in questions.asked]
    if config.dataset == "vqav2":
        pairs = [(line.question_id, line.text) for line in lines]
        of_test = lines[0].image.startswith("COCO_test2015_")
        print(write_for_server(out, pairs, beside, config.normalise, of_test))
    if lost := sum(line.margin is None for line in lines):
        print(f"answer: {lost:,} of {len(lines):,} questions have no image; their answer is empty")


def _beside(config: AnswerConfig, questions: Questions) -> list[QuestionId]:
    """Questions that are in the server's file alone."""
    if config.complete_with is None:
        return []
    return questions_beside(questions, config.complete_with)


def _job(config: AnswerConfig, questions: Questions) -> Job:
    return Job(
        model=config.model.resolve().name.encode(errors="replace").decode(),
        model_sha256=folder_sha256(config.model),
        dataset=config.dataset,
        ocr=questions.ocr,
        dtype=str(_dtype(config)).removeprefix("torch."),
        longest=config.longest,
        prompt_version=prompts.VERSION,
        view_version=VIEW_VERSION,
    )


def _dtype(config: AnswerConfig) -> torch.dtype:
    if config.strict:
        return torch.float32
    if config.dtype == "auto":
        return torch.float16 if torch.cuda.is_available() else torch.float32
    found: torch.dtype = getattr(torch, config.dtype)
    return found


def _todo(questions: Questions, journal: Journal, config: AnswerConfig) -> list[list[VqaQuestion]]:
    """This process's batches, without what is answered."""
    number, count = config.place
    # What had no image may have one now, unless that is left alone.
    known = {
        unit
        for unit, line in journal.known_to(questions.asked).items()
        if line.margin is not None or config.allow_missing
    }
    planned = batches(questions.asked, 1 if config.strict else config.batch)[number::count]
    left = [[question for question in batch if question.unit not in known] for batch in planned]
    return [batch for batch in left if batch]


def _answer_all(
    config: AnswerConfig, job: Job, journal: Journal, todo: list[list[VqaQuestion]]
) -> None:
    llava = load_llava(config.model, _dtype(config), _device())
    batches_ready = ready(llava, config.images, todo, config.workers, journal.leave_to_parent)
    total = sum(map(len, todo))
    with tqdm(total=total, unit=" questions", disable=config.place[0] != 0 or None) as bar:
        for batch, answers in _answered(llava, config, todo, batches_ready):
            lines = [_line(q, answers.get(q), llava, job) for q in batch]
            journal.add(lines)
            bar.update(len(lines))


def _device() -> torch.device:
    from hnc_ds.evaluation.evaluate import local_device

    return local_device()


Answers = dict[VqaQuestion, Generated]
"""Without questions whose image cannot be read."""


def _answered(
    llava: Llava,
    config: AnswerConfig,
    todo: Sequence[list[VqaQuestion]],
    batches_ready: Iterator[Ready],
) -> Iterator[tuple[list[VqaQuestion], Answers]]:
    """The answers of each batch, given out when the device has begun with the next one."""
    before, _ = llava.split_prompt(todo[0][0].text)  # the same words before every image
    generator = Generator(llava, before, config.longest, cuda_graphs=config.cuda_graphs)
    halving = Halving(generator)
    last: tuple[list[VqaQuestion], Answers] | None = None
    for batch, one in zip(todo, batches_ready, strict=True):
        try:
            _check_readable(one, config)
            running = None if one.packed is None else halving.begin(one.packed)
        except UserError:
            if last is not None:
                yield last
            raise
        if last is not None:
            yield last
        last = batch, _placed(batch, one, [] if running is None else running())
    if last is not None:
        yield last


def _check_readable(one: Ready, config: AnswerConfig) -> None:
    if one.unreadable and not config.allow_missing:
        _, why = one.unreadable[0]
        raise UserError(
            f"{why}; copy the picture again, or give --allow-missing to answer its questions "
            "with nothing (answers so far are kept)"
        )


def _placed(
    batch: Sequence[VqaQuestion], one: Ready, found: Sequence[Sequence[Generated]]
) -> Answers:
    """The answers of a grid of rows and slots by question."""
    lost = {name for name, _ in one.unreadable}
    asked = [question for question in batch if question.image not in lost]
    names = images(asked)
    grid = places([names.index(question.image) for question in asked])
    return {q: found[row][slot] for q, (row, slot) in zip(asked, grid, strict=True)}


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
