"""Commands to look at a table: a page, a map, a viewer."""
