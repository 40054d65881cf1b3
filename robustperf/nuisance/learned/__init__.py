"""Learned models of natural variation (R section 4.2)."""
