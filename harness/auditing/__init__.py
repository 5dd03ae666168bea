"""An audit from suite and models to verdicts: read, plan, evaluate, assess. It prints nothing."""
