"""Readers of labelled data sets: pictures with their joints or class maps, one at a time."""
