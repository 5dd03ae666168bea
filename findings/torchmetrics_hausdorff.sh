#!/usr/bin/env bash
# torchmetrics' hausdorff_distance is right on square masks only: on wide ones it is another number,
# without a warning (a row's stride is taken to be the height).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check uv
env/bin/uv pip install --quiet --python env/bin/python torch==2.15.0 torchmetrics==1.9.0 scipy==1.17.1
env/bin/python - <<'PYTHON'
import torch
import torchmetrics
from torchmetrics.functional.segmentation import hausdorff_distance


def distance(height, width):
    """Of one pixel at (2, 1) and one at (2, 5): 4."""
    first, second = torch.zeros((2, 1, 1, height, width), dtype=torch.long)
    first[0, 0, 2, 1] = second[0, 0, 2, 5] = 1
    return float(hausdorff_distance(first, second, num_classes=1).squeeze())


square, wide = distance(12, 12), distance(6, 12)
print(f"torchmetrics {torchmetrics.__version__}: 12 x 12: {square:.2f}, 6 x 12: {wide:.2f}; both are 4")
raise SystemExit(0 if square == 4 and wide != 4 else "the behaviour changed")
PYTHON
