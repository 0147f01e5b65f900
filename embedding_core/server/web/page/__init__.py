"""The search page: HTML, style and script. No template: the script puts texts in as texts."""
