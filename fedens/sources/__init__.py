"""Where structures come from: thermal cells, files, conformers."""
