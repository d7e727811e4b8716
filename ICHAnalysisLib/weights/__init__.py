"""Weights: reading, writing and the shipped defaults."""
