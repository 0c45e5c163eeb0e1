"""Notebooks in a real JupyterLab in a headless Chromium: `make test-browser`.

A package, so that its conftest is not the `conftest` that the other tests import from.
"""
