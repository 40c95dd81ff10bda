"""Reference fields: our own orbital-free solver, and adapters to other codes."""
