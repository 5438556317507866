"""Settings of torch for training on a device, in one place."""

import torch


def suit(device: torch.device) -> None:
    """Set what torch leaves off by default and costs no exactness.

    Images of a training all have one size, so cuDNN measures its convolutions (patch embeddings,
    ResNets) once and takes the fastest.

    Products of fp32 matrices stay exact, "highest", and not TF32, which open_clip's script allows:
    the setting is for the whole process, and the loss multiplies fp32 embeddings, whose cosines
    TF32 would round to three digits, as many as hard negatives differ in. Whoever wants tensor
    cores in the towers trains them in bf16, where the loss stays fp32.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
