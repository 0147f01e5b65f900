"""Parts of the benchmark of scaling."""
