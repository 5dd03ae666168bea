"""The registry of modalities: how each is painted, and what of the frame it shows."""

from collections.abc import Callable, Mapping, Sequence

from . import endoscopy, skin, ultrasound
from .draws import Stream
from .fields import Field
from .lesions import Spot

PAINT: Mapping[str, Callable[[Stream, Sequence[Spot]], Field]] = {
    "endoscopy": endoscopy.paint,
    "ultrasound": ultrasound.paint,
    "skin": skin.paint,
}
CLEARANCE: Mapping[str, Callable[[float, float], float]] = {
    "endoscopy": endoscopy.clearance,
    "ultrasound": ultrasound.clearance,
    "skin": skin.clearance,
}
