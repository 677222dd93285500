"""Runs, verifies, evaluates and measures bundles without torch."""
