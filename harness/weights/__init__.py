"""Finds, reads and recognises files of weights, safely."""
