"""Data for training: descriptions of data sets, splits, augmentation, targets, and the loader that feeds a net."""
