"""Pass or fail for CI: a run against its suite's rules and against a baseline. No torch."""
