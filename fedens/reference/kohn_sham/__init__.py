"""Kohn-Sham crystals and molecules on tensor-product finite elements."""
