"""The suite's schema, its expectations and gate rules."""
