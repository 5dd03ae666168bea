"""Several models on the same cases: differences with intervals, ranks, what finetuning did."""
