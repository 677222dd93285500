"""Training: configurations, phases, sampling of subnets, losses, schedules, checkpoints and cards."""
