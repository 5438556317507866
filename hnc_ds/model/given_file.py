"""The file of weights that --pretrained FILE or FILE:TAG names: read, judged, loaded."""

from pathlib import Path
from typing import Any

import open_clip

from hnc_ds.config import ModelConfig
from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.model.evidence import Decided, decide, given_by, of_file
from hnc_ds.model.weights_file import fit, is_torchscript, read_weights
from hnc_ds.reading import reading

BIG_VISION = (".npz", ".npy")
"""Files that open_clip converts itself."""
OPENAI = "openai"
"""Tag of what OpenAI published, in archives of TorchScript."""


def given_file(config: ModelConfig) -> "GivenFile | None":
    """Read the file; None where --pretrained is none, or a tag, which is not looked for on disk.

    Raises:
        UserError: It cannot be read, or what follows the colon is no tag.
    """
    given, tags = config.pretrained, open_clip.list_pretrained_tags_by_model(config.model)
    if given is None or given in tags:
        return None
    if Path(given).is_file():
        return GivenFile(config, Path(given), None)
    file, _, like = given.rpartition(":")
    if not Path(file).is_file():
        return None
    if like not in tags:
        raise UserError(
            f"pretrained '{given}': '{like}' is not a tag of {config.model}"
            f"{did_you_mean(like, tags)}; tags: {', '.join(tags) or 'none'}"
        )
    return GivenFile(config, Path(file), like)


class GivenFile:
    """Weights, read; of big_vision's kind when they are loaded.

    Args:
        config: Which model, and flags.
        file: Where they are.
        like: Tag of the published weights that they are said to be like.

    Raises:
        UserError: It is no file of weights.
    """

    def __init__(self, config: ModelConfig, file: Path, like: str | None) -> None:
        self._config, self._file, self._like = config, file, like
        self._named = f"model {config.model}, pretrained {config.pretrained}"
        self._state = None if file.suffix in BIG_VISION else read_weights(file)

    def decided(self) -> Decided:
        """The activation and preprocessing.

        Raises:
            UserError: They are open, or the weights are of another architecture in the first place.
        """
        model = self._config.model
        like = self._like or (OPENAI if is_torchscript(self._file) else None)
        known = of_file(model, self._file, like, given_by(self._config))
        try:
            return decide(model, str(self._file), known)
        except UserError:
            self.fill(open_clip.create_model(model, pretrained_text=False))
            raise

    def fill(self, towers: Any) -> str:
        """Load the weights into an open_clip model; what of them was changed, in words.

        Raises:
            UserError: They are of another architecture.
        """
        with reading(self._file, by="open_clip"):
            if self._state is not None:
                return fit(towers, self._state, self._named)
            open_clip.load_checkpoint(towers, str(self._file))
            return ""
