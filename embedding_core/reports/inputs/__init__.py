"""Reports about inputs: what a file becomes, what a corpus holds, what a recipe could say."""
