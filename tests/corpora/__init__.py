"""The recipes of ``deployments/recipes`` on small samples of the corpora they are for."""
