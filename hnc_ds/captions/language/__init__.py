"""English vocabulary and grammar: meanings of words, wording of claims."""
