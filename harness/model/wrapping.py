"""`harness.wrap`: a function of this process as a model that can be audited."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydantic

from harness.cards import ModelCard, ResolvedCard
from harness.errors import ModelError
from harness.model.callables import FunctionAdapter, Input, Output, Settings
from harness.model.loading import LoadedModel, load_function
from harness.model.sources import trace

_HERE = Path("wrapped function")


class WrappedFunction:
    """A function with what a card would say of it; `harness.audit` takes it as ``model=``.

    Its id covers the function's text, the values it refers to (weights in a closure, say) and the
    files it imports.
    """

    def __init__(self, function: Callable[..., Any], card: ModelCard, version: str) -> None:
        self.function, self.card, self.version = function, card, version
        self.resolved = ResolvedCard(card=card, path=_HERE, folder=Path(), adapter_folder=Path())
        # Once, before any call: a function may keep what it computed.
        self._settings = Settings.model_validate(card.settings)
        self._model_id = self.load().model_id

    def __str__(self) -> str:
        return self._model_id

    def load(self) -> LoadedModel:
        """The function as the engine meets it."""
        where = f"{self.card.name} ({self.card.adapter.partition(':')[2]})"
        raw = FunctionAdapter(self.function, self._settings, where=where)
        return load_function(self.resolved, raw, _sources(self.function) + self.version)


def wrap(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    input: Input = "array",
    output: Output = "auto",
    batched: bool | None = None,
    threshold: float = 0.5,
    trained_on: Sequence[str] = (),
    version: str = "",
) -> WrappedFunction:
    """Make a model of a function ``f(image, prompt)`` or ``f(images, prompts)`` that returns masks.

    See `harness.model.callables` for what it may return and how that is read.

    Args:
        function: Takes a picture and its prompt, or lists of both (by the names of its two
            parameters, or as `batched` says).
        name: What figures call it; the function's own name when None.
        input: How a picture is given: ``array`` (``(H, W, 3)`` uint8 RGB), ``pil``, or ``tensor``
            (``(3, H, W)`` float32 in [0, 1]). It keeps its size.
        output: What decimal numbers are, where they do not say it: ``mask``, ``probabilities``
            or ``logits``.
        batched: Whether the function takes lists.
        threshold: Probability above which a pixel belongs to the mask.
        trained_on: Data sets the model saw.
        version: Any text that tells two models apart whose code and values are equal, such as
            that of a service.

    Returns:
        A model for ``harness.audit(model=...)`` and ``@pytest.mark.vlsm(..., model=...)``.

    Raises:
        ModelError: The function cannot be called so, or an argument is wrong.

    Example:
        >>> bright = wrap(lambda image, prompt: image.mean(axis=-1) > 128, name="bright")
        >>> bright.card.name
        'bright'
    """
    called = re.sub(r"\W", "", getattr(function, "__name__", type(function).__name__))
    if name is None and called == "lambda":
        raise ModelError("wrap: a lambda has no name. Figures need one. Give name=...")
    try:
        settings = Settings(input=input, output=output, batched=batched)
        card = ModelCard(
            name=called if name is None else name,
            title=f"the function {called}",
            adapter=f"function:{called or 'f'}",
            kind="callable",
            settings=settings.model_dump(exclude_defaults=True),
            threshold=threshold,
            trained_on=list(trained_on),
        )
    except pydantic.ValidationError as problems:
        first = problems.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "arguments"
        raise ModelError(
            f"wrap: {place}: found {first['input']!r}. {first['msg']}. Correct it."
        ) from None
    return WrappedFunction(function, card, version)


def _sources(function: Any) -> str:
    """Hash of the files a function comes from and imports; nothing in a console or notebook."""
    kind = function if hasattr(function, "__module__") else type(function)
    module = sys.modules.get(kind.__module__ or "")
    if getattr(module, "__file__", None) is None:
        return ""
    assert module is not None, "it has a file"
    return trace(module, function, ()).sha256
