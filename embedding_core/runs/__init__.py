"""Work on a recipe's table, from end to end: embed, build a space, maintain, answer.

Composition only. Whoever runs these functions (a Prefect task on Ray, the command line, a test)
gets the same result; nothing here knows who that is.
"""
