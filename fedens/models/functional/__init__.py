"""Learned functionals of the density: fitted to Kohn-Sham labels, minimised like any other."""
