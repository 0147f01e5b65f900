"""How often a failed step is tried again, where, and how the layers multiply.

    layer             tries                          heals
    store step        STORE_ATTEMPTS   = 5           a hiccup, a commit conflict (0.4 to 3 s pauses)
    Prefect task      1 + TASK_RETRIES = 4           a lost worker, an outage of some seconds
    work unit         halves, down to a file, twice  one bad file among many
    run               2 passes                       files that changed while they were read
    re-embed          CATCH_UPS        = 20          rows that arrive before the gate or the switch

A step inside a task is tried 5 x 4 = 20 times within about a minute; nothing above repeats it.
"""

STORE_ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.2
TASK_RETRIES = 3
FIRST_TASK_PAUSE_SECONDS = 2
TASK_JITTER = 0.5
CATCH_UPS = 20
MOST_FAILED_FILES = 64
