"""Bad inputs by the ten thousand, made of good ones, for everything that reads what others write.

    python -m experiments.fuzz --target pdf --inputs 10000 --seed 1 --seconds 600
    python -m experiments.fuzz                   every target, 10,000 inputs each

An input follows from target, seed and number. It must end as the target promises, within bounds of
time and memory. Inputs are read in a child process, as workers of a run do: one that kills or stops
its process costs the child, is counted, and the next child goes on behind it. A campaign that was
cut off goes on where it ended. Inputs that broke a promise are kept in ``corpus``, and the tests
read all of them.
"""
