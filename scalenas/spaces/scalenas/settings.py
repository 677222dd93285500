"""What is fixed for one ScaleNAS supernet, checked and completed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from scalenas.operators import UpsampleMode
from scalenas.space import unknown
from scalenas.spec import plain
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

MODES: tuple[str, ...] = get_args(UpsampleMode)
STAGES = 3
# Far beyond any net that is trained; without an end a small spec file could ask for hours of planning.
MOST_WIDTH, MOST_BLOCKS = 4096, 64


@dataclass(frozen=True, slots=True)
class Upsample:
    """How a smaller map is brought to the size of a larger one."""

    mode: UpsampleMode
    align_corners: bool = False

    def to_json(self) -> dict[str, Json]:
        """Returns the setting in the form of a spec."""
        return {"mode": self.mode, "align_corners": self.align_corners}


@dataclass(frozen=True, slots=True)
class ScaleNasSettings:
    """The settings of a supernet and of every spec in it.

    Attributes:
        task: `pose` or `segmentation`.
        width: Channels of the branch of stride 4, even; each lower branch has twice those of the one above.
        modules: Searchable modules in stages 2, 3 and 4.
        stage1_blocks: Bottlenecks in stage 1.
        depths: Allowed numbers of blocks of a branch in a module, ascending.
        outputs: Joints or classes.
        fuse_upsample: Upsampling in fusions.
        head_upsample: Upsampling in the segmentation head; None for pose.
    """

    task: str
    width: int
    modules: tuple[int, int, int]
    stage1_blocks: int
    depths: tuple[int, ...]
    outputs: int
    fuse_upsample: Upsample
    head_upsample: Upsample | None

    @property
    def steps(self) -> int:
        """Block steps of every module: the largest depth."""
        return self.depths[-1]

    def to_json(self) -> dict[str, Json]:
        """Returns the settings in the form of a spec, complete and canonical."""
        shared: dict[str, Json] = {
            "task": self.task,
            "width": self.width,
            "modules": list(self.modules),
            "stage1_blocks": self.stage1_blocks,
            "depths": list(self.depths),
            "fuse_upsample": self.fuse_upsample.to_json(),
        }
        if self.head_upsample is None:
            return {**shared, "joints": self.outputs}
        return {**shared, "classes": self.outputs, "head_upsample": self.head_upsample.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> ScaleNasSettings:
        """Returns checked settings; those that `value` lacks take their default.

        Raises:
            UserError: a setting is unknown or out of range; the text names it, the value and what would work.
        """
        task = value.get("task", "pose")
        if task not in ("pose", "segmentation"):
            raise UserError(f"setting task is {task!r}; allowed: 'pose', 'segmentation'")
        readers = {**_SHARED, **(_POSE if task == "pose" else _SEGMENTATION)}
        for key in value:
            if key not in readers and key != "task":
                raise unknown(f"setting of a {task} net", key, ["task", *readers])
        known = {field: read(key, value.get(key, default)) for key, (field, default, read) in readers.items()}
        return cls(task=task, **{"head_upsample": None, **known})  # type: ignore[arg-type]


def _whole(low: int, high: int | None = None) -> Callable[[str, Json], int]:
    def read(name: str, value: Json) -> int:
        if type(value) is not int or value < low or (high is not None and value > high):
            above = f"from {low} on" if high is None else f"in {low}..{high}"
            raise UserError(f"setting {name} is {value!r}; needed is a whole number {above}")
        return value

    return read


def _width(name: str, value: Json) -> int:
    if type(value) is not int or not 2 <= value <= MOST_WIDTH or value % 2:
        raise UserError(
            f"setting {name} is {value!r}; needed is an even positive number such as 18, 32 or 48, at most {MOST_WIDTH}"
        )
    return value


def _modules(name: str, value: Json) -> tuple[int, ...]:
    counts = _counts(value)
    if len(counts) != STAGES:
        raise UserError(
            f"setting {name} is {plain(value)!r}; needed are three numbers from 1 to {MOST_BLOCKS}, modules of stages "
            "2, 3 and 4, such as [1, 4, 3]"
        )
    return counts


def _depths(name: str, value: Json) -> tuple[int, ...]:
    counts = _counts(value)
    if not counts or list(counts) != sorted(set(counts)):
        raise UserError(
            f"setting {name} is {plain(value)!r}; needed are numbers from 1 to {MOST_BLOCKS} in rising order such as "
            "[2, 3, 4, 5]"
        )
    return counts


def _upsample(name: str, value: Json) -> Upsample:
    if not isinstance(value, Mapping):
        raise UserError(f"setting {name} is {value!r}; needed is {{'mode': ..., 'align_corners': ...}}")
    for key in value:
        if key not in ("mode", "align_corners"):
            raise unknown(f"key of setting {name}", key, ["mode", "align_corners"])
    mode, align_corners = value.get("mode"), value.get("align_corners", False)
    if mode not in MODES:
        raise UserError(f"setting {name}.mode is {mode!r}; allowed: {', '.join(MODES)}")
    if not isinstance(align_corners, bool):
        raise UserError(f"setting {name}.align_corners is {align_corners!r}; allowed: true, false")
    if align_corners and mode == "nearest":
        raise UserError(f"setting {name}.align_corners is true with mode nearest, where it has no meaning; use false")
    return Upsample(mode, align_corners)  # type: ignore[arg-type]


def _counts(value: Json) -> tuple[int, ...]:
    """Returns the whole numbers from 1 to `MOST_BLOCKS` in a list, or nothing where the value is anything else."""
    if not isinstance(value, list | tuple):
        return ()
    counts = tuple(item for item in value if type(item) is int and 0 < item <= MOST_BLOCKS)
    return counts if len(counts) == len(value) else ()


_Reader = tuple[str, Json, Callable[[str, Json], object]]
_SHARED: dict[str, _Reader] = {
    "width": ("width", 32, _width),
    "modules": ("modules", [1, 4, 3], _modules),
    "stage1_blocks": ("stage1_blocks", 4, _whole(1, MOST_BLOCKS)),
    "depths": ("depths", [2, 3, 4, 5], _depths),
    "fuse_upsample": ("fuse_upsample", Upsample("nearest").to_json(), _upsample),
}
_POSE: dict[str, _Reader] = {"joints": ("outputs", 17, _whole(1))}
_SEGMENTATION: dict[str, _Reader] = {
    "classes": ("outputs", 19, _whole(2, 255)),
    "head_upsample": ("head_upsample", Upsample("bilinear").to_json(), _upsample),
}
