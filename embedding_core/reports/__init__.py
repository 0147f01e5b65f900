"""Reports as lines, data and markdown. Knows neither click nor Prefect."""
