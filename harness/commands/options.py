"""Options that several verbs share.

Conventions: names given with commas or by repeating the option mean the same.
"""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", help="CARD or CARD=CHECKPOINT.")]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="Finetuned weights, with one --model.")
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Untrained models, to try the machinery.")
]
SuiteName = Annotated[str, typer.Argument(help="A suite's name or the path of its file.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        envvar="VLSM_DATA_ROOT",
        help="Folder above the datasets' own. [default: data; without such a folder the user's "
        "cache, for generated ones]",
    ),
]
Datasets = Annotated[
    list[str] | None,
    typer.Option(
        "--datasets",
        help="NAME, NAME/SPLIT or card file: a,b or repeated. [default: the suite's]",
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", help="Annotation file to use. [default: the suite's]")
]
PromptRung = Annotated[
    str | None,
    typer.Option("--prompt-type", help="p0 ... p9. [default: the suite's, else the dataset's]"),
]
PromptSource = Annotated[
    str | None,
    typer.Option(
        "--prompts", help="released, corrected (by the masks) or table. [default: the suite's]"
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="At most so many images per dataset.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the suite's seed.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
DataType = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="auto (float32 on a CPU, mixed on CUDA), float32, mixed, bfloat16 or float16.",
    ),
]
Backend = Annotated[
    str,
    typer.Option("--backend", help="torch, inductor (torch.compile), or openvino (on a CPU)."),
]
