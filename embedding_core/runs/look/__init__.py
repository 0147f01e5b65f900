"""A look at a table: its figures, its history, and its vectors in a plane."""
