"""The engines that can run a model, one file each; a backend is named here and loaded when it is asked for."""

from scalenas_runtime.backends.registry import BACKENDS, get_backend, holds_machine_code

__all__ = ["BACKENDS", "get_backend", "holds_machine_code"]
