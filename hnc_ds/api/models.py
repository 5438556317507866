"""Models by name, with the tokenizer and the preprocessing that fit them.

N images of R pixels, T captions of L tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from hnc_ds.errors import UserError
from hnc_ds.evaluation.encoder import cross_encoder_of, load_named_model, name_of
from hnc_ds.evaluation.evaluate import load_matching_model
from hnc_ds.images import CorruptImage, as_rgb
from hnc_ds.model.clip import Clip
from hnc_ds.model.text import Tokenizer
from hnc_ds.shards.images import ImageSettings, evaluation_view

if TYPE_CHECKING:
    from hnc_ds.model.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class Preprocess:
    """A PIL image to the input of a model; for workers as well.

    Args:
        settings: The model's preprocessing.
    """

    settings: ImageSettings

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Normalized pixels, float32 [3, R, R].

        Raises:
            UserError: The image is damaged.
        """
        mean_311, std_311 = torch.tensor([self.settings.mean, self.settings.std]).view(2, 3, 1, 1)
        return (self.view(image).float() / 255 - mean_311) / std_311

    def view(self, image: Image.Image) -> torch.Tensor:
        """Resized and cropped, uint8 [3, R, R]. Raises UserError as the call."""
        try:
            return evaluation_view(pil_to_tensor(as_rgb(image)), self.settings)
        except CorruptImage as error:
            raise UserError(f"preprocess: the image cannot be read ({error})") from error


@dataclass(frozen=True)
class PaddedTokenizer:
    """Captions to the input of an open_clip model.

    Args:
        tokenize: The model's tokenizer.
    """

    tokenize: Tokenizer

    def __call__(self, captions: str | Sequence[str]) -> torch.Tensor:
        """int64 [T, L], padded to the context length."""
        return self.tokenize(_listed(captions))


@dataclass(frozen=True)
class Loaded:
    """A model and what fits it; unpacks as ``model, tokenizer, preprocess = hnc_ds.load(...)``."""

    name: str
    """Name in results."""
    model: Any
    """open_clip's model, with encode_image and encode_text; or that of transformers, for image-text
    matching. In evaluation mode."""
    tokenizer: Any
    """Captions, one or a list, to the model's input: PaddedTokenizer, or that of transformers."""
    preprocess: Preprocess
    own: "Clip | CrossEncoder" = field(repr=False)
    """The same weights as other functions of hnc_ds take them."""

    def __iter__(self) -> Iterator[Any]:
        """Model, tokenizer and preprocessing, as open_clip returns them."""
        return iter((self.model, self.tokenizer, self.preprocess))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.own.parameters()).device

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients, in a block."""
        training = self.model.training
        self.own.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(training)

    def scores(
        self, images: Image.Image | Sequence[Image.Image], captions: str | Sequence[str]
    ) -> torch.Tensor:
        """How well each image and caption fit, float32 [N, T] on the CPU: cosines, or log-odds of a
        match. All are computed at once; for many images there is ``hnc_ds.evaluate``.

        Raises:
            UserError: An image is damaged.
        """
        listed = [images] if isinstance(images, Image.Image) else list(images)
        side = self.preprocess.settings.size
        views = [self.preprocess.view(image) for image in listed]
        images_N3RR = torch.stack(views) if views else torch.empty(0, 3, side, side).byte()
        token_TL = self.own.tokenize(_listed(captions))
        given = images_N3RR.to(self.device), token_TL.to(self.device)
        score = _cosines if isinstance(self.own, Clip) else _log_odds
        with self.evaluating():
            return score(self.own, *given).float().cpu()


def _cosines(clip: Any, images_N3RR: torch.Tensor, token_TL: torch.Tensor) -> torch.Tensor:
    return clip.encode_images(images_N3RR) @ clip.encode_texts(token_TL).T


def _log_odds(model: Any, images_N3RR: torch.Tensor, token_TL: torch.Tensor) -> torch.Tensor:
    used_T = model.tokenize.used_tokens(token_TL)
    number_NT = torch.arange(len(token_TL), device=token_TL.device).expand(len(images_N3RR), -1)
    return model(images_N3RR, token_TL, used_T, number_NT)[0]


def load(reference: str | Path, device: str | torch.device = "cpu") -> Loaded:
    """Load a model by name.

    Args:
        reference: A run (its newest checkpoint), a checkpoint folder, an open_clip model with a tag
            or a file of weights (ViT-B-32:openai), hf-hub:... or local-dir:..., or an image-text
            matching model of transformers, hf:FOLDER or hf:ID.
        device: Where its weights go.

    Raises:
        UserError: The name is none of these, or the weights are missing or not finite.
    """
    own, name = _own(str(reference)), name_of(str(reference))
    own = own.to(device).eval()
    preprocess = Preprocess(own.image_settings)
    if isinstance(own, Clip):
        return Loaded(name, own.towers, PaddedTokenizer(own.tokenize.padded()), preprocess, own)
    return Loaded(name, own.towers, own.tokenize.tokenizer, preprocess, own)


def _own(reference: str) -> "Clip | CrossEncoder":
    folder = cross_encoder_of(reference)
    if folder is None:
        return load_named_model(reference).model
    return load_matching_model(reference, folder)


def _listed(captions: str | Sequence[str]) -> list[str]:
    return [captions] if isinstance(captions, str) else list(captions)
