"""LLaVA with another tower: questions answered, answers scored."""
