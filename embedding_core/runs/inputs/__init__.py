"""Look at what people have as input: a file, its documents and chunks, before and after a run."""
