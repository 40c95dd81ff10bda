"""Electrons that do not interact, in potentials that can be solved exactly: labels for nothing."""
