"""Models of molecules: fields and energies from what each atom sees."""
