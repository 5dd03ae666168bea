"""One model being finetuned, in the form that Lightning trains.

Conventions: a Lightning batch is a tensor of indices into `Examples`; Dice is per
image at the model's input size, empty with empty is 1 (the reference's rule);
times are seconds.
"""

import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.nn.functional import interpolate
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric
from torchmetrics.functional.segmentation import dice_score

from harness.errors import CardError, ModelError, RunError, UsageError
from harness.files.pickles import DAMAGE
from harness.model.contract import Features, PartlyTrainable, PredictOnly
from harness.model.loading import LoadedModel
from harness.training.encoded import EncodedOnce, is_settled
from harness.training.examples import Batch, Examples
from harness.training.recipe import Recipe, segmentation_loss, stages

EpochReport = Callable[[Mapping[str, float]], None]


_LAST = "last"
"""Name of the file of the last whole epoch."""


def trained_parameters(model: LoadedModel, *, freeze: str = "") -> list[torch.nn.Parameter]:
    """Choose what the card's `trainable` asks for; freeze everything else, in evaluation mode.

    With `freeze` the parameters behind the features of these stages (``text``, ``image``, or both
    with a comma) stay as they are, too.
    """
    module = model.adapter.module
    if model.card.trainable == "all":
        chosen = list(module.train().requires_grad_(True).parameters())
    else:
        if not isinstance(model.raw, PartlyTrainable):
            raise CardError(
                f"{model.resolved.path}: trainable: the adapter {type(model.raw).__name__!r} does "
                "not say which part its decoder is. 'decoder' needs the method 'decoder_modules'. "
                "Add it, or set 'trainable: all'."
            )
        module.eval().requires_grad_(False)
        parts = model.raw.decoder_modules()
        chosen = [p for part in parts for p in part.train().requires_grad_(True).parameters()]
    frozen: set[int] = set()
    for stage in stages(freeze):
        frozen |= set(map(id, _freeze(model, stage)))
    return [parameter for parameter in chosen if id(parameter) not in frozen]


def _freeze(model: LoadedModel, stage: str) -> list[torch.nn.Parameter]:
    """Freeze whatever a stage's features depend on."""
    module = model.adapter.module
    if isinstance(model.adapter, PredictOnly):
        raise CardError(
            f"{model.resolved.path}: the adapter offers 'predict' alone, which has no {stage} "
            f"stage to freeze. A staged adapter is needed. Train without --freeze {stage}."
        )
    frozen = _behind(model, stage)
    rest = {id(p) for p in module.parameters() if p.requires_grad} - set(map(id, frozen))
    if frozen and not rest:
        raise CardError(
            f"{model.resolved.path}: the {stage} features depend on all that would be trained. "
            f"With the {stage} frozen something must be left. Train without --freeze {stage}."
        )
    for parameter in frozen:
        parameter.requires_grad_(False)
    for part in module.modules():
        own = list(part.parameters())
        if own and not any(p.requires_grad for p in own):
            part.eval()
    return frozen


def _behind(model: LoadedModel, stage: str) -> list[torch.nn.Parameter]:
    """The trained parameters that a stage's features depend on, found by their gradients."""
    leaves = [leaf.float().sum() for leaf in _tried(model, stage) if leaf.requires_grad]
    if not leaves:
        return []  # nothing that is trained lies behind them
    parameters = [p for p in model.adapter.module.parameters() if p.requires_grad]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        torch.stack(leaves).sum(), parameters, allow_unused=True
    )
    return [p for p, g in zip(parameters, gradients, strict=True) if g is not None]


def parameter_groups(
    model: LoadedModel, parameters: Sequence[torch.nn.Parameter], recipe: Recipe
) -> list[dict[str, Any]]:
    """The trained parameters with their learning rates: the text tower's may be its own."""
    if recipe.text_learning_rate is None:
        return [{"params": list(parameters), "lr": recipe.learning_rate}]
    text = set(map(id, _behind(model, "text")))
    if not text:
        raise UsageError(
            f"{model.resolved.path}: a learning rate of the text tower is given, and nothing that "
            "is trained lies behind the text's features. Leave --text-learning-rate out, or train "
            "the text tower."
        )
    groups = [
        {"params": [p for p in parameters if id(p) not in text], "lr": recipe.learning_rate},
        {"params": [p for p in parameters if id(p) in text], "lr": recipe.text_learning_rate},
    ]
    return [group for group in groups if group["params"]]


def _tried(model: LoadedModel, stage: str) -> Features:
    """Features of a stage from whatever input; batch norm does not count it in."""
    module = model.adapter.module
    trained = [part for part in module.modules() if part.training]
    module.eval()
    try:
        return _trial(model, stage)([0, 1])
    finally:
        for part in trained:
            part.training = True


def _trial(model: LoadedModel, stage: str) -> Callable[[Sequence[int]], Features]:
    """A stage on two inputs, by their places."""
    adapter = model.adapter
    if stage == "text":
        texts = ("polyp", "one large pink polyp")
        return lambda places: adapter.encode_texts([texts[place] for place in places])
    pixels = torch.linspace(-1, 1, 6, device=model.device).view(2, 3, 1, 1)
    pictures = pixels.expand(2, 3, *adapter.input_size)
    return lambda places: adapter.encode_images(pictures[list(places)])


def _kept_stages(model: LoadedModel, recipe: Recipe) -> dict[str, EncodedOnce]:
    """The frozen stages that give the same features in every epoch."""
    is_varied = recipe.photometric or recipe.flip
    return {
        stage: EncodedOnce()
        for stage in stages(recipe.freeze)
        if not (stage == "image" and is_varied) and is_settled(_trial(model, stage))
    }


class Trainee(pl.LightningModule):  # type: ignore[misc]  # Lightning is skipped by the checker
    """The model, its data and its recipe."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        train: Examples,
        val: Examples,
        recipe: Recipe,
        report: EpochReport,
    ) -> None:
        super().__init__()
        self.net = model.adapter.module
        self._adapter = model.adapter
        self._threshold = model.card.threshold
        self._train_examples, self._val_examples = train, val
        self._recipe, self._report = recipe, report
        trained = trained_parameters(model, freeze=recipe.freeze)
        self._groups = parameter_groups(model, trained, recipe)
        self._kept = _kept_stages(model, recipe)
        self._elapsed_s = 0.0
        self._since = time.monotonic()
        self._restored: dict[str, Any] | None = None
        # Of the epoch in which the time was over, the share that was trained.
        self.is_out_of_time, self.done_of_epoch = False, 1.0
        self.val_dice = float("nan")
        self.best: dict[str, float] = {}
        # In a dictionary, so that they are no part of the module and stay on the CPU.
        names = ("train_loss", "val_loss", "val_dice")
        self._means = {name: MeanMetric(nan_strategy="disable") for name in names}

    @property
    def elapsed_s(self) -> float:
        """Training time, earlier sessions of the same training included."""
        return self._elapsed_s + time.monotonic() - self._since

    def _encoded(self, batch: Batch, keys: Sequence[Hashable]) -> tuple[Features, Features]:
        """Features of a batch's pictures and texts; `keys` name the pictures."""
        adapter, texts = self._adapter, batch.texts
        if (kept := self._kept.get("image")) is not None:
            images = kept.rows(
                keys, lambda n: adapter.encode_images(batch.pixels[n : n + 1].to(self.device))
            )
        else:
            images = adapter.encode_images(batch.pixels.to(self.device))
        if (kept := self._kept.get("text")) is not None:
            return images, kept.rows(texts, lambda n: adapter.encode_texts([texts[n]]))
        return images, adapter.encode_texts(texts)

    def _logits(self, batch: Batch, keys: Sequence[Hashable]) -> tuple[Tensor, Tensor]:
        """Logits and masks on the device, ``(N, H, W)`` at the masks' size."""
        logits = self._adapter.decode(*self._encoded(batch, keys))
        masks = batch.masks.to(self.device)
        if logits.shape != masks.shape:
            size = (masks.shape[1], masks.shape[2])
            logits = interpolate(logits[:, None], size=size, mode="bilinear").squeeze(1)
        return logits.float(), masks

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        recipe = self._recipe
        return segmentation_loss(
            logits, masks, cross_entropy=recipe.cross_entropy, learn_empty=recipe.negatives > 0
        )

    def training_step(self, indices: Tensor, _: int) -> Tensor:
        """The loss of one batch."""
        # Dropout then draws the same in a continued training. A hook at the start of the epoch
        # would not do: Lightning leaves it out for the first epoch after a restart.
        torch.manual_seed(self._recipe.seed + self.global_step)
        batch = self._train_examples.training_batch(indices.tolist(), epoch=self.current_epoch)
        loss = self._loss(*self._logits(batch, [("train", n) for n in indices.tolist()]))
        self._means["train_loss"].update(loss.detach().cpu(), len(indices))
        return loss

    def validation_step(self, indices: Tensor, _: int) -> None:
        """Count loss and Dice of one batch."""
        batch = self._val_examples.validation_batch(indices.tolist())
        logits, masks = self._logits(batch, [("val", n) for n in indices.tolist()])
        loss = self._loss(logits, masks)
        predicted = torch.sigmoid(logits) > self._threshold
        self._means["val_loss"].update(loss.cpu(), len(indices))
        self._means["val_dice"].update(image_dice(predicted, masks).cpu())

    def on_validation_epoch_end(self) -> None:
        """Log, report and step the schedule, before checkpoints are written.

        Lightning would step a plateau schedule after them, and a continued
        training would lose one step.
        """
        figures = {name: float(mean.compute()) for name, mean in self._means.items()}
        for mean in self._means.values():
            mean.reset()
        if not all(map(math.isfinite, figures.values())):
            raise ModelError(
                f"finetune: epoch {self.current_epoch}: the figures are {figures}. "
                "All must be finite. Lower the learning rate, which is "
                f"{self._recipe.learning_rate}, and start again in another folder."
            )
        self.val_dice = figures["val_dice"]
        self.log_dict(figures, prog_bar=True)
        self._schedule.step(figures["val_loss"])
        rate = self._optimizer.param_groups[0]["lr"]
        self._report(
            figures
            | {"epoch": self.current_epoch, "learning_rate": rate, "elapsed_s": self.elapsed_s}
        )

    def on_train_batch_end(self, _: Any, __: Any, batch_index: int) -> None:
        """Stop when the time is over, inside an epoch as well; what there is is validated."""
        limit = self._recipe.max_minutes
        if limit is not None and self.elapsed_s > 60 * limit:
            self.trainer.should_stop = self.is_out_of_time = True
            self.done_of_epoch = (batch_index + 1) / self.trainer.num_training_batches
            if self.done_of_epoch < 1:
                # A training goes on from its last whole epoch, as if it had not stopped.
                kept = [c for c in self.trainer.callbacks if getattr(c, "filename", "") != _LAST]
                self.trainer.callbacks = kept

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the trained parameters; the schedule is stepped above."""
        self._optimizer = torch.optim.AdamW(self._groups, weight_decay=self._recipe.weight_decay)
        self._schedule = ReduceLROnPlateau(
            self._optimizer,
            factor=self._recipe.plateau_factor,
            patience=self._recipe.plateau_patience,
        )
        if self._restored is not None:
            self._schedule.load_state_dict(self._restored["schedule"])
        return self._optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the schedule and the time spent."""
        checkpoint["harness"] = {
            "schedule": self._schedule.state_dict(),
            "elapsed_s": self.elapsed_s,
            "val_dice": self.val_dice,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the schedule and the clock."""
        self._restored = checkpoint["harness"]
        self._elapsed_s = self._restored["elapsed_s"]

    def on_train_start(self) -> None:
        """Start the clock."""
        self._since = time.monotonic()


def image_dice(predicted: Tensor, target: Tensor) -> Tensor:
    """Dice of each image ``(N,)`` from masks ``(N, H, W)`` bool; empty with empty is 1."""
    scores = dice_score(
        predicted[:, None].int(), target[:, None].int(), num_classes=1, average="none"
    )
    return cast(Tensor, scores).flatten().nan_to_num(nan=1.0)


def make_trainer(
    device: torch.device, recipe: Recipe, *, folder: Path, progress: bool
) -> pl.Trainer:
    """Lightning's trainer on one device, mixed precision on CUDA as in the reference.

    ``last.ckpt`` and ``best.ckpt`` go into `folder`; `progress` shows Lightning's bar.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    cuda = device.type == "cuda"
    best = ModelCheckpoint(
        folder, "best", monitor="val_dice", mode="max", enable_version_counter=False
    )
    last = ModelCheckpoint(
        folder, _LAST, save_on_train_epoch_end=True, enable_version_counter=False
    )
    stop = EarlyStopping("val_dice", mode="max", patience=recipe.stop_patience)
    return pl.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=[device.index or 0] if cuda else 1,
        precision="16-mixed" if cuda else "32-true",
        max_epochs=recipe.max_epochs,
        gradient_clip_val=recipe.clip_norm,
        callbacks=[best, last, stop],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )


def best_weights(module: torch.nn.Module, path: Path) -> dict[str, float]:
    """Load the best epoch's weights; its epoch (from 0) and validation Dice."""
    prefix = "net."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["state_dict"].items()
        own = {k.removeprefix(prefix): v for k, v in state if k.startswith(prefix)}
        module.load_state_dict(own)
        return {
            "best_epoch": int(content["epoch"]),
            "val_dice": float(content["harness"]["val_dice"]),
        }
    except (*DAMAGE, RuntimeError, AttributeError, AssertionError, MemoryError, OSError) as problem:
        reason = " ".join(str(problem).split())[:160]
        raise RunError(
            f"{path}: not the best epoch of this training ({type(problem).__name__}: {reason}). "
            "The file is written by the harness alone. Delete the folder and train again."
        ) from None
