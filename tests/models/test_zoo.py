"""Every family, in a small random configuration, through the whole audit: `run paper`."""

import pytest
import yaml

from harness.cards import load_model_card, model_names
from tests.models.test_boxes_of_detectors import CARDS as DETECTORS
from tests.models.test_clipseg import TINY as CLIPSEG
from tests.models.test_florence2 import SMALL as FLORENCE
from tests.models.test_grounded_sam import SEGMENTER
from tests.models.test_grounded_sam import SMALL as GROUNDED
from tests.models.test_sam3 import TINY as SAM3
from tests.models.test_sam3_finetuned import LITE

CRIS = load_model_card("phantom-cris-solo").card.settings
# The words of the published vocabulary, where its package is installed.
LITE_TOWERS = {"input_size": 64, "width": 16, "text": {"hidden_size": 32, "intermediate_size": 64}}
LITE_TOWERS["text"] |= {"num_hidden_layers": 1, "num_attention_heads": 4}
ZOO = {
    "clipseg": CLIPSEG,
    "clipseg-zero-shot": CLIPSEG,
    "clipseg-hub": CLIPSEG,
    "cris": CRIS,
    "cris-zero-shot": CRIS,
    "tunevlseg-cris": CRIS,
    "sam3": {"config": SAM3},
    "sam3-medical": {"config": SAM3},
    "sam3-lora": {"config": SAM3},
    "sam3-lite-text": {"config": LITE},
    "grounded-sam": GROUNDED,
    **{name: settings | {"segmenter": SEGMENTER} for name, settings in DETECTORS.items()},
    "florence2": FLORENCE,
    "lite-film": LITE_TOWERS,
    "lite-cross": LITE_TOWERS | {"fusion": "cross"},
    "lite-image-only": {"input_size": 64, "width": 16},
    "unet": {"input_size": 64},
    "unetplusplus": {"input_size": 64},
    "deeplabv3plus": {"input_size": 64},
    "image-only": {"input_size": 64},
}
# Others are small as they ship, or the same with another name of the same small configuration.
SHIPPED_SMALL = [n for n in sorted(model_names()) if n.endswith("-small") or n.startswith("lite-")]
AS_SMALL = {
    "vlsm-adapter": "vlsm-adapter-small",
    "tunevlseg": "tunevlseg-small",
    "medclipseg": "medclipseg-small",
    "biomedclipseg": "biomedclipseg-small",
    "biomedclipseg-d": "biomedclipseg-small",
}


def test_the_zoo_is_whole():
    shipped = {name for name in model_names() if not name.startswith("phantom-")}
    assert shipped - {"template"} == {*ZOO, *SHIPPED_SMALL, *AS_SMALL}


@pytest.mark.slow
def test_run_paper_completes_for_each(tmp_path, call):
    cards = [*SHIPPED_SMALL]
    for name, settings in ZOO.items():
        card = {"extends": name, "name": f"{name}-tiny", "settings": settings}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(card))
        cards.append(str(path))
    models = [part for card in cards for part in ("--model", card)]
    places = ["--data-root", tmp_path / "data", "--out", tmp_path / "run"]
    code, out, err = call(
        *("run", "paper", "--random-weights", "--datasets", "phantom_crowd", "--limit", "1"),
        *map(str, places),
        *models,
    )
    assert code == 0, err
    assert all(name.removesuffix(".yaml").rpartition("/")[2] in out for name in cards)
