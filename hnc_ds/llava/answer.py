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
from torch.utils.data import DataLoader
from tqdm import tqdm

from hnc_ds.config import AnswerConfig
from hnc_ds.errors import UserError, counted
from hnc_ds.export.into_llava import read_llava_config, weight_files
from hnc_ds.export.llava_tokenizer import differs_as_a_whole, load_tokenizer
from hnc_ds.export.safetensors_file import read_header
from hnc_ds.images import CorruptImage
from hnc_ds.llava import prompts
from hnc_ds.llava.check import check_inputs
from hnc_ds.llava.fingerprint import folder_sha256
from hnc_ds.llava.generate import Generated, answer_questions, encode_prefix
from hnc_ds.llava.journal import AnswerLine, Job, Journal
from hnc_ds.llava.model import VIEW_VERSION, Llava, PictureView, load_llava
from hnc_ds.llava.plan import batches
from hnc_ds.llava.questions import QuestionId, Questions, VqaQuestion, read_vqa_questions
from hnc_ds.llava.server_file import questions_beside, write_for_server
from hnc_ds.output_lock import only_writer
from hnc_ds.worker_processes import FORK

Pictures = list[torch.Tensor | str]
"""Of a batch's images in their order: float32 [3, R, R], or why there is none."""


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
    view = llava.pictures
    total = sum(map(len, todo))
    with tqdm(total=total, unit=" questions", disable=config.place[0] != 0 or None) as bar:
        for batch, pictures in zip(todo, _read(config, view, todo, journal), strict=True):
            lines = _answer_batch(llava, job, batch, pictures, config)
            journal.add(lines)
            bar.update(len(lines))


def _device() -> torch.device:
    from hnc_ds.evaluation.evaluate import local_device

    return local_device()


def _images(batch: Sequence[VqaQuestion]) -> list[str]:
    return list(dict.fromkeys(question.image for question in batch))


class _BatchPictures(torch.utils.data.Dataset[Pictures]):
    """Batch by number -> its pictures."""

    def __init__(self, folder: Path, view: PictureView, todo: list[list[VqaQuestion]]) -> None:
        self._folder, self._view, self._todo = folder, view, todo

    def __len__(self) -> int:
        return len(self._todo)

    def __getitem__(self, number: int) -> Pictures:
        return [self._picture(name) for name in _images(self._todo[number])]

    def _picture(self, name: str) -> torch.Tensor | str:
        try:
            return self._view(self._folder / name)
        except CorruptImage as error:
            return str(error)


def _read(
    config: AnswerConfig, view: PictureView, todo: list[list[VqaQuestion]], journal: Journal
) -> Iterator[Pictures]:
    data = _BatchPictures(config.images, view, todo)
    workers = min(config.workers, len(todo))
    context = FORK if workers else None
    return iter(
        DataLoader(
            data,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context,
            collate_fn=_as_is,
            worker_init_fn=journal.leave_to_parent,
        )
    )


def _as_is(pictures: Pictures) -> Pictures:
    return pictures


def _answer_batch(
    llava: Llava,
    job: Job,
    batch: Sequence[VqaQuestion],
    pictures: Pictures,
    config: AnswerConfig,
) -> list[AnswerLine]:
    found = dict(zip(_images(batch), pictures, strict=True))
    seen = {name: picture for name, picture in found.items() if not isinstance(picture, str)}
    broken = [why for why in found.values() if isinstance(why, str)]
    if broken and not config.allow_missing:
        raise UserError(
            f"{broken[0]}; copy the picture again, or give --allow-missing to answer its questions "
            "with nothing (answers so far are kept)"
        )
    asked = [question for question in batch if question.image in seen]
    answers = dict(zip(asked, _generate(llava, asked, seen, config.longest), strict=True))
    return [_line(question, answers.get(question), llava, job) for question in batch]


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


def _generate(
    llava: Llava,
    asked: Sequence[VqaQuestion],
    pictures: dict[str, torch.Tensor],
    longest: int,
) -> list[Generated]:
    """Answers of a batch; where memory does not suffice, of its halves."""
    if not asked:
        return []
    try:
        return _generate_at_once(llava, asked, pictures, longest)
    except torch.OutOfMemoryError:
        if len(asked) == 1:
            raise UserError(
                "answer: a single question does not fit into the GPU's memory; give --dtype float16"
            ) from None
    torch.cuda.empty_cache()
    middle = len(asked) // 2
    halves = (asked[:middle], asked[middle:])
    return [one for half in halves for one in _generate(llava, half, pictures, longest)]


def _generate_at_once(
    llava: Llava,
    asked: Sequence[VqaQuestion],
    pictures: dict[str, torch.Tensor],
    longest: int,
) -> list[Generated]:
    names = _images(asked)
    split = [llava.split_prompt(question.text) for question in asked]
    before = split[0][0]  # the same words before every picture
    prefix = encode_prefix(llava, before, torch.stack([pictures[name] for name in names]))
    image_of = [names.index(question.image) for question in asked]
    return answer_questions(llava, prefix, image_of, [after for _, after in split], longest)
