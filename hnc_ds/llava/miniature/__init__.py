"""The experiment with LLaVA in little: made-up questions, a model trained in minutes."""
