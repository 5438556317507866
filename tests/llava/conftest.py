"""A little LLaVA, and pictures and questions for it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.llava.little import WORDS, save_llava


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava") / "little-llava", seed=0)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures of different shapes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(7):
        draw = torch.Generator().manual_seed(number)
        size = (24 + 8 * (number % 3), 40 - 4 * number, 3)
        pixels = torch.randint(256, size, generator=draw, dtype=torch.uint8)
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.fromarray(pixels.numpy()).save(folder / name, quality=95)
    return folder


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 of VQA v2.0's layout, of mixed lengths, of one to eight a picture."""
    draw = torch.Generator().manual_seed(5)
    rows = []
    for number in range(33):
        length = int(torch.randint(1, 30, (1,), generator=draw))
        words = [WORDS[int(torch.randint(len(WORDS), (1,), generator=draw))] for _ in range(length)]
        image = int(torch.randint(7, (1,), generator=draw))
        rows.append(
            {"question_id": 1000 + number, "image_id": image, "question": " ".join(words) + "?"}
        )
    path = tmp_path_factory.mktemp("questions") / "questions.json"
    path.write_text(json.dumps({"data_subtype": "val2014", "questions": rows}))
    return path
