"""Phantom scenes."""
