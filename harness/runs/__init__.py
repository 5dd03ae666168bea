"""The run directory: parts, hashes, kept masks, resume."""
