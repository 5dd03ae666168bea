"""Small medical-looking scenes whose every attribute is known: calibration for audits.

Three sets, generated without a picture of any patient. In `phantom_solo` an image
shows one lesion, so that language is redundant, as in most real sets. In
`phantom_crowd` it shows two to four (or, once in six scenes, a group of equal lesions
and its like) and the prompt names one. In `phantom_pairs` it shows two that differ in
one attribute alone: size, colour, shape, location or number. Each pair serves twice,
once per target, so that a mask that ignores the prompt cannot exceed a Dice of 2/3:
let it cover x pixels of one target and y of the other; its two Dice sum to at most
``2x/(2x + y) + 2y/(2y + x)``, which is largest at x = y, where it is 4/3. In the same
way no such mask exceeds a mean of ``2/(n + 1)`` over the n targets of a crowd's scene.

Conventions: 96 x 96 px, RGB uint8; masks bool, disjoint. A scene is a pure function of
(data set, split, index, seed), the same to the last bit on every machine; the streams
of two splits share nothing. `frozen` holds the hashes that guard this.
"""

from harness.data.phantom.arrangement import DATASETS, SPLITS
from harness.data.phantom.files import TEST_SCENES, write_phantom
from harness.data.phantom.lessons import Lesson, lessons, meant
from harness.data.phantom.scenes import Scene, make_scene
from harness.data.phantom.sheet import contact_sheet

__all__ = [
    "DATASETS",
    "SPLITS",
    "TEST_SCENES",
    "Lesson",
    "Scene",
    "contact_sheet",
    "lessons",
    "make_scene",
    "meant",
    "write_phantom",
]
