"""Synthetic scenes: people and streets with their labels, the same for everyone who names the same seed."""

from scalenas_runtime.scenes.crops import pictures
from scalenas_runtime.scenes.persons import person_scene
from scalenas_runtime.scenes.scene import Scene
from scalenas_runtime.scenes.street import street_scene

__all__ = ["Scene", "person_scene", "pictures", "street_scene"]
