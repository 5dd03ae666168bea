#!/usr/bin/env bash
# An empty mask for a target that is not there is the right answer. torchmetrics' DiceScore leaves
# such a pair out of its mean (NaN), GeneralizedDiceScore of the same module counts it as 0: there a
# model that refuses every absent target scores as one that paints for each.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0
env/bin/python -W ignore - <<'PYTHON'
import math
from importlib.metadata import version

import torch
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore

target = torch.zeros(1, 8, 8, dtype=torch.long)
target[:, :4] = 1
nothing = torch.zeros_like(target)
answers = {
    "found, and refused": [(target, target), (nothing, nothing)],
    "found, and painted": [(target, target), (target, nothing)],
    "refused": [(nothing, nothing)],
}
found = {}
for name, pairs in answers.items():
    for metric in (DiceScore, GeneralizedDiceScore):
        one = metric(num_classes=2, include_background=False, input_format="index")
        for prediction, truth in pairs:
            one.update(prediction, truth)
        found[name, metric.__name__] = float(one.compute())
print(f"torchmetrics {version('torchmetrics')}:", found)
dice = [found[name, "DiceScore"] for name in answers]
generalized = [found[name, "GeneralizedDiceScore"] for name in answers]
same = dice[:2] == [1.0, 0.5] and math.isnan(dice[2]) and generalized == [0.5, 0.5, 0.0]
raise SystemExit(0 if same else "the behaviour changed")
PYTHON
