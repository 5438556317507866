"""The training objective as arithmetic: tensors in, scalars out."""
