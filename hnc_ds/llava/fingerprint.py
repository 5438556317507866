"""What a LLaVA folder is, as one number. No torch here."""

import hashlib
from pathlib import Path

SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})
"""Of the files that a model is read from."""

_AT_ONCE = 2**22


def folder_sha256(folder: Path) -> str:
    """sha256 over names and contents of the files that a model is read from, in any order made.

    Reads the weights once, as loading them does next.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in SUFFIXES:
            digest.update(f"\n{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(_AT_ONCE):
                    digest.update(block)
    return digest.hexdigest()
