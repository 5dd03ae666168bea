"""Checks of what comes out of a model: logits, and what moves them.

Conventions: gaps, spread and noise as in `harness.model.checks.subject`.
"""

import torch
from torch import Tensor

from harness.model.checks.record import Found, fails, finding, holds, skipped
from harness.model.checks.subject import Subject, gap
from harness.model.features import binarise
from harness.model.offers import ComputesOtherwise
from harness.model.sampling import Sampled

# A threshold this near to 0 or 1 is a slip of the pen more often than a choice.
_EXTREME = 0.01
_HALF_AS_LOGIT = 0.6225
"""The sigmoid of 0.5."""


def logits(subject: Subject) -> Found:
    """Shape, type and place of the logits."""
    call = subject.call
    n, device = len(subject.pictures), subject.model.device
    found = subject.logits
    if found.dim() != 3 or len(found) != n:
        return fails(
            f"{call}: found logits of shape {tuple(found.shape)} for {n} pictures. (N, h, w) "
            "is needed. Take the channel away, for instance with squeeze(1)."
        )
    if found.device.type != device.type:
        return fails(
            f"{call}: found logits on {found.device}, the model is on {device}. Both must be "
            "in one place. Build new tensors with `harness.models.device_of(self.module)`."
        )
    alone = subject.with_text("")
    if alone.shape != found.shape:
        return fails(
            f"{call}: found logits of shape {tuple(alone.shape)} for empty prompts, "
            f"{tuple(found.shape)} otherwise. (h, w) must be fixed per model. Resize in `decode`."
        )
    return holds(f"{call}: logits ({n}, {found.shape[1]}, {found.shape[2]}) for {n} pictures.")


def finite(subject: Subject) -> Found:
    """No logit is NaN or infinite."""
    call = subject.call
    texts = {"the prompts": subject.logits, "the empty prompt": subject.with_text("")}
    for name, found in texts.items():
        n_bad = int((~torch.isfinite(found)).sum())
        if n_bad:
            return fails(
                f"{call}: {n_bad} of {found.numel()} logits for {name} are not finite. Every "
                "logit must be a finite number. Check the weights, use --dtype float32, or return "
                "a large constant instead of infinity."
            )
    return holds(f"{call}: every logit is finite.")


def scale(subject: Subject) -> Found:
    """Logits are numbers before the sigmoid, and not all the same one."""
    call = subject.call
    least, most = float(subject.logits.min()), float(subject.logits.max())
    if least == most:
        return finding(
            f"{call}: every logit of {len(subject.pictures)} pictures is {least:g}. A mask "
            "is expected to have two sides. Either the model finds nothing in these pictures (give "
            "your own with --picture and --prompt), or its output is not connected."
        )
    if least >= 0 and most <= 1:
        return finding(
            f"{call}: all logits lie in [{least:.3g}, {most:.3g}], as probabilities do. "
            "Logits are numbers before the sigmoid; the threshold is applied after it. Leave the "
            "sigmoid out, or return torch.logit(p.clamp(1e-6, 1 - 1e-6))."
        )
    if least >= 0 and not subject.model.random_weights:
        return finding(
            f"{call}: all logits lie in [{least:.3g}, {most:.3g}]: none is negative, so that at a "
            "threshold of 0.5 all of every picture is foreground. Logits are numbers before the "
            "sigmoid, of both signs. Look for grey levels from 0 to 255, or a ReLU at the end."
        )
    return holds(
        f"{call}: logits from {least:.3g} to {most:.3g}, standard deviation {subject.spread:.3g}."
    )


def determinism(subject: Subject) -> Found:
    """The same call gives the same logits, whatever the state of the random generator."""
    call = subject.call
    apart = subject.repeat_gap
    if isinstance(subject.model.adapter, Sampled) and apart == 0:
        return finding(_of_samples(subject, subject.model.adapter))
    if apart == 0:
        return holds(f"{call}: three equal calls give equal logits, bit for bit.")
    what = f"{call}: three equal calls differ by {apart:.2g} (spread {subject.spread:.2g})."
    if apart > subject.broken:
        return fails(
            f"{what} Equal calls must give equal masks. Look for dropout that stays on, sampling, "
            "or a state that one call leaves for the next."
        )
    return holds(what)


def _of_samples(subject: Subject, adapter: Sampled) -> str:
    """What is to be known of a model that samples; its answer is repeatable all the same."""
    texts = adapter.encode_texts(subject.texts)
    first, second = adapter.halves(subject.image_features, texts)
    cut = subject.model.card.threshold
    share = float(((first > cut) != (second > cut)).double().mean())
    return (
        f"{subject.call}: the model draws random numbers; single samples differ in "
        f"{100 * share:.2g} % of the pixels. An answer is the mean of the card's "
        f"{subject.model.card.samples} samples, from noise that is fixed by the picture: equal "
        "calls give equal logits, and a run measures what is left. Two samples are used here."
    )


def staged_is_plain(subject: Subject) -> Found:
    """The stages together are the author's own forward."""
    if not subject.is_plain or not subject.is_staged:
        return skipped("predict: not offered beside the stages; there is nothing to compare.")
    plain = subject.plain(subject.pixels, subject.texts)
    if plain.shape != subject.logits.shape:
        return fails(
            f"predict: found logits of shape {tuple(plain.shape)}, the stages give "
            f"{tuple(subject.logits.shape)}. They are one model. Correct one of the two."
        )
    return _equal(subject, "staged = plain", plain, "predict and the stages")


def batch_is_one_by_one(subject: Subject) -> Found:
    """A picture's logits do not depend on its neighbours in the batch."""
    rows = [
        subject.staged(subject.pixels[i : i + 1], [text]) for i, text in enumerate(subject.texts)
    ]
    return _equal(subject, "batch = one by one", torch.cat(rows), "one batch and single pictures")


def rows(subject: Subject) -> Found:
    """Rows of features may be selected, repeated and paired anew."""
    from harness.model.features import select

    adapter, n = subject.model.adapter, len(subject.pictures)
    # No symmetry, so that turning a batch round is seen, too.
    order = torch.tensor([n - 1, 0, 0], device=subject.model.device)
    texts = adapter.encode_texts([*subject.texts, ""])
    chosen = adapter.decode(select(subject.image_features, order), select(texts, order)).float()
    return _equal(subject, "rows", chosen, "selected rows and the batch", subject.logits[order])


def _equal(
    subject: Subject, name: str, found: Tensor, what: str, expected: Tensor | None = None
) -> Found:
    """Judge a comparison that should be equal up to rounding."""
    apart = gap(found, subject.logits if expected is None else expected)
    subject.gaps[name] = apart
    floor = subject.model.card.noise_floor
    text = f"{subject.call}: logits of {what} differ by {apart:.2g}"
    if apart > max(subject.broken, floor):
        return fails(
            f"{text}, their spread is {subject.spread:.2g}. They must be equal up to rounding. "
            "Look for a batch norm in training mode, rows that are mixed up, or padding that "
            "reaches the result."
        )
    if apart > floor and subject.model.precision == "float32":
        return finding(
            f"{text}, the card's noise_floor is {floor:g}. Counts are claimed to be equal up to "
            f"pixels within that floor. Raise it to {_rounded_up(apart):.0e}, or look for padding "
            "that reaches the result."
        )
    return holds(f"{text}.")


def _rounded_up(value: float) -> float:
    """The next power of ten above `value`."""
    return float(10 ** torch.tensor(value).log10().floor().add(1))


def prompt(subject: Subject) -> Found:
    """Different prompts give different logits; those of a control do not."""
    first, *others = subject.prompt_logits
    moved = max(gap(first, other) for other in others)
    times = moved / subject.spread if subject.spread else 0.0
    what = (
        f"prompt: logits for {len(others) + 1} prompts differ by up to {moved:.2g} ({times:.2g} "
        f"times their spread); ten times the repeat noise is {10 * subject.noise:.2g}."
    )
    listens = moved > 10 * subject.noise
    if subject.model.card.control:
        if listens:
            return fails(
                f"{what} A control cannot read its prompt. Leave the text out of the model, or "
                "take `control: true` off the card."
            )
        return holds(f"{what} A control ignores its prompt.")
    if listens and _same_masks(subject):
        return finding(
            f"{what} Yet the masks are equal to the bit: at the threshold "
            f"{subject.model.card.threshold:g} no pixel changes side. Look for a text tower whose "
            "weights are random, a prompt that hardly counts in the fusion, or a threshold far "
            "from where the logits are."
        )
    if listens:
        return holds(what)
    return finding(
        f"{what} Different prompts should differ by more. {_where_the_prompt_ends(subject)} If "
        "nothing is found for either prompt, give pictures and prompts of the model's own domain "
        "with --picture and --prompt. If it is meant to ignore text, write `control: true`."
    )


def _same_masks(subject: Subject) -> bool:
    """Whether all prompts give one mask to the bit, a mask that has two sides."""
    if subject.model.random_weights:
        return False
    first, *others = (
        binarise(logits, subject.model.card.threshold) for logits in subject.prompt_logits
    )
    has_sides = bool(first.any()) and not bool(first.all())
    return has_sides and all(bool(torch.equal(first, other)) for other in others)


def _where_the_prompt_ends(subject: Subject) -> str:
    apart = subject.embedding_gap()
    if apart is None:
        return (
            "Look for a prompt that is dropped on its way, or a text tower with random or missing "
            "weights."
        )
    if apart > 1e-6:
        return (
            f"The text embedding moves by {apart:.2g}, so look behind it: in the fusion, and in "
            "weights that were never loaded."
        )
    return f"The text embedding moves by {apart:.2g}, so look at the tokenizer and the text tower."


def empty_prompt(subject: Subject) -> Found:
    """The empty prompt is a prompt."""
    empty = subject.with_text("")
    moved = gap(empty, subject.with_text(subject.prompts[0]))
    return holds(
        f"empty prompt: runs; its logits differ from a full prompt's by up to {moved:.2g}."
    )


def noise_floor(subject: Subject) -> Found:
    """The card's noise floor is not below the noise that was measured."""
    floor = subject.model.card.noise_floor
    measured = {"repeats": subject.repeat_gap, **subject.gaps}
    name, most = max(measured.items(), key=lambda item: item[1])
    if subject.model.precision != "float32":
        return skipped(
            f"card.noise_floor: {floor:g} is the card's figure for float32; in "
            f"{subject.model.precision} {most:.2g} was measured ({name})."
        )
    if most > floor:
        return finding(
            f"card.noise_floor: {floor:g}, measured {most:.2g} ({name}). The floor is the largest "
            f"gap between logits that should be equal. Write `noise_floor: {_rounded_up(most):.0e}`"
            " on the card, or repair what makes the noise."
        )
    return holds(f"card.noise_floor: {floor:g}; measured at most {most:.2g} ({name}).")


def threshold(subject: Subject) -> Found:
    """The card's threshold lies where it separates anything."""
    cut = subject.model.card.threshold
    together = torch.cat(subject.prompt_logits)
    share = float(binarise(together, cut).double().mean())
    what = (
        f"card.threshold: {cut:g}; {100 * share:.1f} % of the test pictures' pixels lie above it."
    )
    if min(cut, 1 - cut) < _EXTREME:
        return finding(
            f"{what} Thresholds are probabilities, rarely so near to 0 or 1. Write the threshold "
            "that the model was validated with."
        )
    if abs(cut - _HALF_AS_LOGIT) < 0.001:
        return finding(
            f"{what} It is the sigmoid of 0.5: a threshold of 0.5 on logits stands for a "
            "probability of 0.62. Thresholds are probabilities. Write `threshold: 0.5` if the "
            "model was validated at a probability of 0.5, which is a logit of 0."
        )
    if share in (0, 1) and not subject.model.random_weights:
        return finding(
            f"{what} A mask with one side tells nothing. Look at --picture and --prompt of the "
            "model's own domain; then at the threshold, which is applied after the sigmoid."
        )
    return holds(what)


def alternatives(subject: Subject) -> Found:
    """How far another way to compute the same model lies from the adapter's."""
    raw = subject.model.raw
    if not isinstance(raw, ComputesOtherwise) or not raw.alternatives():
        return holds("alternatives: none; the model is computed in one way.")
    said = []
    own = binarise(subject.logits, subject.model.threshold)
    for name, computed in raw.alternatives().items():
        other = computed(subject.pixels, subject.texts).float()
        moved = (binarise(other, subject.model.threshold) != own).double().mean()
        said.append(
            f"{name}: logits differ by up to {gap(other, subject.logits):.2g} (they spread by "
            f"{subject.spread:.2g}), {100 * float(moved):.2g} % of pixels change sides"
        )
    return holds(f"alternatives: with {'; with '.join(said)}. The card's own way is computed.")
