"""What is seen of runs: their time, their logs, their metrics, their spans."""
