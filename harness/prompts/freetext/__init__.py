"""Attribute spans in sentences that no grammar describes, by the words of the lexicon."""
