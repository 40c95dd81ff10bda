"""Reference data: density, sample, data set."""
