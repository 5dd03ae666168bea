"""Checks of what lies in a model between calls: features, weights, modes.

Conventions: a *row* is one image's or one text's part of every feature.
"""

from typing import Any

import torch

from harness.model.checks.record import Found, fails, finding, holds, skipped
from harness.model.checks.subject import Subject, fingerprint, gap
from harness.model.contract import PartlyTrainable
from harness.model.features import bytes_per_row


def notes(subject: Subject) -> Found:
    """What the adapter itself says that whoever uses its numbers should know."""
    texts = [note.text for note in subject.model.notes]
    return finding(" ".join(texts)) if texts else holds("notes: the adapter has none.")


def features(subject: Subject) -> Found:
    """Every leaf is a tensor with leading axis N and one trailing shape, whatever N and text."""
    if not subject.is_staged:
        return skipped("encode_images: not offered; the engine keeps pixels and texts instead.")
    adapter = subject.model.adapter
    short, long = ["", "polyp"], [" ".join([subject.prompts[0]] * 3)] * 3
    images = [subject.image_features, adapter.encode_images(subject.pixels[:1])]
    texts = [adapter.encode_texts(short), adapter.encode_texts(long)]
    for name, pair, sizes in (
        ("encode_images", images, (len(subject.pictures), 1)),
        ("encode_texts", texts, (len(short), len(long))),
    ):
        wrong = _wrong_leaves(pair, sizes)
        if wrong:
            return fails(
                f"{name}: {wrong}. A NamedTuple of tensors is needed, each with leading axis N and "
                "a trailing shape fixed per model. Pad ragged texts, and add a mask as a leaf."
            )
    return holds(
        f"encode_images: {bytes_per_row(images[0]) / 2**20:.3g} MiB an image; encode_texts: "
        f"{bytes_per_row(texts[0]) / 2**10:.3g} KiB a text; every leaf has leading axis N."
    )


def _wrong_leaves(pair: list[Any], sizes: tuple[int, int]) -> str:
    """What is wrong with the features of two calls of unequal size; empty if nothing is."""
    for found, size in zip(pair, sizes, strict=True):
        names = getattr(found, "_fields", None)
        if names is None:
            return f"found {type(found).__name__}"
        for name, leaf in zip(names, found, strict=True):
            if not isinstance(leaf, torch.Tensor):
                return f"the leaf {name!r} is {type(leaf).__name__}"
            if leaf.dim() == 0 or len(leaf) != size:
                return f"the leaf {name!r} has the shape {tuple(leaf.shape)} for {size} rows"
    shapes = [[tuple(leaf.shape[1:]) for leaf in found] for found in pair]
    return "" if shapes[0] == shapes[1] else f"trailing shapes {shapes[0]} and {shapes[1]}"


def decoder(subject: Subject) -> Found:
    """What is said to be the decoder belongs to the module."""
    raw, module = subject.model.raw, subject.model.adapter.module
    if not isinstance(raw, PartlyTrainable):
        if subject.model.card.trainable == "decoder":
            return fails(
                "card.trainable: 'decoder', and the adapter has no 'decoder_modules'. They say "
                "what is trained. Add the method, or write `trainable: all`."
            )
        return skipped("decoder_modules: not offered; finetuning trains everything.")
    own = {id(parameter) for parameter in module.parameters()}
    parts = [parameter for part in raw.decoder_modules() for parameter in part.parameters()]
    n_foreign = sum(id(parameter) not in own for parameter in parts)
    if n_foreign or not parts:
        return fails(
            f"decoder_modules: {len(parts)} parameters, {n_foreign} of them not in 'module'. They "
            "are parts of it, at least one. Return submodules of 'module'."
        )
    share = 100 * sum(p.numel() for p in parts) / sum(p.numel() for p in module.parameters())
    return holds(f"decoder_modules: {share:.3g} % of the parameters.")


def unchanged(subject: Subject) -> Found:
    """All calls so far have changed no weight, no mode and no later result."""
    module = subject.model.adapter.module
    training = [name or "module" for name, part in module.named_modules() if part.training]
    if training:
        return fails(
            f"module: {len(training)} parts are in training mode, first {training[0]!r}. A loaded "
            "model is in evaluation mode. Do not call train() in the adapter."
        )
    after = fingerprint(module)
    changed = [name for name in after if after[name] != subject.weights_before.get(name)]
    if changed:
        return fails(
            f"module: {len(changed)} parameters or buffers changed while the model only computed, "
            f"first {changed[0]!r}. Nothing may be left behind. Look for running statistics."
        )
    return _same_answer(subject)


def _same_answer(subject: Subject) -> Found:
    apart = gap(subject.staged(subject.pixels, subject.texts), subject.logits)
    what = f"{subject.call}: the first call, made again after all others, differs by {apart:.2g}"
    if apart > max(10 * subject.noise, subject.model.card.noise_floor):
        return fails(
            f"{what}. Results must not depend on earlier calls. Look for a cache or counter in the "
            "adapter."
        )
    if apart > 10 * subject.noise:
        return finding(
            f"{what}, more than equal calls in a row do. Look for a cache in the adapter."
        )
    return holds("module: weights, modes and the first answer are as they were.")
