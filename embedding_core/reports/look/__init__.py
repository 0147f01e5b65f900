"""Reports of a look at a table: in words, as a picture, and of the rows of a map."""
