"""All-electron Kohn-Sham by PySCF."""
