"""Recipes, Prefect deployments and the demos that run them."""
