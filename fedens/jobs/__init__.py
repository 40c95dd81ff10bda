"""What ``fedens run`` does: one module per job."""
