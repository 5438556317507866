"""Words: which names, attributes and predicates mean what, and how claims are put in English."""
