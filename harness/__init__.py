"""Audits whether a vision-language segmentation model uses its prompt, and what breaks it."""

__version__ = "0.1.0"
