"""One run over a recipe: plan, chunk, embed, commit, finish."""
