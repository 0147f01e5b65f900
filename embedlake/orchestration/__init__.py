"""What Prefect sees of a run: tasks, progress, events, results."""
