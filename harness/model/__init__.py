"""The contract of a model, adapters, loading, devices and precision."""
