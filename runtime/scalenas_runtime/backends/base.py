"""What a backend offers: devices, build, load."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from scalenas_runtime.errors import UserError
from scalenas_runtime.session import Session
from scalenas_runtime.targets import EngineConfig, Target


@dataclass(frozen=True, slots=True)
class Device:
    """One device a backend can use here, with the precisions it runs without falling back to another."""

    name: str
    description: str
    precisions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """What `build` left in the engine folder.

    Attributes:
        kind: `portable` (loads on any machine with the backend) or `native` (this device and version alone).
        files: File names inside the folder.
        versions: Version of each package that took part.
    """

    kind: str
    files: tuple[str, ...]
    versions: dict[str, str]


class Backend(ABC):
    """Compiles a model for a target and loads it; one subclass per engine, in a file of its own."""

    name: str
    extra: str

    @abstractmethod
    def version(self) -> str:
        """Returns the version of the engine's package.

        Raises:
            MissingExtra: the package is not installed.
        """

    @abstractmethod
    def devices(self) -> tuple[Device, ...]:
        """Returns the devices that are really there."""

    @abstractmethod
    def build(self, model: Path, config: EngineConfig, folder: Path) -> EngineFiles:
        """Compiles the ONNX file `model` into the existing, empty folder `folder`."""

    @abstractmethod
    def load(self, folder: Path, config: EngineConfig) -> Session:
        """Returns a session of an engine that `build` made.

        Raises:
            UserError: the engine was built for another version, device or CPU than is here.
        """

    def check(self, target: Target) -> Device:
        """Returns the device of `target`, before anything is compiled.

        Raises:
            UserError: no such device, or it lacks the precision; the text lists what is there.
        """
        devices = self.devices()
        for device in devices:
            if device.name == target.device:
                if target.precision in device.precisions:
                    return device
                raise UserError(
                    f"{target}: {self.name} does not run {target.precision} on {device.description}; "
                    f"it runs {', '.join(device.precisions)}"
                )
        there = ", ".join(device.name for device in devices) or "none"
        raise UserError(f"{target}: {self.name} finds no device {target.device!r} here; devices: {there}")
