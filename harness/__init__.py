"""Audits whether a vision-language segmentation model uses its prompt, and what breaks it.

The public face; everything else may change without notice.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness._version import __version__

if TYPE_CHECKING:
    from harness.auditing.listener import Listener
    from harness.models import LoadedModel, WrappedFunction
    from harness.report.loaded import LoadedRun
    from harness.stats.bootstrap import RelativeChange
    from harness.stats.comparison.tuning import Tuning
    from harness.suite.schema import Suite

__all__ = ["__version__", "audit", "compare_language", "load_model", "load_run", "load_suite"]
__all__ += ["relative_change", "wrap"]


def __dir__() -> list[str]:
    return __all__


def audit(  # noqa: PLR0913, what a user may choose
    *,
    model: "str | Path | WrappedFunction | Sequence[str | Path | WrappedFunction]",
    suite: "str | Path | Suite",
    data_root: str | Path | None = None,
    datasets: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    backend: str = "torch",
    progress: "Listener | None" = None,
) -> "LoadedRun":
    """Run a suite with one or more models, or continue it, and compute what it shows.

    Args:
        model: ``CARD`` or ``CARD=CHECKPOINT``: a name, or the path of a card; several for several.
            ``CARD=A,B,C`` are checkpoints of one recipe that differ by training seed. Or a
            function, as `wrap` returns it.
        suite: Its name, the path of its file, or a loaded one.
        data_root: Folder above the datasets' own; when None ``VLSM_DATA_ROOT``, else ``data``, or
            without such a folder the user's cache for generated data sets.
        datasets: ``NAME``, ``NAME/SPLIT`` or card files in place of the suite's.
        out: Run directory; ``runs/SUITE-HASH`` when None.
        limit: At most so many images a dataset.
        device: ``auto``, ``cpu`` or ``cuda``.
        backend: ``torch``, or what compiles a staged model: ``inductor``, ``openvino`` (a CPU).
        progress: Hears notes and progress; `harness.commands.progress.Terminal` prints them.

    Returns:
        The run: frames, verdicts, charts; a notebook shows it.

    Raises:
        HarnessError: A file, card, model or data set is wrong; the message says how to repair it.
    """
    from harness.auditing.choices import recipe_arguments, select_suite, with_choices
    from harness.auditing.evaluating import Conditions
    from harness.auditing.listener import SILENT
    from harness.auditing.running import run_models
    from harness.auditing.summarising import summarise

    if isinstance(datasets, str):
        datasets = datasets.split(",")
    chosen = (
        select_suite(str(suite), datasets=datasets)
        if isinstance(suite, str | Path)
        else with_choices(suite, datasets=datasets)
    )
    models = list(model) if isinstance(model, Sequence) and not isinstance(model, str) else [model]
    _refuse_functions(models)
    given = recipe_arguments([str(one) if isinstance(one, Path) else one for one in models], None)
    store = run_models(
        chosen,
        given.models,
        root=None if data_root is None else Path(data_root),
        out=None if out is None else Path(out),
        limit=limit,
        conditions=Conditions(device=device, backend=backend, recipes=given.recipes),
        listener=progress or SILENT,
    )
    with store.locked():
        summarise(store)
    return load_run(store.folder)


def _refuse_functions(models: Sequence[Any]) -> None:
    from harness.errors import UsageError

    for one in models:
        if callable(one):
            raise UsageError(
                f"audit: model: found the function {getattr(one, '__name__', one)!r}. A card, a "
                "path, or a function as `harness.wrap` returns it is needed. Give "
                "harness.wrap(function)."
            )


def load_run(path: str | Path) -> "LoadedRun":
    """A run directory as polars frames, verdicts and charts; a notebook shows it.

    Args:
        path: What `vlsm-harness run` wrote.
    """
    from harness.report.loaded import load_run as load

    return load(path)


def load_model(
    name_or_card: str | Path, checkpoint: str | Path | None = None, device: str = "auto"
) -> "LoadedModel":
    """The model of a card with its weights; see `harness.models`."""
    from harness.models import load_model as load

    return load(name_or_card, checkpoint, device)


def wrap(function: Callable[..., Any], **settings: Any) -> "WrappedFunction":
    """A function ``f(image, prompt)`` or ``f(images, prompts)`` that returns masks, as a model.

    It needs no card, weights, threshold, preprocessing or tokenizer. `settings` are those of
    `harness.models.wrap`: ``name``, ``input`` (``array``, ``pil``, ``tensor``), ``output``,
    ``batched``, ``threshold``, ``trained_on`` and ``version``.
    """
    from harness.models import wrap as wrapped

    return wrapped(function, **settings)


def load_suite(name_or_path: str | Path) -> "Suite":
    """A suite by its name or the path of its file."""
    from harness.suite.schema import load_suite as load

    return load(name_or_path)


def relative_change(
    before: Any, after: Any, clusters: Sequence[Any] | None = None, *, seed: int = 0
) -> "RelativeChange":
    """The paper's relative Dice change in percent, with its interval.

    It is ``100 (mean(after) - mean(before)) / mean(before)`` over the same samples, with a
    studentised bootstrap of clusters; see `harness.stats.bootstrap.relative_change`.

    Example:
        >>> relative_change([0.8, 0.6, 0.7, 0.9], [0.8, 0.3, 0.7, 0.9]).percent
        -10.0
    """
    from harness.stats.bootstrap import relative_change as change

    return change(before, after, clusters, seed=seed)


def compare_language(base: str | Path, tuned: str | Path) -> "Tuning":
    """What finetuning did to a model's language: attribute by attribute kept, lost or gained.

    Args:
        base: Run directory of the model before finetuning; ``RUN#MODEL`` where it holds several.
        tuned: That of the model after it.

    Returns:
        States, figures and differences (`harness.stats.comparison.tuning`); ``sentence`` says it.

    Raises:
        UsageError: A folder is no run, or a run holds several models and none is named.
        RunError: Metrics or true masks differ.
    """
    from harness.auditing.subjects import subjects_of
    from harness.stats.comparison.tuning import compare_language as compare

    return compare(*subjects_of([str(base), str(tuned)], [], rules={}))
