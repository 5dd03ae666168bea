"""What the author of an adapter imports: the contract of a model, and `load_model`."""

from harness.model.contract import (
    Adapter,
    AnySize,
    EmbedsText,
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
)
from harness.model.loading import LoadedModel, load_model
from harness.model.wrapping import WrappedFunction, wrap

__all__ = [
    "Adapter",
    "AnySize",
    "EmbedsText",
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
    "WrappedFunction",
    "device_of",
    "load_model",
    "read_settings",
    "standardise",
    "wrap",
]
