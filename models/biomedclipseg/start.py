"""What an untrained BiomedCLIPSeg starts from: published towers, and perhaps a decoder.

Conventions: the towers lie in open_clip's format (``open_clip_config.json`` and a file
of weights whose keys begin with ``visual.``, ``text.`` and ``logit_scale``), the
decoder in a CLIPSeg's file (``decoder.``).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import CardError
from harness.weights.loading import load_into

from .network import Network
from .settings import Settings

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def load_start(network: Network, settings: Settings, towers: Path, decoder: Path | None) -> None:
    """Fill the towers, and the decoder where there is one for it.

    Raises:
        CardError: The towers' own configuration says something else than the card.
        CheckpointError: A file cannot be read safely or does not fit.
    """
    _check_configuration(towers, settings)
    load_into(network.biomedclip, towers)
    if decoder is not None:
        load_into(network.decoder, decoder, part="decoder")


def _check_configuration(towers: Path, settings: Settings) -> None:
    """Compare open_clip_config.json where a difference would leave the shapes equal."""
    file = towers / "open_clip_config.json"
    if not file.is_file():
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    for key, ours in (
        ("model_cfg.text_cfg.hf_pooler_type", "cls_last_hidden_state_pooler"),
        ("model_cfg.text_cfg.hf_proj_type", "mlp"),
        ("model_cfg.text_cfg.context_length", settings.context_length),
        ("preprocess_cfg.mean", list(MEAN)),
        ("preprocess_cfg.std", list(STD)),
    ):
        theirs = _look_up(content, key)
        if theirs is not None and theirs != ours:
            raise CardError(
                f"settings: {file} says {key} = {theirs!r}, this model has {ours!r}. They must be "
                "equal. Correct the card, or give BiomedCLIP's own folder."
            )


def _look_up(content: Mapping[str, Any], key: str) -> Any:
    found: Any = content
    for step in key.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
