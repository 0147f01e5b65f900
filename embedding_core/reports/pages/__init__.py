"""Pages of HTML: their frame, style and charts. Knows neither a server nor a lake."""
