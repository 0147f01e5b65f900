"""The flows that Prefect runs. In the wheel: ``embedlake.flows``."""
