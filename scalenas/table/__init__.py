"""Closed tables: small spaces of which every member was measured, for comparing search algorithms in seconds."""
