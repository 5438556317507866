"""DeepSpeed: its engine, its JSON, and the tensors inside its optimizers."""
