"""What a local disk keeps of a table when the power is lost."""
