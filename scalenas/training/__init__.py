"""Training of the nets: configuration, phases, losses, checkpoints."""
