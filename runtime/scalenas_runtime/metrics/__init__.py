"""Accuracy of joints and class maps, accumulated picture by picture."""
