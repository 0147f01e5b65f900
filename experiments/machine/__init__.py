"""Stories of a user, told step by step by Hypothesis, and a model that knows how each must end.

    python -m experiments.machine --examples 300 --steps 40 --seed 1

Files come, change, shrink, move and go; the recipe is edited; runs are killed amid their work;
spaces are built, switched, rolled back and retired; rows are exported, imported, searched and
judged. After each step a process that knows nothing of the step compares the table with the model.
A story that ends badly is told again and again with less in it, until nothing can be left out.
"""
