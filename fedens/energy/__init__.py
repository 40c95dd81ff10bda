"""Energy terms, their sum, and minimisation: term(density, structure) -> energy."""
