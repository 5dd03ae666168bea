"""COCO instances and referring expressions (RefCOCO's and gRefCOCO's fields).

Conventions: instances of one class in one picture are one target, whose prompt is the name of the
class; crowds belong to it. Annotations with sentences of their own (a key such as `caption`) are
a target for each of these. A referring expression has a target of its own: the instances of its
`ann_id`, with all of its sentences; one that names nothing (`no_target`, or an `ann_id` of -1)
keeps its row with an empty mask. Polygons are drawn by pycocotools, whose pixels the field counts.
"""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.decoding import MAX_PIXELS
from harness.data.formats.entries import CLASS_ONLY, SENTENCE, Choices, Entry, Found, Made, png
from harness.data.formats.files import Files, split_name, split_of
from harness.data.formats.rows import ROLES, texts_of
from harness.data.rle import decode_rle
from harness.errors import DataError, UsageError, choose
from harness.files.canonical import MAX_JSON_BYTES, cut, read_bytes, read_json
from harness.files.pickles import DAMAGE, Unknown, read_pickle

_IMAGE = '{"id": 7, "file_name": "7.jpg", "height": 480, "width": 640}'
_ANNOTATION = (
    '{"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[10, 10, 90, 10, 50, 80]]}'
)
_CATEGORY = '{"id": 3, "name": "polyp"}'
_REF = '{"ref_id": 0, "ann_id": 1, "image_id": 7, "sentences": [{"sent": "the left polyp"}]}'
_MOST_POINTS = 1_000_000


@dataclass(frozen=True)
class _Instances:
    """One file of instances."""

    path: PurePosixPath
    images: Mapping[Any, Mapping[str, Any]]
    annotations: Mapping[Any, Mapping[str, Any]]
    categories: Mapping[Any, str]

    def where(self, annotation: Mapping[str, Any]) -> str:
        """The place of an annotation, for messages."""
        return f"{self.path}: annotation {annotation['id']}"


def read_coco(files: Files, choices: Choices) -> Found | None:
    """The targets of a folder's COCO files, or None where there are no such files.

    Raises:
        DataError: A field is missing or of the wrong kind; the message names file and key.
    """
    contents = _contents(files)
    instances = [_instances(path, c) for path, c in contents if _are_instances(c)]
    if not instances:
        return None
    listed = _chosen([(path, c) for path, c in contents if _are_refs(c)], choices)
    if listed:
        entries = [e for path, refs in listed for e in _referred(files, path, refs, instances)]
        nothing = sum(entry.mask is None for entry in entries)
        notes = [f"{nothing} expressions name nothing: they are kept, with empty masks."]
        source = [str(path) for path, _ in listed] + [str(one.path) for one in instances]
        gaps = tuple(notes if nothing else ())
        return Found("refcoco", ", ".join(source), tuple(entries), gaps=gaps)
    entries, notes = [], []
    for one in instances:
        found, bare = _of_classes(files, one)
        entries += found
        if bare:
            kept = "are kept, with empty masks" if len(one.categories) == 1 else "are left out"
            notes.append(f"{one.path}: {bare} pictures without an annotation {kept}.")
    sources = ", ".join(str(one.path) for one in instances)
    return Found("coco", sources, tuple(entries), gaps=tuple(notes))


def _chosen(
    listed: list[tuple[PurePosixPath, Any]], choices: Choices
) -> list[tuple[PurePosixPath, Any]]:
    """Of lists that refer to the same targets, each with its own splits, the one that is meant."""
    targets = [
        {(str(one.get("image_id")), str(one.get("ann_id"))) for one in c if isinstance(one, dict)}
        for _, c in listed
    ]
    if sum(map(len, targets)) == len(set().union(*targets)):
        return listed
    names = {str(path): (path, content) for path, content in listed}
    default = next((name for name in names if "unc" in name), next(iter(names)))
    answer = choices.ask(
        f"{', '.join(names)} refer to the same targets, with splits of their own: which one is "
        "meant?",
        default,
    )
    return [names[choose(answer, names, kind="file", where="references", error=UsageError)]]


def _contents(files: Files) -> list[tuple[PurePosixPath, Any]]:
    found: list[tuple[PurePosixPath, Any]] = []
    for path in files.paths:
        place = files.path(path)
        if path.suffix.lower() == ".json":
            # What is no JSON may belong to something else; where nothing else is there, the
            # reader of tables says what is wrong with it.
            with suppress(DataError):
                content = read_json(
                    place, error=DataError, missing="", repair="Export the annotations again."
                )
                found.append((path, content))
        elif path.suffix.lower() in {".p", ".pkl", ".pickle"}:
            found.append((path, _unpickled(place)))
    return found


def _unpickled(path: Path) -> Any:
    """RefCOCO's lists are shared as pickles; they are read as data, and nothing in them is run."""
    content = read_bytes(path, most=MAX_JSON_BYTES, error=DataError, missing="Correct the path.")
    try:
        return read_pickle(io.BytesIO(content), builders={}, persistent=lambda _: Unknown())
    except DAMAGE as problem:
        raise DataError(
            f"{path}: no whole pickle ({str(problem)[:120]}). A list of references, as in "
            f"RefCOCO's refs(unc).p, is needed, or the same as JSON: [{_REF}]. Copy the file again."
        ) from None


def _are_instances(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return False
    listed = content.get("annotations")
    # Captions have the same form, and no segmentation.
    return isinstance(listed, list) and any(
        isinstance(one, dict) and "segmentation" in one for one in listed
    )


def _are_refs(content: Any) -> bool:
    return bool(
        isinstance(content, list)
        and content
        and isinstance(content[0], dict)
        and {"sentences", "image_id"} <= content[0].keys()
    )


def _instances(path: PurePosixPath, content: Mapping[str, Any]) -> _Instances:
    categories = content.get("categories")
    images = _by_id(path, "images", content["images"], _IMAGE)
    for number, image in images.items():
        _check_image(f"{path}: image {number}", image)
    return _Instances(
        path,
        images,
        _by_id(path, "annotations", content["annotations"], _ANNOTATION),
        {
            key: _need(one, "name", str, f"{path}: category {key}", _CATEGORY)
            for key, one in _by_id(path, "categories", categories or [], _CATEGORY).items()
        },
    )


def _check_image(where: str, image: Mapping[str, Any]) -> None:
    _need(image, "file_name", str, where, _IMAGE)
    sides = [_need(image, key, int, where, _IMAGE) for key in ("height", "width")]
    if min(sides) < 1 or sides[0] * sides[1] > MAX_PIXELS:
        raise DataError(
            f"{where}: {sides[1]} x {sides[0]} pixels. From 1 to {MAX_PIXELS} are read. Correct "
            "`width` and `height`."
        )


def _by_id(path: PurePosixPath, key: str, listed: Any, example: str) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for number, one in enumerate(listed if isinstance(listed, list) else [listed]):
        where = f"{path}: {key}[{number}]"
        if not isinstance(one, dict):
            raise DataError(f"{where}: found {cut(repr(one))}. It is an object such as {example}.")
        name = _need(one, "id", int | str, where, example)
        if name in found:
            raise DataError(
                f"{where}: 'id' is {name!r}, as of an earlier one. Ids tell them apart. Number "
                f"them anew: {example}."
            )
        found[name] = one
    return found


def _need(one: Mapping[str, Any], key: str, kind: Any, where: str, example: str) -> Any:
    value = one.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        name = getattr(kind, "__name__", "number")
        raise DataError(
            f"{where}: {key!r} is {cut(repr(value))}. A {name} is needed, as in {example}. Add the "
            "key or repair its value."
        )
    return value


def _of_classes(files: Files, one: _Instances) -> tuple[list[Entry], int]:
    """A target for each class of each picture; and how many pictures have none."""
    groups: dict[tuple[Any, Any, tuple[str, ...]], list[Mapping[str, Any]]] = {}
    for annotation in one.annotations.values():
        where = one.where(annotation)
        image = _need(annotation, "image_id", int | str, where, _ANNOTATION)
        category = _need(annotation, "category_id", int | str, where, _ANNOTATION)
        _known(image, one.images, "image_id", where, _ANNOTATION)
        _known(category, one.categories, "category_id", where, _ANNOTATION)
        groups.setdefault((image, category, _sentences(annotation, where)), []).append(annotation)
    bare = [key for key in one.images if key not in {image for image, *_ in groups}]
    if len(one.categories) == 1:
        groups |= {(key, next(iter(one.categories)), ()): [] for key in bare}
    order = {key: number for number, key in enumerate(one.images)}
    entries = [
        Entry(
            f"{one.path}: image {image}",
            _picture(files, one, image),
            _target(one, image, found, one.categories[category]),
            {CLASS_ONLY: (one.categories[category],)} | ({SENTENCE: texts} if texts else {}),
            split_of(one.path.stem),
        )
        for (image, category, texts), found in sorted(
            groups.items(), key=lambda item: order[item[0][0]]
        )
    ]
    return entries, len(bare)


def _sentences(annotation: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The sentences of an annotation itself, as some exporters write them beside the class."""
    held = [key for key in ROLES["prompt"] if isinstance(annotation.get(key), str | list)]
    return texts_of(annotation[held[0]], where, held[0]) if held else ()


def _known(key: Any, known: Mapping[Any, Any], name: str, where: str, example: str) -> None:
    if key not in known:
        raise DataError(
            f"{where}: {name!r} is {key!r}, which is not among the file's ids. It is one of "
            f"theirs, as in {example}. Correct it."
        )


def _picture(files: Files, one: _Instances, image: Any) -> Path:
    name = one.images[image]["file_name"]
    found = files.find(name, mask=False, split=split_of(one.path.stem))
    if len(found) != 1:
        files.refuse_missing(f"{one.path}: image {image}", "file_name", name, mask=False)
    return files.path(found[0])


def _target(
    one: _Instances, image: Any, annotations: Sequence[Mapping[str, Any]], name: str
) -> Made | None:
    if not annotations:
        return None
    stem = PurePosixPath(one.images[image]["file_name"]).stem
    return Made(f"{stem}_{name}.png", partial(_drawn, one, image, annotations))


def _drawn(one: _Instances, image: Any, annotations: Sequence[Mapping[str, Any]]) -> bytes:
    """The union of annotations as a PNG."""
    height, width = (one.images[image][key] for key in ("height", "width"))
    mask = np.zeros((height, width), dtype=np.bool_)
    for annotation in annotations:
        mask |= segmentation_mask(
            annotation.get("segmentation"), height, width, where=one.where(annotation)
        )
    return png(mask)


def segmentation_mask(
    segmentation: Any, height: int, width: int, *, where: str
) -> NDArray[np.bool_]:
    """The mask of a segmentation, ``(height, width)`` bool: polygons or run lengths.

    Raises:
        DataError: It is neither, or does not fit the picture.
    """
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation, where=f"{where}: segmentation")
        if mask.shape != (height, width):
            raise DataError(
                f"{where}: the segmentation has the size {list(mask.shape)}, its image "
                f"[{height}, {width}]. Both are [height, width]. Correct 'size'."
            )
        return mask
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(
            f"{where}: 'segmentation' is {cut(repr(segmentation))}. Polygons or run lengths are "
            f"needed, as in {_ANNOTATION}. Export them with the annotations."
        )
    polygons = [_polygon(points, height, width, where) for points in segmentation]
    if sum(map(len, polygons)) > _MOST_POINTS:
        raise DataError(f"{where}: more than {_MOST_POINTS:,} points. Export fewer.")
    return _pycocotools(where)(polygons, height, width)


def _polygon(points: Any, height: int, width: int, where: str) -> list[float]:
    is_polygon = isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
    if not is_polygon or not all(
        type(one) in (int, float) and math.isfinite(one) for one in points
    ):
        raise DataError(
            f"{where}: 'segmentation' holds {cut(repr(points))}. A polygon is a list of three "
            f"points or more, x and y in turn, as in {_ANNOTATION}. Repair it."
        )
    far = max(height, width)
    if min(points) < -far or max(points) > 2 * far:
        raise DataError(
            f"{where}: a polygon reaches from {min(points):g} to {max(points):g}, far out of its "
            f"image of {width} x {height} pixels. Points are pixels, not shares. Repair it."
        )
    return [float(one) for one in points]


def _pycocotools(where: str) -> Callable[[list[list[float]], int, int], NDArray[np.bool_]]:
    try:
        from pycocotools import mask as drawing
    except ImportError:
        raise DataError(
            f"{where}: polygons, and pycocotools is not installed. It is needed to draw them as "
            "others do. Install it (pip install 'vlsm-harness[coco]')."
        ) from None

    def draw(polygons: list[list[float]], height: int, width: int) -> NDArray[np.bool_]:
        made = drawing.merge(drawing.frPyObjects(polygons, height, width))
        # Its own decoder warns under NumPy 2.
        return decode_rle({"size": [height, width], "counts": made["counts"].decode()}, where=where)

    return draw


def _referred(
    files: Files, path: PurePosixPath, refs: Sequence[Any], instances: Sequence[_Instances]
) -> Iterator[Entry]:
    for number, ref in enumerate(refs):
        where = f"{path}: refs[{number}]"
        if not isinstance(ref, dict):
            raise DataError(f"{where}: found {cut(repr(ref))}. It is an object such as {_REF}.")
        image = _need(ref, "image_id", int | str, where, _REF)
        one = next((one for one in instances if image in one.images), None)
        if one is None:
            _known(image, {}, "image_id", where, _REF)
            continue
        texts = texts_of(_need(ref, "sentences", list, where, _REF), where, "sentences")
        targets = _annotations(ref, one, where)
        split = ref.get("split")
        yield Entry(
            where,
            _picture(files, one, image),
            _target(one, image, targets, "_".join(str(a["id"]) for a in targets[:8])),
            {SENTENCE: texts},
            split_name(split) if isinstance(split, str) else None,
        )


def _annotations(
    ref: Mapping[str, Any], one: _Instances, where: str
) -> Sequence[Mapping[str, Any]]:
    """The instances that an expression names; none where it names nothing."""
    named = ref.get("ann_id")
    listed = named if isinstance(named, list) else [named]
    if ref.get("no_target") or (listed in ([], [-1], [None]) and "ann_id" in ref):
        return []
    for name in listed:
        if not isinstance(name, int | str):
            raise DataError(
                f"{where}: 'ann_id' is {cut(repr(named))}. The id of an annotation, a list of "
                f"them, or -1 for nothing is needed, as in {_REF}. Repair it."
            )
        _known(name, one.annotations, "ann_id", where, _REF)
    return [one.annotations[name] for name in listed]
