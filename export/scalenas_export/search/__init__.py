"""The live loop of a search: latency and accuracy of candidates, measured through engines on the device."""
