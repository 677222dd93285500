"""The families that come with the package, one folder each."""
