"""Models that predict fields from descriptors, their training and their use."""
