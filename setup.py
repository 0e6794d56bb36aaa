"""What is installed: every package of cltdb and of the browser, and the specs that ship, as `cltdb.experiments` (pyproject.toml)."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["cltdb*", "dashboards*"]), "cltdb.experiments"])
