"""The contract of a wrapped model, checked on a few pictures and prompts.

`check_model` runs every entry of `CHECKS` in its order. An adapter that raises makes
the check it raised in fail; what builds on that check is not applicable then.

Conventions: checks run in evaluation mode, without gradients, in the model's own
precision, on its device. Nothing is written anywhere.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import ModelError
from harness.model.checks import geometry, inputs, outputs, state
from harness.model.checks.record import Check, CheckResult, Found, Outcome, fails, skipped
from harness.model.checks.subject import PROMPTS, Subject, default_pictures
from harness.model.loading import LoadedModel
from harness.model.sampling import Sampled

__all__ = ["CHECKS", "CheckResult", "Outcome", "check_model"]

_LOGITS = ("preprocess", "logits", "finite")

CHECKS: dict[str, Check] = {
    "notes": Check(state.notes),
    "preprocess": Check(inputs.preprocess),
    "aspect": Check(geometry.aspect, ("preprocess",)),
    "tokens": Check(inputs.tokens),
    "tokenizer": Check(inputs.tokenizer, ("tokens",)),
    "text embedding": Check(inputs.text_embedding),
    "logits": Check(outputs.logits, ("preprocess",)),
    "finite": Check(outputs.finite, ("preprocess", "logits")),
    "scale": Check(outputs.scale, _LOGITS),
    "determinism": Check(outputs.determinism, _LOGITS),
    "staged = plain": Check(outputs.staged_is_plain, _LOGITS),
    "batch = one by one": Check(outputs.batch_is_one_by_one, _LOGITS),
    "features": Check(state.features, ("preprocess",)),
    "rows": Check(outputs.rows, (*_LOGITS, "features")),
    "prompt": Check(outputs.prompt, (*_LOGITS, "determinism")),
    "empty prompt": Check(outputs.empty_prompt, _LOGITS),
    "long prompt": Check(inputs.long_prompt, (*_LOGITS, "tokens", "determinism")),
    "decoder": Check(state.decoder),
    "noise floor": Check(outputs.noise_floor, (*_LOGITS, "determinism")),
    "threshold": Check(outputs.threshold, _LOGITS),
    "alternatives": Check(outputs.alternatives, _LOGITS),
    "cut": Check(geometry.cut_of_logits),
    "state": Check(state.unchanged, (*_LOGITS, "determinism")),
}


def check_model(
    model: LoadedModel,
    *,
    pictures: Sequence[NDArray[np.uint8]] | None = None,
    prompts: Sequence[str] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> list[CheckResult]:
    """Try a model on a few pictures and prompts, and say what holds.

    Args:
        model: The model, on its device.
        pictures: Test pictures, ``(H, W, 3)`` uint8 RGB; two generated ones when None.
        prompts: At least two different ones, the first the one that is compared with.
        tick: Called after each check, for a progress bar.

    Returns:
        One result a check, in the order of `CHECKS`.

    Raises:
        ModelError: There is no picture, or there are not two different prompts.
    """
    chosen = PROMPTS if prompts is None else tuple(dict.fromkeys(prompts))
    shown = default_pictures() if pictures is None else list(pictures)
    if len(chosen) < 2 or not shown:
        raise ModelError(
            f"check: found {len(shown)} pictures and {len(chosen)} different prompts. At least one "
            "picture and two prompts are needed, to see whether the prompt matters. Give more."
        )
    # A batch of one would hide rows that are mixed up.
    subject = Subject(_with_few_samples(model), shown if len(shown) > 1 else shown * 2, chosen)
    results: dict[str, CheckResult] = {}
    with torch.inference_mode(), model.autocast():
        for name, check in CHECKS.items():
            found = _blocked(check, results) or _run(name, check, subject)
            results[name] = CheckResult(name, *found)
            tick()
    return list(results.values())


def _with_few_samples(model: LoadedModel) -> LoadedModel:
    """The contract of a model that samples shows in two samples; all of them take long."""
    if not isinstance(model.adapter, Sampled):
        return model
    few = Sampled(model.adapter.adapter, samples=min(2, model.adapter.samples))
    return replace(model, adapter=few)


def _blocked(check: Check, results: dict[str, CheckResult]) -> Found | None:
    """What is to be said of a check that builds on one that failed."""
    for name in check.needs:
        if results[name].outcome is Outcome.FAILS:
            return skipped(f"waits for {name!r}.")
    return None


def _run(name: str, check: Check, subject: Subject) -> Found:
    """One check; whatever an adapter raises becomes its outcome."""
    try:
        return check.run(subject)
    except Exception as problem:  # noqa: BLE001 - a stranger's adapter may raise anything
        reason = (str(problem).strip().splitlines() or [""])[0][:200]
        return fails(
            f"{_place(problem, subject)}: {type(problem).__name__}: {reason or 'no message'}. No "
            f"call of the check {name!r} may raise, whatever the picture or text. Repair it there."
        )


def _place(problem: Exception, subject: Subject) -> str:
    """The line nearest to the error in the adapter's own folder, else the last one of all."""
    module = sys.modules.get(type(subject.model.raw).__module__)
    folder = Path(getattr(module, "__file__", None) or ".").resolve().parent
    frames = traceback.extract_tb(problem.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve().parent == folder]
    last = (own or list(frames))[-1]
    return f"{Path(last.filename).name}:{last.lineno} in {last.name}"
