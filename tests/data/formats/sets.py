"""Small data sets as strangers keep them: one function a form, which writes it into a folder.

Each draws discs on noise: every picture has one or two, left or right; sentences say which.
"""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

SIZE = (48, 64)  # height, width


def scenes(n, seed=0):
    """Pictures with their targets: name -> (picture, {sentence: mask})."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for number in range(n):
        picture = rng.integers(0, 60, (*SIZE, 3)).astype(np.uint8)
        targets = {}
        for side, low in (("left", 8), ("right", 40)) if number % 3 == 0 else (("left", 8),):
            center = rng.integers(12, 36), rng.integers(low + 4, low + 14)
            mask = (y - center[0]) ** 2 + (x - center[1]) ** 2 <= rng.integers(4, 9) ** 2
            picture[mask] = (220, 120, 120)
            targets[f"one small red polyp on the {side}"] = mask
        yield f"P{number // 2:03d}_{number % 2}", picture, targets


def save(path: Path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def union(targets):
    return np.logical_or.reduce(list(targets.values()))


def released(folder, n):
    """The paper's own layout."""
    rows = []
    for name, picture, targets in scenes(n):
        save(folder / f"images/{name}.png", picture)
        for number, (text, mask) in enumerate(targets.items()):
            save(folder / f"masks/{name}_{number}.png", mask.astype(np.uint8) * 255)
            prompts = {"p0": "", "p1": "polyp", "p6": text}
            rows.append(
                {"img_name": f"{name}.png", "mask_name": f"{name}_{number}.png", "prompts": prompts}
            )
    (folder / "anns").mkdir()
    (folder / "anns/test.json").write_text(json.dumps(rows))


def _pairs(folder, n, *, suffix=".png", top=255):
    """Pictures and masks in folders, and rows of a table that name them."""
    rows = []
    for name, picture, targets in scenes(n):
        save(folder / f"images/{name}{suffix}", picture, quality=95)
        for number, (text, mask) in enumerate(targets.items()):
            file = f"{name}_{number}.png"
            save(folder / f"masks/{file}", mask.astype(np.uint8) * top)
            area = f"{mask.mean() * 100:.2f}".replace(".", ",")
            rows.append((f"{name}{suffix}", file, text, name.split("_")[0], area))
    return rows


HEADER = ["image", "mask", "prompt", "patient", "area"]


def csv(folder, n):
    """A table with a column of patients."""
    frame = pl.DataFrame(_pairs(folder, n), schema=HEADER, orient="row")
    frame.write_csv(folder / "pairs.csv")


def semicolons(folder, n):
    """As spreadsheets write it where decimals have a comma; JPEG pictures, 0/1 masks."""
    frame = pl.DataFrame(_pairs(folder, n, suffix=".jpg", top=1), schema=HEADER, orient="row")
    frame = frame.rename({"image": "Image", "mask": "Mask", "prompt": "Caption"}).drop("patient")
    frame.write_csv(folder / "pairs.csv", separator=";", include_bom=True)


def parquet(folder, n):
    """Paths in a Parquet table; every fourth picture has a sentence that names nothing."""
    rows = _pairs(folder, n)
    nothing = [(image, None, "a green ring", patient, "0") for image, *_, patient, _ in rows[::4]]
    frame = pl.DataFrame(rows + nothing, schema=HEADER, orient="row")
    frame.write_parquet(folder / "pairs.parquet")


def xlsx(folder, n):
    """A workbook with splits and prompt types, one row a sentence."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["img", "mask", "text", "prompt type", "subset"])
    for number, (image, mask, text, *_) in enumerate(_pairs(folder, n)):
        split = "val" if number % 4 == 3 else "test"
        book.active.append([image, mask, "polyp", "P1", split])
        book.active.append([image, mask, text, "P6", split])
    book.save(folder / "pairs.xlsx")


def listed_json(folder, n):
    """A JSON list with several sentences a row and absolute paths of another machine."""
    rows = [
        {
            "image_path": f"/home/somebody/data/images/{image}",
            "mask_path": f"/home/somebody/data/masks/{mask}",
            "sentences": [text, text.replace("polyp", "bump")],
        }
        for image, mask, text, *_ in _pairs(folder, n)
    ]
    (folder / "pairs.json").write_text(json.dumps(rows))


def folders(folder, n):
    """Pictures and masks without any sentence; JPEG masks."""
    for name, picture, targets in scenes(n):
        save(folder / f"images/{name}.png", picture)
        save(folder / f"masks/{name}_mask.jpg", union(targets).astype(np.uint8) * 255, quality=95)


def label_maps(folder, n):
    """Label maps: 1 is left, 2 is right."""
    for name, picture, targets in scenes(n):
        save(folder / f"img/{name}.png", picture)
        values = sum(mask * np.uint8(k) for k, mask in enumerate(targets.values(), start=1))
        save(folder / f"labels/{name}.png", values.astype(np.uint8))


QATA = {
    1: "Unilateral pulmonary infection, one infected area, upper middle left lung.",
    2: "Bilateral pulmonary infection, two infected areas, all left lung and all right lung.",
}


def lvit(folder, n):
    """Workbooks of two splits beside folders of pictures and label maps."""
    import openpyxl

    listed = list(scenes(n))
    for split, part in (("Train", listed[: n // 4]), ("Test", listed[n // 4 :])):
        book = openpyxl.Workbook()
        book.active.append(["Image", "Description"])
        for name, picture, targets in part:
            save(folder / f"{split}_Folder/img/{name}.png", picture)
            values = union(targets).astype(np.uint8) * 255
            save(folder / f"{split}_Folder/labelcol/mask_{name}.png", values)
            book.active.append([f"mask_{name}.png", QATA[len(targets)]])
        book.save(folder / f"{split}_Folder/{split}_text.xlsx")


def _runs(mask):
    """Uncompressed run lengths of COCO."""
    flat = mask.T.reshape(-1).astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[0] else [0, *counts]}


def _box(mask):
    ys, xs = np.nonzero(mask)
    left, top, right, bottom = map(int, (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    return [[left, top, right, top, right, bottom, left, bottom]]


def _instances(folder, n, *, part="images"):
    images, annotations = [], []
    for number, (name, picture, targets) in enumerate(scenes(n), start=1):
        save(folder / f"{part}/{name}.jpg", picture, quality=95)
        images.append(
            {"id": number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
        )
        for k, mask in enumerate(targets.values()):
            is_crowd = k == 1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 7 if number % 2 else 9,
                    "segmentation": _runs(mask) if is_crowd else _box(mask),
                    "iscrowd": int(is_crowd),
                }
            )
    categories = [{"id": 7, "name": "polyp"}, {"id": 9, "name": "flat lesion"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(folder, n):
    """Instances: polygons, and crowds as run lengths."""
    content = _instances(folder, n, part="val2017")
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(content))


def _refs(content):
    return [
        {
            "ref_id": number,
            "ann_id": one["id"],
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "split": "testA" if number % 5 else "val",
            "sentences": [
                {"sent": text, "raw": text, "sent_id": 2 * number + k, "tokens": text.split()}
                for k, text in enumerate((f"red thing {number}", f"the round one {number}"))
            ],
        }
        for number, one in enumerate(content["annotations"])
    ]


def refcoco(folder, n):
    """RefCOCO's pickle beside the instances: two sentences a target."""
    content = _instances(folder, n)
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "refs(unc).p").write_bytes(pickle.dumps(_refs(content), protocol=2))


def grefcoco(folder, n):
    """gRefCOCO's JSON: several targets, and sentences that name nothing."""
    content = _instances(folder, n)
    (folder / "instances.json").write_text(json.dumps(content))
    refs = [ref | {"ann_id": [ref["ann_id"]], "no_target": False} for ref in _refs(content)]
    several = {}
    for one in content["annotations"]:
        several.setdefault(one["image_id"], []).append(one["id"])
    for image, ids in several.items():
        both = {"ann_id": ids, "no_target": False, "image_id": image, "split": "testA"}
        refs.append(both | {"ref_id": len(refs), "sentences": [{"sent": "everything red"}]})
        refs.append(
            {
                "ref_id": len(refs),
                "ann_id": [-1],
                "no_target": True,
                "image_id": image,
                "split": "testA",
                "sentences": [{"sent": "the blue cube"}, {"sent": "a cube of ice"}],
            }
        )
    (folder / "grefs(unc).json").write_text(json.dumps(refs))


def _png(values):
    held = io.BytesIO()
    Image.fromarray(values).save(held, format="PNG")
    return held.getvalue()


def _embedded(n):
    rows = [
        {
            "image": {"bytes": _png(picture), "path": f"{name}.png"},
            "mask": {"bytes": _png(mask.astype(np.uint8) * 255), "path": None},
            "prompt": text,
        }
        for name, picture, targets in scenes(n)
        for text, mask in targets.items()
    ]
    return pl.DataFrame(rows)


def hf_parquet(folder, n):
    """Parquet as the hub has it."""
    (folder / "data").mkdir()
    frame = _embedded(n)
    frame.head(4).write_parquet(folder / "data/train-00000-of-00001.parquet")
    frame.slice(4).write_parquet(folder / "data/test-00000-of-00001.parquet")


def hf_disk(folder, n):
    """Saved to disk."""
    for split, frame in (("validation", _embedded(n)[:4]), ("test", _embedded(n)[4:])):
        (folder / split).mkdir()
        frame.write_ipc_stream(folder / split / "data-00000-of-00001.arrow")
        (folder / split / "state.json").write_text(json.dumps({"_split": split}))
        (folder / split / "dataset_info.json").write_text(json.dumps({"features": {}}))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["validation", "test"]}))


def nifti(folder, n):
    """Volumes of ten slices, the first without a target; stored with other axes."""
    import nibabel

    for part in ("imagesTs", "labelsTs"):
        (folder / part).mkdir()
    listed = list(scenes(n))
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    for number in range(max(n // 10, 1)):
        slices = listed[10 * number : 10 * number + 10]
        image = np.stack([p[..., 0].T for _, p, _ in slices], axis=2).astype(np.int16) * 10 - 1000
        label = np.stack([union(t).T for _, _, t in slices], axis=2).astype(np.uint8)
        label[..., 0] = 0
        name = f"case_{number:03d}"
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"imagesTs/{name}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"labelsTs/{name}.nii.gz")
    labels = {"background": 0, "polyp": 1}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


SETS = {
    "released": released,
    "csv": csv,
    "semicolons": semicolons,
    "parquet": parquet,
    "xlsx": xlsx,
    "json": listed_json,
    "folders": folders,
    "label-maps": label_maps,
    "lvit": lvit,
    "coco": coco,
    "refcoco": refcoco,
    "grefcoco": grefcoco,
    "hf-parquet": hf_parquet,
    "hf-disk": hf_disk,
    "nifti": nifti,
}
