"""The rules of the golden reference outputs: weights and pictures that need no file.

Conventions: keys are those of a reference checkpoint's ``state_dict``, with its
prefix (``net.`` ...); pictures are uint8 ``(side, side, 3)``.
"""

import functools
import hashlib
import json
import logging

import numpy as np
import pytest
import torch

from harness.model.contract import EncodesPairs
from harness.model.loading import load_model

LOG = logging.getLogger("parity")


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

    @classmethod
    def reference_state(cls, keys, *, alias):
        """A reference checkpoint's state dict; `alias` gives the key that a value follows."""
        made = {}
        for key, described in keys.items():
            name = alias(key)
            if name not in made:
                is_whole = "int" in described["dtype"]
                shape = tuple(described["shape"])
                made[name] = (
                    torch.zeros(shape, dtype=torch.int64) if is_whole else cls.weight(name, shape)
                )
        return {key: made[alias(key)] for key in keys}


@pytest.fixture
def equals_the_original(shared_reference, tmp_path, golden):
    """Compares a network of ``adapters/`` with ours: keys, text vectors and logits.

    The weights go through a file as Lightning writes it, with objects that only an executing
    reader could make. ``--log-cli-level INFO`` shows how far apart the logits are.
    """

    def clips_own(key):
        return key.replace("net.clip.", "net.clipseg.clip.", 1) if "net.clip." in key else key

    def compare(name, *, card):
        folder = shared_reference / "adapters"
        keys = json.loads((folder / name / "keys.json").read_text())
        manifest = json.loads((folder / name / "manifest.json").read_text())
        public = np.load(folder / "public" / f"{name}.npz")
        file = tmp_path / "best.ckpt"
        hyper = {"optimizer": functools.partial(torch.optim.AdamW, lr=1e-3), "act": torch.sigmoid}
        content = {"epoch": 1, "hyper_parameters": hyper, "pytorch-lightning_version": "2.2.5"}
        torch.save(content | {"state_dict": golden.reference_state(keys, alias=clips_own)}, file)
        model = load_model(card, checkpoint=file, device="cpu")
        file.unlink()
        assert golden.shapes(model.adapter.module) == {k: v["shape"] for k, v in keys.items()}
        side, (mean, std) = manifest["image_size"], manifest["mean_std"]
        pixels = (golden.picture(side) / np.float32(255) - np.float32(mean)) / np.float32(std)
        pixels = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        ours = model.adapter.preprocess(golden.picture(side))
        assert (pixels - ours).abs().max() < 1e-6
        with torch.inference_mode():
            image = model.adapter.encode_images(ours[None])
            modes = [key.removeprefix("input_ids_") for key in public if key.startswith("input_")]
            for mode in modes:
                ids, mask = (
                    torch.from_numpy(public[f"{key}_{mode}"]).long()
                    for key in ("input_ids", "attention_mask")
                )
                images = golden.rows(image, torch.zeros(len(ids), dtype=torch.int64))
                texts = model.raw.encode_tokens(ids, mask)
                logits = model.adapter.decode(images, texts).numpy()[:, ::7, ::7]
                apart = np.abs(logits - public[f"logits_sub_{mode}"]).max()
                allowed = manifest["suggested_atol"]
                LOG.info("%s, %s: logits %.1e apart, allowed %.0e", name, mode, apart, allowed)
                assert apart <= allowed, mode
                if isinstance(model.raw, EncodesPairs):
                    texts = model.raw.encode_pairs(images, texts)
                if "embedding" in texts._fields:
                    apart = np.abs(texts.embedding.numpy() - public[f"text_embed_{mode}"]).max()
                    assert apart <= 5e-5, mode
        return len(modes)

    return compare


@pytest.fixture(scope="session")
def golden():
    """The rules, for tests of every model."""
    return Golden
