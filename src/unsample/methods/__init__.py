"""Every method of inversion by its name."""
