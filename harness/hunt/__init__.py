"""Searches for the smallest edit that breaks a model on a sample, and replays what it found."""
