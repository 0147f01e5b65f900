"""Commands about inputs, from the first look at a folder to a file beside its rows."""
