"""Comparison of predictions with references."""
