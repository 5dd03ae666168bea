"""Runs a plan: every image and every text encoded once, pixels counted per case."""
