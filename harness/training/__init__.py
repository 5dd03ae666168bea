"""Finetuning of a wrapped model on datasets, with the reference's recipe."""

from harness.training.finetune import Finetuned, finetune
from harness.training.recipe import Recipe

__all__ = ["Finetuned", "Recipe", "finetune"]
