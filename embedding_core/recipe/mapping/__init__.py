"""How a recipe says what a record means: paths to fields, text templates, conversations, maps."""
