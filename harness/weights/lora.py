"""Merges low-rank additions (LoRA) into the weights of a model.

An addition to a weight ``W (out, in)`` is a pair of factors of rank r whose product, times
``alpha / r``, has the shape of ``W``. Which factor comes first is told by shapes: PEFT and older
trainers keep ``A (r, in)`` and ``B (out, r)``, others ``A (in, r)`` and ``B (r, out)``. Only
PEFT says its alpha, in ``adapter_config.json`` beside the tensors; elsewhere the card says it.

Every factor must find its weight: trainers' own loaders go on without a word where one does not.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from harness.cards import Lora
from harness.errors import CardError, CheckpointError
from harness.files.canonical import read_object
from harness.weights.loading import read_tensors, tell

CONFIG = "adapter_config.json"
_FOLDER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# PEFT puts the adapter's name behind the factor's while it lies in memory.
_FACTOR = re.compile(r"^(.+?)(?:\.lora)?\.lora_([AB])(?:\.(?!bias$)[A-Za-z_]\w*)??(?:\.weight)?$")
_PEFT_PREFIX = "base_model.model."
# Such beginnings change the base's own weights, so that the file alone does not say the sum.
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "mica", "lora_ga")
_REPAIR = "Merge it into its base with its own library, and give the whole model."


class _Pair(NamedTuple):
    """Both factors of one addition."""

    a: Tensor
    b: Tensor


class _Scale(NamedTuple):
    """What factors are multiplied with: ``alpha / rank``, or by the root of the rank."""

    alpha: float
    by_root: bool = False
    alpha_of: Mapping[str, float] = {}

    def of(self, path: str, rank: int) -> float:
        alpha = next(
            (own for name, own in self.alpha_of.items() if f".{path}".endswith(f".{name}")),
            self.alpha,
        )
        return alpha / (math.sqrt(rank) if self.by_root else rank)


class _Translation(Protocol):
    @property
    def tensors(self) -> Mapping[str, Tensor]: ...


Translate = Callable[[Mapping[str, Tensor]], _Translation | None]


def lora_file(place: Path) -> Path:
    """The file of tensors that a card's ``lora.path`` means.

    Raises:
        CheckpointError: There is none.
    """
    if place.is_file():
        return place
    for name in _FOLDER_FILES:
        if (place / name).is_file():
            return place / name
    raise CheckpointError(
        f"{place}: there are no low-rank additions. A file of tensors, or PEFT's folder with "
        f"'{_FOLDER_FILES[0]}' and '{CONFIG}', is needed. Correct 'lora' on the card."
    )


def merge(module: torch.nn.Module, file: Path, lora: Lora, translate: Translate | None) -> None:
    """Add what a file of factors holds to the weights of `module`.

    `translate` gives tensors the module's names where the file has another project's.

    Raises:
        CheckpointError: A factor does not find its weight, or the file is no such one.
        CardError: Alpha is not known, or is another than the file's.
    """
    tensors = read_tensors(file, having=lambda key: bool(_FACTOR.match(key)))
    pairs, others = _sorted(tensors, where=file)
    scale = _scale(file, pairs, lora)
    targets = _Targets(module.state_dict(), [*pairs, *map(_owner, others)], translate, where=file)
    turned = _orientation(pairs, targets, where=file)
    idle = []
    for path, pair in pairs.items():
        delta = _product(pair, turned) * scale.of(path, _rank(pair, turned))
        found = targets.of(path, "weight", delta.float())
        idle += [path] * (not found)
        _add(targets, found)
    for key, value in others.items():
        found = targets.of(_owner(key), key.rpartition(".")[2], value.float())
        _replace(targets, found, key, where=file)
    n_weights = len(pairs) - len(idle)
    without = "".join(
        f"; {len(idle)} have no counterpart in this model, first {first!r}" for first in idle[:1]
    )
    ranks = sorted({_rank(pair, turned) for pair in pairs.values()})
    tell(
        f"{file.name}: {n_weights} low-rank additions of rank {', '.join(map(str, ranks))} (alpha "
        f"{scale.alpha:g}) were merged into the weights{without}."
    )


def _sorted(
    tensors: Mapping[str, Tensor], *, where: Path
) -> tuple[dict[str, _Pair], dict[str, Tensor]]:
    """Pairs of factors by the path of their module, and whole weights that stand beside them."""
    halves: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = key.removeprefix(_PEFT_PREFIX)
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise CheckpointError(
                f"{where}: the tensor {key[:120]!r} holds {value.dtype} or numbers that are not "
                "finite. Finite floating-point factors are needed. Use another checkpoint."
            )
        if match := _FACTOR.match(name):
            own = halves.setdefault(match[1], {})
            if match[2] in own:
                raise CheckpointError(
                    f"{where}: {key[:120]!r} is the second factor {match[2]} of "
                    f"{match[1][:120]!r}. One set of additions can be meant. Save one adapter "
                    "alone."
                )
            own[match[2]] = value
        elif "lora_" in name:
            raise CheckpointError(
                f"{where}: {key[:120]!r} is no factor A or B of a LoRA: it is another kind of "
                f"addition (DoRA, embeddings, biases). Plain LoRA is merged here. {_REPAIR}"
            )
        else:
            # What stands below an addition is the module that it was put around.
            others[name.replace(".base_layer.", ".")] = value
    lonely = [path for path, pair in halves.items() if len(pair) < 2]
    if lonely or not halves:
        first = f", first {lonely[0][:120]!r}" if lonely else ""
        raise CheckpointError(
            f"{where}: found {len(halves) - len(lonely)} pairs of factors lora_A and lora_B, and "
            f"{len(lonely)} without their other half{first}. A file of low-rank additions is "
            "needed. Correct 'lora' on the card, or copy the file again."
        )
    return {path: _Pair(pair["A"], pair["B"]) for path, pair in halves.items()}, others


def _owner(key: str) -> str:
    return key.rpartition(".")[0]


def _scale(file: Path, pairs: Mapping[str, _Pair], lora: Lora) -> _Scale:
    config = file.parent / CONFIG
    if not (file.name in _FOLDER_FILES and config.is_file()):
        if lora.alpha is not None:
            return _Scale(lora.alpha)
        rank = min(min(pair.a.shape[:2]) for pair in pairs.values())
        raise CardError(
            f"lora: {file} does not say alpha, and neither does the card. It scales every addition "
            "by alpha / rank, and stands in the settings of the training (lora.alpha); stock "
            f"settings have twice the rank, here {2 * rank}. Give `lora: {{path: ..., alpha: N}}`."
        )
    repair = f"Copy '{CONFIG}' again."
    said = read_object(config, error=CheckpointError, missing=repair, repair=repair)
    _check_kind(said, config)
    alpha = said.get("lora_alpha", 8)
    alphas = said.get("alpha_pattern") or {}
    values = [alpha, *alphas.values()]
    if not all(isinstance(v, int | float) and math.isfinite(v) and v > 0 for v in values):
        raise CheckpointError(
            f"{config}: lora_alpha is {alpha!r}, alpha_pattern {alphas!r}. Positive numbers are "
            f"needed. {repair}"
        )
    if lora.alpha not in (None, alpha):
        raise CardError(
            f"lora.alpha: found {lora.alpha:g}, {config} says {alpha:g}. They must be equal. "
            "Leave the key to the file."
        )
    return _Scale(float(alpha), bool(said.get("use_rslora")), alphas)


def _check_kind(said: Mapping[str, Any], config: Path) -> None:
    """Refuse what is not the sum of a base and plain products."""
    begun = said.get("init_lora_weights")
    is_begun = isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE)
    patterns = [said.get(key) or {} for key in ("alpha_pattern", "rank_pattern")]
    # Real expressions are a stranger's, and could take forever; a name is what people write.
    names = [name for one in patterns for name in (one if isinstance(one, dict) else [repr(one)])]
    odd = [name for name in names if not re.fullmatch(r"[\w.]+", name)]
    odd += [repr(one) for one in patterns if not isinstance(one, dict)]
    wrong = {
        f"peft_type {said.get('peft_type')!r}": said.get("peft_type") != "LORA",
        "use_dora": bool(said.get("use_dora")),
        "use_qalora": bool(said.get("use_qalora")),
        "fan_in_fan_out": bool(said.get("fan_in_fan_out")),
        f"init_lora_weights {begun!r}, which changes the base": is_begun,
        f"the pattern {odd[0]!r}" if odd else "": bool(odd),
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise CheckpointError(
                f"{config}: found {what[:160]}. Plain LoRA (peft_type 'LORA') is merged here. "
                f"{_REPAIR}"
            )


class _Targets:
    """The weights of a model, by the paths that a file has for their modules."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        paths: Sequence[str],
        translate: Translate | None,
        *,
        where: Path,
    ) -> None:
        self.state, self._translate, self._where = state, translate, where
        self._modules = {_owner(key) for key in state}
        self._drop = self._common_prefix(paths)

    def _common_prefix(self, paths: Sequence[str]) -> int:
        """How many leading steps, the same in all paths, hide the model's own names."""
        steps = [path.split(".") for path in paths]
        depth = 0
        while not any(".".join(path[depth:]) in self._modules for path in steps):
            if len({tuple(path[: depth + 1]) for path in steps}) > 1:
                return 0
            depth += 1
            if any(len(path) <= depth for path in steps):
                return 0
        return depth

    def of(self, path: str, leaf: str, value: Tensor) -> Mapping[str, Tensor]:
        """The model's keys with what belongs to each; empty where it has no counterpart."""
        own = ".".join(path.split(".")[self._drop :])
        if own in self._modules:
            return {f"{own}.{leaf}": value}
        try:
            told = self._translate({f"{path}.{leaf}": value}) if self._translate else None
        except CheckpointError as problem:
            raise CheckpointError(f"{self._where}: {problem}") from None
        if told is None:
            raise CheckpointError(
                f"{self._where}: the addition to {path[:120]!r} finds no weight in this model. "
                "Every addition must find its weight, or the answer is another model's. Give the "
                "card of the model that was finetuned, or the whole file of this one."
            )
        return told.tensors


def _orientation(pairs: Mapping[str, _Pair], targets: _Targets, *, where: Path) -> bool:
    """Whether factors are ``A (in, r)``, ``B (r, out)``: one answer for the whole file."""
    votes: set[bool] = set()
    for path, pair in pairs.items():
        fits = [turned for turned in (False, True) if _fits(path, pair, targets, turned=turned)]
        if not fits:
            raise CheckpointError(
                f"{where}: the factors of {path[:120]!r} have the shapes {tuple(pair.a.shape)} and "
                f"{tuple(pair.b.shape)}, which make no addition to its weight in this model. They "
                "belong to a model of another size. Give the card of that model."
            )
        votes |= {fits[0]} if len(fits) == 1 else set()
    if len(votes) != 1:
        raise CheckpointError(
            f"{where}: the shapes of its {len(pairs)} pairs of factors "
            f"{'contradict each other' if votes else 'allow both orders'}: A (r, in) and B (out, "
            f"r), or A (in, r) and B (r, out). One must hold for all. {_REPAIR}"
        )
    return votes.pop()


def _fits(path: str, pair: _Pair, targets: _Targets, *, turned: bool) -> bool:
    first, second = (pair.b, pair.a) if not turned else (pair.a, pair.b)
    if first.ndim < 2 or second.ndim != first.ndim or first.shape[1] != second.shape[0]:
        return False
    if first.ndim != 2 and turned:
        return False
    shape = (first.shape[0], *second.shape[1:]) if not turned else (pair.b.shape[1], len(pair.a))
    found = targets.of(path, "weight", torch.empty(shape, device="meta"))
    return all(
        key in targets.state and targets.state[key].shape == part.shape
        for key, part in found.items()
    )


def _rank(pair: _Pair, turned: bool) -> int:
    return int(pair.a.shape[1] if turned else pair.a.shape[0])


def _product(pair: _Pair, turned: bool) -> Tensor:
    a, b = pair.a.float(), pair.b.float()
    if turned:
        return (a @ b).T
    return (b.flatten(1) @ a.flatten(1)).view(len(b), *a.shape[1:])


@torch.no_grad()
def _add(targets: _Targets, found: Mapping[str, Tensor]) -> None:
    for key, part in found.items():
        targets.state[key].add_(part.to(targets.state[key].dtype))


@torch.no_grad()
def _replace(targets: _Targets, found: Mapping[str, Tensor], name: str, *, where: Path) -> None:
    """Whole weights that were trained beside the additions (PEFT's ``modules_to_save``)."""
    for key, part in found.items():
        known = targets.state.get(key)
        if known is None or known.shape != part.shape:
            raise CheckpointError(
                f"{where}: the tensor {name[:120]!r} {tuple(part.shape)} finds no weight of its "
                "shape in this model. Every tensor must find its weight. Give the card of the "
                "model that was finetuned."
            )
        known.copy_(part)
