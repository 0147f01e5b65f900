"""Records in words: lines, data, markdown. Knows neither click, Prefect nor rich."""
