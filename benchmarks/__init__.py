"""Ours and the reference package in one run."""
