"""What monitoring sees of tables and their runs; no run needs any of it."""
