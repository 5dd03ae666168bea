"""Finetunes a model of a card on datasets and writes a card for the result.

The folder it fills::

    training.json          what is being trained on what; a continued training must agree
    checkpoints/last.ckpt  Lightning's own, to continue from
    checkpoints/best.ckpt  the epoch with the best validation Dice
    model.safetensors      its weights
    card.yaml              ``extends`` the base card; this is what to give to ``run``
    figures.json           times in seconds, mean Dice per image at the input size, settings
"""

import contextlib
import dataclasses
import os
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.cards import PROMPT_TYPES, DatasetCard, load_dataset_card, load_model_card
from harness.data import load_samples
from harness.data.layout import fingerprint
from harness.errors import DataError, RunError, UsageError
from harness.files import read_yaml
from harness.files.canonical import read_object
from harness.files.writing import (
    make_folder,
    refuse_unwritable,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from harness.model.loading import LoadedModel, load_model
from harness.model.sampling import Sampled
from harness.records import Sample
from harness.training.examples import Examples, Shuffled
from harness.training.negatives import AbsentPrompts
from harness.training.recipe import STAGES, Recipe, stages

if TYPE_CHECKING:
    from harness.training.trainee import EpochReport, Trainee

# Settings that only say when to stop: a training may be continued with others.
_LIMITS = ("max_epochs", "max_minutes")
# And those that change no weight.
_NO_MATTER = (*_LIMITS, "model_name")


@dataclass(frozen=True)
class Finetuned:
    """The outcome: the new card, the figures of ``figures.json``, what became of earlier ones."""

    card: Path
    figures: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Data:
    """Samples of all datasets with the prompt type each is trained with."""

    cards: list[DatasetCard]
    train: list[Sample]
    val: list[Sample]
    prompt_types: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [card.name for card in self.cards]

    def examples(self, samples: Sequence[Sample], model: LoadedModel, recipe: Recipe) -> Examples:
        types = [self.prompt_types[sample.dataset] for sample in samples]
        negatives = None
        if recipe.negatives and samples is self.train:
            negatives = AbsentPrompts(self.cards, samples, self.prompt_types, recipe.negative_kinds)
        return Examples(
            samples, model.adapter, prompt_types=types, recipe=recipe, negatives=negatives
        )


def finetune(
    model: str | Path,
    datasets: Sequence[str | Path],
    *,
    out: Path,
    data_root: Path,
    prompt_type: str | None = None,
    recipe: Recipe | None = None,
    device: str = "auto",
    report: "EpochReport | None" = None,
) -> Finetuned:
    """Train a model on the train splits, keep its best epoch on the val splits.

    A card without weights is trained from random numbers. Issued again, the same call continues
    after the last finished epoch; a finished training is returned as it stands.

    Args:
        model: Name or path of the card to start from.
        datasets: Names or paths of dataset cards; several are pooled.
        out: Folder to fill.
        data_root: Folder above the datasets' own.
        prompt_type: A rung, several (``p0,p3``, ``p0..p9``), or ``random`` for all but the empty
            one; the dataset card's own when None. Of list prompts one is drawn each time.
        recipe: Settings; the reference's when None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        report: Called after each epoch with its figures; None shows Lightning's progress bar.
    """
    refuse_unwritable(out, is_folder=True)
    _require_lightning()
    recipe = recipe or Recipe()
    _check_recipe(recipe)
    base = load_model_card(model)
    own_name = _checked_name(recipe.model_name, out)
    data = _read(datasets, data_root, prompt_type)
    scratch = base.card.weights is None and base.card.checkpoint is None
    loaded = load_model(base, device=device, random_weights=scratch, seed=recipe.seed)
    _refuse_makeshifts(loaded)
    _refuse_sampling(loaded)
    _refuse_bare(loaded)
    notes = _earlier(out, own_name)
    finished = _begin(out, identity=_identity(loaded, data, recipe), recipe=recipe)
    if finished is not None:
        _rename(out / "card.yaml", own_name)
        return Finetuned(out / "card.yaml", finished, (_ENDED.format(out=out), *notes[1:]))
    trainee = _train(loaded, data, recipe, out=out, report=report)
    weights_sha256 = _write_weights(loaded, out)
    _write_card(model, loaded, data, recipe, out=out, name=own_name, sha256=weights_sha256)
    figures = _figures(trainee, loaded, data, recipe) | {"weights_sha256": weights_sha256}
    write_json(out / "figures.json", figures)
    return Finetuned(out / "card.yaml", figures, notes)


def _require_lightning() -> None:
    try:
        import lightning.pytorch  # noqa: F401
    except ImportError as problem:
        raise UsageError(
            f"finetune: the library 'lightning' cannot be imported ({problem}). Training needs it. "
            "Install it with `pip install 'vlsm-harness[train]'`."
        ) from None


def _refuse_makeshifts(model: LoadedModel) -> None:
    """What is good enough for random weights must not be trained into real ones."""
    for note in model.notes:
        if note.untrained_only:
            raise UsageError(f"finetune: {model.resolved.path}: {note.text}")


def _refuse_sampling(model: LoadedModel) -> None:
    """What is trained here is not the mean of samples."""
    if isinstance(model.adapter, Sampled):
        raise UsageError(
            f"finetune: {model.resolved.path}: the model draws random numbers, and its own "
            "training is not offered here. A model without sampling is needed. Train it with its "
            "authors' code and give the file as --model CARD=FILE."
        )


def _refuse_bare(model: LoadedModel) -> None:
    """A function keeps its weights to itself."""
    if not any(True for _ in model.adapter.module.parameters()):
        raise UsageError(
            f"finetune: {model.resolved.path}: the model shows no parameters, so that nothing can "
            "be trained here. An adapter whose `module` holds its weights is needed. Train the "
            "function with its own code, or write an adapter (models/README.md)."
        )


def _check_recipe(recipe: Recipe) -> None:
    for name in ("negatives", "prompt_dropout"):
        share = getattr(recipe, name)
        if not 0 <= share < 1:
            raise UsageError(
                f"finetune: {name}: found {share}. A share of the examples is needed, at least 0 "
                "and below 1. Correct it."
            )
    if recipe.negative_kinds and not recipe.negatives:
        raise UsageError(
            "finetune: kinds of negatives are named, and the share of negatives is 0. Both or "
            "neither are needed. Give --negatives 0.2, or leave the kinds out."
        )
    named = stages(recipe.freeze)
    if set(named) - set(STAGES) or len(named) != len(set(named)):
        raise UsageError(
            f"finetune: freeze: found {recipe.freeze!r}. The stages that can be left untrained are "
            "'text' and 'image'. Give one of them, both with a comma, or nothing."
        )


_ENDED = "{out}: the training had ended; nothing was trained again."


def _earlier(out: Path, name: str) -> tuple[str, ...]:
    """What becomes of an earlier training in the folder; first that it goes on."""
    if not (out / "checkpoints" / "last.ckpt").is_file():
        return ()
    ended = (out / "figures.json").is_file()
    anew = "; the card and the weights that it had ended with were written anew" if ended else ""
    before = _name_in(out / "card.yaml")
    renamed = f"{out}: the model was called {before!r} and is now called {name!r}."
    notes = (f"{out}: the training that was begun here went on{anew}.",)
    return (*notes, renamed) if before not in (None, name) else notes


def _name_in(card: Path) -> str | None:
    name = read_yaml(card).data.get("name") if card.is_file() else None
    return name if isinstance(name, str) else None


def _checked_name(asked: str | None, out: Path) -> str:
    """The name that is asked for, else that of the card that is there, else the folder's."""
    asked = _name_in(out / "card.yaml") if asked is None else asked
    name = out.resolve().name if asked is None else asked
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        found = f"the folder's name {name!r} becomes" if asked is None else f"{name!r} cannot be"
        raise UsageError(
            f"finetune: {found} the model's name. A name holds letters, digits, '-', '_' and '.' "
            "only, and does not begin with a dot. Choose another --name."
        )
    return name


def _rename(card: Path, name: str) -> None:
    """Of a card that was written before; else it stays as it is."""
    content = yaml.safe_load(card.read_text(encoding="utf-8"))
    write_text(card, _card_text(content | {"name": name}))


def _card_text(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)


def _read(datasets: Sequence[str | Path], root: Path, prompt_type: str | None) -> _Data:
    cards = [load_dataset_card(name) for name in datasets]
    for card in cards:
        for split in ("train", "val"):
            if split not in card.splits:
                raise DataError(
                    f"{card.name}: there is no {split!r} split, only "
                    f"{', '.join(map(repr, card.splits))}. Training needs 'train' and 'val'. "
                    "Give its table a column 'split' that says which row is which and read it "
                    "anew (`vlsm-harness data init FOLDER --overwrite`), or take another data set."
                )

    def pooled(split: str) -> list[Sample]:
        return [sample for card in cards for sample in load_samples(card, root, split)]

    return _Data(
        cards=cards,
        train=pooled("train"),
        val=pooled("val"),
        prompt_types={card.name: prompt_type or card.prompt_type for card in cards},
    )


def _identity(model: LoadedModel, data: _Data, recipe: Recipe) -> dict[str, Any]:
    """What must be equal for two calls to be one training."""
    settings = {k: v for k, v in _plain(recipe).items() if k not in _NO_MATTER}
    return {
        "model": model.model_id,
        "prompt_types": data.prompt_types,
        "train": fingerprint(data.train),
        "val": fingerprint(data.val),
        **{f"recipe.{key}": value for key, value in settings.items()},
    }


def _begin(out: Path, *, identity: dict[str, Any], recipe: Recipe) -> dict[str, Any] | None:
    """Claim the folder; the figures of a training that has already ended under these limits."""
    make_folder(out / "checkpoints")
    claim = out / "training.json"
    if claim.is_file():
        found = _read_record(claim)
        other = sorted(key for key in identity if found.get(key) != identity[key])
        if other:
            key = other[0]
            raise RunError(
                f"{claim}: another training was begun here: its {key!r} is {found.get(key)!r}, "
                f"this one's {identity[key]!r}. A folder holds one training. Choose another --out, "
                "or delete the folder."
            )
    write_json(claim, identity)
    ended = out / "figures.json"
    if not ended.is_file():
        return None
    figures = _read_record(ended)
    limits = {key: getattr(recipe, key) for key in _LIMITS}
    before = figures.get("recipe")
    is_same = isinstance(before, dict) and all(before.get(k) == v for k, v in limits.items())
    return figures if is_same else None


def _read_record(path: Path) -> dict[str, Any]:
    """What an earlier call wrote."""
    repair = "Start again in another --out, or delete the folder."
    return read_object(path, error=RunError, missing=repair, repair=repair)


def _train(
    model: LoadedModel, data: _Data, recipe: Recipe, *, out: Path, report: "EpochReport | None"
) -> "Trainee":
    """Run Lightning to the end and leave the best epoch's weights in the model."""
    import torch
    from torch.utils.data import DataLoader

    from harness.training.trainee import Trainee, best_weights, make_trainer

    trainee = Trainee(
        model,
        train=data.examples(data.train, model, recipe),
        val=data.examples(data.val, model, recipe),
        recipe=recipe,
        report=report or (lambda figures: None),
    )
    folder = out / "checkpoints"
    trainer = make_trainer(model.device, recipe, folder=folder, progress=report is None)
    order = Shuffled(len(data.train), seed=recipe.seed)
    size = recipe.batch_size
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        # Pictures lie in memory: loader processes would copy them and gain nothing.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # Lightning itself uses what torch deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        # The folder is full when a training continues; frozen parts stay in evaluation mode.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training")
        with writing(out), _own_interrupts():
            trainer.fit(
                trainee,
                DataLoader(torch.arange(len(data.train)), batch_size=size, sampler=order),  # type: ignore[arg-type]
                DataLoader(torch.arange(len(data.val)), batch_size=size),  # type: ignore[arg-type]
                ckpt_path=last if last.is_file() else None,
                weights_only=True,
            )
    trainee.best = best_weights(model.adapter.module, folder / "best.ckpt")
    return trainee


@contextlib.contextmanager
def _own_interrupts() -> Iterator[None]:
    """Let Ctrl-C end as such: Lightning turns it into exit code 1 and mutes the signal."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


def _write_weights(model: LoadedModel, out: Path) -> str:
    from safetensors.torch import save

    from harness.weights.loading import file_sha256

    state = model.adapter.module.state_dict()
    # Tied weights share memory, which safetensors refuses.
    own = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    path = out / "model.safetensors"
    write_bytes(path, save(own))
    return file_sha256(path)


def _write_card(
    base_name: str | Path,
    loaded: LoadedModel,
    data: _Data,
    recipe: Recipe,
    *,
    out: Path,
    name: str,
    sha256: str,
) -> None:
    types = set(data.prompt_types.values())
    prompt_type = types.pop() if len(types) == 1 else None
    card = {
        "extends": _reference(base_name, loaded, out),
        "name": name,
        "title": f"{loaded.card.title}, finetuned on {', '.join(data.names)}",
        "checkpoint": {"path": "model.safetensors", "sha256": sha256},
        "trained_on": data.names,
        "prompt_type": prompt_type if prompt_type in PROMPT_TYPES else None,
        "threshold": loaded.card.threshold,
        "training": {"prompt_types": data.prompt_types, **_settings(recipe)},
    }
    given = {key: value for key, value in card.items() if value is not None}
    write_text(out / "card.yaml", _card_text(given))


def _settings(recipe: Recipe) -> dict[str, Any]:
    """What is not its default."""
    default = _plain(Recipe(model_name=recipe.model_name))
    return {key: value for key, value in _plain(recipe).items() if value != default[key]}


def _plain(recipe: Recipe) -> dict[str, Any]:
    """As JSON and YAML give it back: they know no tuples."""
    own = dataclasses.asdict(recipe)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}


def _reference(base_name: str | Path, loaded: LoadedModel, out: Path) -> str:
    """How the new card names its base: a built-in by name, a file by its relative path."""
    path = loaded.resolved.path
    if Path(base_name).suffix in {".yaml", ".yml"} or Path(base_name).is_dir():
        return os.path.relpath(path.resolve(), out.resolve())
    return str(base_name)


def _figures(trainee: "Trainee", model: LoadedModel, data: _Data, recipe: Recipe) -> dict[str, Any]:
    parameters = list(model.adapter.module.parameters())
    stopped = None
    if trainee.is_out_of_time:
        stopped = round(trainee.current_epoch - 1 + trainee.done_of_epoch, 3)
    return {
        **trainee.best,
        "epochs": trainee.current_epoch,
        **({"stopped_after_epochs": stopped} if stopped is not None else {}),
        "elapsed_s": round(trainee.elapsed_s, 1),
        "n_train": len(data.train),
        "n_val": len(data.val),
        "n_parameters": sum(p.numel() for p in parameters),
        "n_parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "trained_on": data.names,
        "prompt_types": data.prompt_types,
        "device": str(model.device),
        "recipe": _plain(recipe),
    }
