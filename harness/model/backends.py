"""What computes a model: torch as the adapter is written, its compiler, or OpenVINO on a CPU.

`Accelerated` makes any staged adapter compute its stages compiled. Each stage is compared
with torch's when the model is loaded, on other inputs and other numbers of rows than it was
compiled with; one that cannot be compiled, or computes something else, stays with torch, and is
named with the reason.

``inductor`` is `torch.compile`: on a CPU in C++, which needs a compiler there, on CUDA in Triton
and replayed as CUDA graphs. One kernel serves all numbers of rows, so that what a batch gives does
not depend on the batches before it.

Conventions: `stages` maps ``encode_images``, ``encode_texts`` and ``decode`` to the backend or to
``torch: REASON``. Features of OpenVINO's stages are float32, whatever the precision.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.errors import ModelError, choose
from harness.files import cache_folder
from harness.model.contract import (
    AnySize,
    Features,
    Note,
    Picture,
    PredictOnly,
    ScoresPresence,
    StagedAdapter,
    TokenCounts,
    Tokenizes,
)
from harness.model.exports import (
    RowByRow,
    Stage,
    Tensors,
    check_precision,
    compiled,
    import_openvino,
    own_cache,
    versions,
)
from harness.model.features import select
from harness.model.precision import BROKEN, Precision, computing
from harness.model.sampling import Sampled, is_sampled

Backend = Literal["torch", "inductor", "openvino"]
BACKENDS = ("torch", "inductor", "openvino")
STAGES = ("encode_images", "encode_texts", "decode")

Computes = Callable[..., Tensors]
Pair = tuple[Tensors, Tensors]
"""Inputs of a stage, and what torch makes of them."""

_TEXTS = ("a", "one small pink round polyp, located in top left of the image", "two large tumors")
_WORD = "polyp"
_COMPILED = 1_000_000  # times that one function may be compiled, for other models and shapes
_LONGEST = 512  # words, more than any text tower reads
# Several roundings of the largest logit: two libraries add in another order.
_ROUNDINGS = 64 * 2.0**-23


class Choice(NamedTuple):
    """What decides how a model is accelerated."""

    backend: Backend
    device: torch.device
    model_id: str
    precision: Precision
    noise_floor: float


def choose_backend(asked: str, device: str) -> str:
    """The device on which a backend computes, of a device that was asked for.

    Raises:
        ModelError: The backend is unknown, or does not compute there.
    """
    choose(asked, BACKENDS, kind="backend", where="--backend", error=ModelError)
    if asked != "openvino" or device == "cpu":
        return device
    if device == "auto":
        return "cpu"
    raise ModelError(
        f"--backend openvino: found --device {device}. It computes on the CPU here. Give --device "
        "cpu, or use --backend torch."
    )


def accelerate(adapter: Any, choice: Choice) -> tuple[Any, dict[str, str], list[Note]]:
    """A staged adapter with its stages compiled; what became of each, and what to say of it.

    Raises:
        ModelError: OpenVINO is not installed, or has no arithmetic for the precision here.
    """
    if choice.backend == "openvino":
        import_openvino()
        check_precision(choice.precision, where=f"model {choice.model_id!r}")
    if isinstance(adapter, Sampled):
        adapter.adapter, stages, notes = accelerate(adapter.adapter, choice)
        return adapter, stages, notes
    if isinstance(adapter, PredictOnly):
        whole = "torch: it is one function, without stages"
        return adapter, dict.fromkeys(STAGES, whole), [_note(choice, {"predict": whole})]
    kind = _AcceleratedWithPresence if isinstance(adapter, ScoresPresence) else Accelerated
    made = kind(adapter, choice)
    return made, made.stages, made.notes


def _note(choice: Choice, stages: dict[str, str]) -> Note:
    left = "; ".join(f"{name} ({why.partition(': ')[2]})" for name, why in stages.items())
    return Note(f"--backend {choice.backend}: torch computes {left}.")


class Accelerated:
    """A staged adapter whose stages are compiled where they can be."""

    def __init__(self, adapter: StagedAdapter, choice: Choice) -> None:
        """Compile and check the stages."""
        self.adapter = adapter
        self.input_size, self.module = adapter.input_size, adapter.module
        self.stages: dict[str, str] = dict.fromkeys(STAGES, choice.backend)
        self._choice = choice
        self._images: Computes | None = None
        self._texts: Computes | None = None
        self._trims = False
        self._decode: Computes | None = None
        # Whatever precision is asked for, the truth to compare with is float32's.
        with torch.no_grad(), computing(choice.device, "float32"):
            self._build(_Probe.of(adapter, choice.device))
        left = {name: why for name, why in self.stages.items() if why != choice.backend}
        self.notes = [_note(choice, left)] if left else []

    def _build(self, probe: "_Probe") -> None:
        adapter = self.adapter
        self._image_kind, self._text_kind = type(probe.images), type(probe.texts)
        if isinstance(adapter, AnySize):
            self.stages |= dict.fromkeys(
                ("encode_images", "decode"), "torch: pictures differ in size"
            )
        else:
            self._images = self._try(
                Stage("encode_images", adapter.encode_images, self.module, (probe.pixels[:2],)),
                [((probe.pixels[n],), tuple(select(probe.images, n))) for n in probe.rows],
            )
        self._build_texts(probe)
        if isinstance(adapter, ScoresPresence) or is_sampled(adapter):
            self.stages["decode"] = "torch: it says or draws more than logits"
        elif not isinstance(adapter, AnySize):
            self._build_decoder(probe)

    def _build_texts(self, probe: "_Probe") -> None:
        """Ids up to the longest text's end if that gives the same, else ids as they come."""
        adapter = self.adapter
        if not isinstance(adapter, Tokenizes):
            self.stages["encode_texts"] = "torch: it has no 'tokenize' and 'encode_tokens'"
            return
        example = adapter.tokenize([" ".join([_WORD] * _LONGEST), *_TEXTS[:1]])
        for trims in (True, False):
            self._trims = trims
            pairs = [
                (self._tokens(list(texts)), tuple(adapter.encode_texts(list(texts))))
                for texts in (_TEXTS[:1], _TEXTS[1:2], _TEXTS)
            ]
            free = ((1,), (1,)) if trims else ()
            # Numbers that are read off the example are fixed: those of the longest text.
            stage = Stage("encode_texts", adapter.encode_tokens, self.module, example, free)
            self._texts = self._try(stage, pairs)
            if self._texts is not None:
                return

    def _build_decoder(self, probe: "_Probe") -> None:
        adapter = self.adapter

        def decode(*leaves: Tensor) -> Tensor:
            split = len(probe.images)
            images = self._image_kind(*leaves[:split])
            return adapter.decode(images, self._text_kind(*leaves[split:]))

        pairs = []
        for rows in probe.rows:
            images, texts = select(probe.images, rows), select(probe.texts, rows)
            pairs.append(((*images, *texts), (adapter.decode(images, texts),)))
        longest = adapter.encode_texts([" ".join([_WORD] * _LONGEST), *_TEXTS[:1]])
        example = (*select(probe.images, torch.arange(2)), *longest)
        self._decode = self._try(Stage("decode", decode, self.module, example), pairs)
        if self._decode is not None and self._choice.precision == "float32":
            self._check_floor(probe)

    def _try(self, stage: Stage, pairs: Sequence[Pair]) -> Computes | None:
        """The stage compiled; None where torch must compute it, with the reason kept."""
        whys = []
        for make in self._ways(stage, [given for given, _ in pairs]):
            try:
                made = make()
                with computing(self._choice.device, self._choice.precision):
                    why = _why_unlike(made, pairs, self._choice.precision)
            except Exception as problem:  # noqa: BLE001 - any adapter, and two libraries, raise here
                told = str(problem).strip().splitlines() or [""]
                why = f"it cannot be compiled ({type(problem).__name__}: {told[0][:160]})"
            if why is None:
                self.stages[stage.name] = self._choice.backend
                return made
            whys.append(why)
        self.stages[stage.name] = f"torch: {whys[0]}"
        return None

    def _ways(self, stage: Stage, calls: list[Tensors]) -> Iterator[Callable[[], Computes]]:
        """How a stage may be compiled, the better way first."""
        if self._choice.backend == "inductor":
            yield partial(_by_inductor, stage, self._choice.device)
            return
        alone = stage._replace(
            name=f"{stage.name}, row by row", example=tuple(leaf[:1] for leaf in stage.example)
        )
        rows = [tuple(leaf[:1] for leaf in given) for given in calls]
        kept = {"model_id": self._choice.model_id, "precision": self._choice.precision}
        yield lambda: compiled(stage, **kept, calls=calls)
        yield lambda: RowByRow(compiled(alone, **kept, calls=rows))

    def encode_images(self, pixels: Tensor) -> Features:
        """Features of N images."""
        if self._images is None:
            return self.adapter.encode_images(pixels)
        return self._image_kind(*self._images(pixels))

    def encode_texts(self, texts: Sequence[str]) -> Features:
        """Features of N texts."""
        if self._texts is None or not texts:
            return self.adapter.encode_texts(texts)
        return self._text_kind(*self._texts(*self._tokens(texts)))

    def decode(self, image_features: Any, text_features: Any, **more: Any) -> Tensor:
        """Logits ``(N, h, w)``; further arguments are those of a model that samples."""
        if self._decode is None:
            decode: Any = self.adapter.decode
            found: Tensor = decode(image_features, text_features, **more)
            return found
        return self._decode(*image_features, *text_features)[0]

    def preprocess(self, image: Picture) -> Tensor:
        """The wrapped model's own."""
        return self.adapter.preprocess(image)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """The wrapped model's own."""
        return self.adapter.count_tokens(texts)

    def _tokens(self, texts: Sequence[str]) -> Tensors:
        adapter: Any = self.adapter
        ids, mask = adapter.tokenize(texts)
        if not self._trims:
            return ids, mask
        longest = max(1, *adapter.count_tokens(texts).n_tokens)
        return ids[:, :longest], mask[:, :longest]

    def _check_floor(self, probe: "_Probe") -> None:
        """Say where whole logits differ by more than a model's own noise."""
        mine = self.decode(self.encode_images(probe.pixels), self.encode_texts(_TEXTS))
        apart = float((mine - probe.logits).abs().max())
        floor = max(self._choice.noise_floor, _ROUNDINGS * float(probe.logits.abs().max()))
        if not apart <= floor:
            self.stages["decode"] = (
                f"torch: logits differ by {apart:.2g}, the card's noise_floor is {floor:.2g}"
            )
            self._decode = None


class _AcceleratedWithPresence(Accelerated):
    """The same of a model that says how sure it is that there is anything to mark."""

    def decode_with_presence(
        self, image_features: Any, text_features: Any
    ) -> tuple[Tensor, Tensor]:
        """The wrapped model's own."""
        adapter: Any = self.adapter
        found: tuple[Tensor, Tensor] = adapter.decode_with_presence(image_features, text_features)
        return found


class _Probe(NamedTuple):
    """What stages are compared on: pictures and texts, and what torch makes of them in float32."""

    pixels: Tensor
    images: Features
    texts: Features
    logits: Tensor
    rows: tuple[Tensor, ...] = (torch.tensor([2]), torch.arange(3))

    @classmethod
    def of(cls, adapter: StagedAdapter, device: torch.device) -> "_Probe":
        rng = np.random.default_rng(0)
        pictures = rng.integers(0, 256, (3, *adapter.input_size, 3), dtype=np.uint8)
        pixels = torch.stack([adapter.preprocess(picture) for picture in pictures]).to(device)
        images, texts = adapter.encode_images(pixels), adapter.encode_texts(list(_TEXTS))
        return cls(pixels, images, texts, adapter.decode(images, texts))


def _by_inductor(stage: Stage, device: torch.device) -> Computes:
    """The stage compiled by torch itself."""
    # What is generated is run: it lies where nobody else can write, not in a folder all share.
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        if (folder := own_cache("inductor")) is None:
            raise ModelError(f"{cache_folder('inductor')} is not this user's own")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    whole: Any = torch.compile(stage.call, dynamic=True, mode=mode)

    def computed(*leaves: Tensor) -> Tensors:
        # After eight models that share a function torch would compute as it is written, unasked.
        with torch._dynamo.config.patch(
            recompile_limit=_COMPILED, accumulated_recompile_limit=_COMPILED
        ):
            found = whole(*leaves)
        found = (found,) if isinstance(found, Tensor) else tuple(found)
        # A CUDA graph writes its next answer into the same memory.
        return tuple(leaf.clone() for leaf in found) if device.type == "cuda" else found

    return computed


def _why_unlike(made: Computes, pairs: Sequence[Pair], precision: Precision) -> str | None:
    """Where a compiled stage is not torch's; None where it is."""
    for given, wanted in pairs:
        for found, right in zip(made(*given), wanted, strict=True):
            if found.shape != right.shape:
                return f"it gave {tuple(found.shape)}, torch {tuple(right.shape)}"
            if not right.numel():
                continue
            apart = float((found.double() - right.double()).abs().max())
            spread = float(right.double().std(correction=0)) or float(right.double().abs().max())
            limit = BROKEN[precision] * spread if right.is_floating_point() else 0.0
            if not apart <= limit:
                return f"it differs from torch by {apart:.2g}, {apart / (spread or 1):.1g} spreads"
    return None


def described(backend: str, stages: Mapping[str, str]) -> dict[str, Any]:
    """For the record of a run: what computed each stage, and the versions that decide it."""
    libraries = ("torch", "openvino") if backend == "openvino" else ("torch",)
    return {"stages": stages, "versions": versions(*libraries)}
