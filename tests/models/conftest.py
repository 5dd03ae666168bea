"""The rules of the golden reference outputs: weights and pictures that need no file.

Conventions: keys are those of a reference checkpoint's ``state_dict``, with its
prefix (``net.`` ...); pictures are uint8 ``(side, side, 3)``.
"""

import hashlib
import json

import numpy as np
import pytest
import torch

from harness.engine.local import execute
from harness.runs.store import RunStore
from tests.engine.plain_loop import COUNTS, plain_scores


class Golden:
    """Weights drawn from their names, the reference's pictures, and the shared files."""

    @staticmethod
    def weight(key, shape):
        """Numbers drawn from a parameter's name; float32."""
        seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
        z = np.random.RandomState(seed).standard_normal(shape)
        if key.endswith("running_var"):
            z = 1 + 0.1 * np.abs(z)
        elif len(shape) < 2:
            z = 0.05 * z + float(len(shape) == 1 and key.endswith(".weight"))
        elif "patch_embedding" in key or not any(
            part in key for part in ("embedding", "pos_embed", "cls_token")
        ):
            z = z - z.mean(axis=tuple(range(1, len(shape))), keepdims=True)
            z = z * (1.4 if len(shape) == 4 else 1.0) / np.sqrt(np.prod(shape[1:]))
        return torch.from_numpy(np.asarray(z, dtype=np.float32).reshape(shape))

    @classmethod
    def state(cls, module, *, prefix="net."):
        """A state dict for `module` whose keys carry `prefix` in a reference checkpoint."""
        return {
            key: cls.weight(prefix + key, value.shape)
            if value.is_floating_point()
            else torch.zeros_like(value)
            for key, value in module.state_dict().items()
        }

    @classmethod
    def fill(cls, module, *, prefix="net."):
        """Give `module` the weights of `state`."""
        module.load_state_dict(cls.state(module, prefix=prefix), strict=True)

    @classmethod
    def save_checkpoint(cls, path, module, *, prefix="net."):
        """The same weights as a file in the layout of a reference ``.ckpt``."""
        state = {prefix + key: value for key, value in cls.state(module, prefix=prefix).items()}
        torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": {"lr": 2e-3}}, path)
        return path

    @staticmethod
    def shapes(module, *, prefix="net."):
        """Key and shape of every tensor, as a reference checkpoint names it."""
        return {prefix + key: list(value.shape) for key, value in module.state_dict().items()}

    @staticmethod
    def keys(path):
        """The same from a ``keys.json`` of the shared folder."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: value["shape"] for key, value in content.items()}

    @staticmethod
    def picture(side):
        """A gradient with an ellipse and noise: image 1 of the golden reference outputs."""
        y, x = np.mgrid[0:side, 0:side]
        cx, cy, rx, ry = (percent * side // 100 for percent in (62, 45, 18, 13))
        inside = ((x - cx) * ry) ** 2 + ((y - cy) * rx) ** 2 <= (rx * ry) ** 2
        base = [120 + 80 * x // side, 60 + 50 * y // side, 50 + 20 * (x + y) // side]
        noise = np.random.RandomState(11).randint(0, 12, (side, side, 3))
        image = np.stack(base, -1) + inside[..., None] * np.array([40, 25, 35]) + noise
        return image.astype(np.uint8)

    @staticmethod
    def rows(features, places):
        """Some rows of a model's features."""
        return type(features)(*(leaf[places] for leaf in features))


@pytest.fixture(scope="session")
def golden():
    """The rules, for tests of every model."""
    return Golden


@pytest.fixture
def engine_is_plain(tmp_path, photo_root, planned):
    """A function that runs a suite in the engine and in the plain loop, and compares counts."""

    def compare(model, *, suite="random_word"):
        chosen, _, plan = planned(suite, limit=1)
        store = RunStore(tmp_path / "engine")
        store.open(plan, chosen)
        execute(store, model, root=photo_root, metric=chosen.metric, batch_size=16)
        plain = plain_scores(plan.cases, model, root=photo_root, metric=chosen.metric)
        joined = plain.join(store.scores(), on="case_id", suffix="_engine")
        assert joined.height == plan.cases.height > 40
        for count in COUNTS:
            gap = (joined[count] - joined[f"{count}_engine"]).abs().fill_null(0)
            assert (gap <= joined["n_near"]).all(), count
        return joined

    return compare
