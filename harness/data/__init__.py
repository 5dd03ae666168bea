"""Images and masks: layout readers and the checks on them."""

from harness.data.clusters import cluster_kind
from harness.data.layout import has_pictures, load_samples, read_rows

__all__ = ["cluster_kind", "has_pictures", "load_samples", "read_rows"]
