"""From the net's output to results."""
