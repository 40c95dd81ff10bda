"""Energies as sums over any reference points."""
