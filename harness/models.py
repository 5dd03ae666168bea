"""What the author of an adapter imports: the contract of a model, and `load_model`."""

from harness.model.contract import (
    Adapter,
    EmbedsText,
    Family,
    Features,
    Note,
    Noted,
    PartlyTrainable,
    Picture,
    Predicts,
    Staged,
    StagedAdapter,
    TokenCounts,
    Tokenizes,
    device_of,
    read_settings,
    standardise,
    without_prefix,
)
from harness.model.loading import LoadedModel, load_model

__all__ = [
    "Adapter",
    "EmbedsText",
    "Family",
    "Features",
    "LoadedModel",
    "Note",
    "Noted",
    "PartlyTrainable",
    "Picture",
    "Predicts",
    "Staged",
    "StagedAdapter",
    "TokenCounts",
    "Tokenizes",
    "device_of",
    "load_model",
    "read_settings",
    "standardise",
    "without_prefix",
]
