"""What pyproject.toml cannot say: two folders that are called otherwise in the wheel.

Every Prefect project has a folder ``flows``, so no wheel may own that name.
"""

from setuptools import find_packages, setup

MAPPED = {"embedlake.flows": "flows", "embedlake.deployments": "deployments"}

setup(
    packages=[*find_packages(include=["embedding_core*", "embedlake*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "embedding_core": [
            "py.typed",
            "reports/pages/*.css",
            "reports/pages/*.html",
            "reports/pages/*.js",
            "server/web/page/*",
        ],
        "embedlake": ["py.typed"],
        "embedlake.deployments": ["*.yaml", "automations/*.yaml", "recipes/*.yaml"],
    },
)
