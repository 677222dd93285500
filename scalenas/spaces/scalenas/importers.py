"""Importers of public HRNet checkpoints: names, structure read off the shapes, and the task recipe.

Facts about the public repositories, each from its code:
    HRNet pose (leoxiaobin/deep-high-resolution-net.pytorch): RGB, ImageNet mean and std, box x 1.25, crop corners
        by pixel counts, quarter offset, mirrored heatmaps shifted by one pixel; fusions upsample by nearest.
    DarkPose (ilovepose/DarkPose): as HRNet pose, but crops by pixel centres, DARK decoding with an 11 x 11 blur, and
        no shift of mirrored heatmaps.
    mmpose: its `MSRAHeatmap` codec is HRNet pose's rule, with `unbiased=True` DARK decoding and the shift kept; its
        `UDPHeatmap` codec with `use_udp` is UDP's affine and decoding, without a shift.
    HRNet segmentation (HRNet/HRNet-Semantic-Segmentation): RGB, ImageNet mean and std, all upsampling bilinear.
        Branch `pytorch-v1.1`: align_corners false. Branch `HRNet-OCR`: true. Branch `master` (PyTorch 0.4): false, and
        its BN multiplies by |weight| + 1e-5.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from scalenas.importing import Converted
from scalenas.operators import Bottleneck, FuseDown, Operator, PoseHead
from scalenas.spaces.scalenas.settings import ScaleNasSettings
from scalenas.spaces.scalenas.space import SPACE
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import Recipe
from scalenas_runtime.tasks.sets import ClassSet, JointSet, class_set, joint_set, pose_recipe, segmentation_recipe

if TYPE_CHECKING:
    from torch import Tensor

# The in-place BN of the master branch scales by |weight| plus this.
ABSOLUTE_EPSILON = 1e-5

_PREFIX = re.compile(r"(?:module\.|model\.)*(?:backbone\.)?(?:(?:keypoint_)?head\.(?=final_layer\.))?")
_SKIPPED = re.compile(r"(?:module\.)*loss\..+|.+\.num_batches_tracked")
_REFUSED = {
    r"(?:ocr_gather_head|ocr_distri_head|conv3x3_ocr|cls_head|aux_head)\.": "an OCR head",
    r"(?:incre_modules|downsamp_modules|classifier|head\.\d+)\.": "an ImageNet classification head",
    r"(?:final_layers|deconv_layers)\.": "HigherHRNet's bottom-up heads",
}
# Where in the public names the parts of a node lie: (node, public prefix).
_BLOCKS = ((r"stage1\.block(\d+)", r"layer1.\1"), (r"(stage\d\.\d+)\.branch(\d)\.block(\d+)", r"\1.branches.\2.\3"))
_FUSION = (r"(stage\d\.\d+)\.step\d+\.branch(\d)_from_branch(\d)", r"\1.fuse_layers.\2.\3")
_JOINT_SETS = {17: "coco-17", 16: "mpii-16"}
_CLASS_SETS = {19: "cityscapes-19", 11: "camvid-11"}


@dataclass(frozen=True, slots=True)
class HRNetImporter:
    """Reads the checkpoints of one public HRNet code base.

    Attributes:
        title: One line for people.
        licence: Licence of the code base; the weights may have terms of their own.
        task: `pose` or `segmentation`.
        size: Height and width of the input in pixels where none is given.
        settings: Settings of the family that the code base fixes.
        fields: Fields of the task recipe that it fixes.
        absolute_bn: BN multiplies by |weight| + 1e-5.
    """

    title: str
    licence: str
    task: Literal["pose", "segmentation"]
    size: tuple[int, int]
    settings: Mapping[str, Json] = field(default_factory=dict)
    fields: Mapping[str, object] = field(default_factory=dict)
    absolute_bn: bool = False

    def convert(self, tensors: Mapping[str, Tensor], *, size: tuple[int, int] | None, names: str | None) -> Converted:
        """Returns the checkpoint as a member of the family; see `scalenas.importing.Importer`."""
        from scalenas.weights import check_names

        skipped = tuple(name for name in tensors if _SKIPPED.fullmatch(name))
        given = _stripped({name: tensor for name, tensor in tensors.items() if name not in skipped})
        self._refuse_other_nets(given)
        spec = self._spec(given, size or self.size)
        needed = _state(spec)
        public = _public_names(spec, needed)
        check_names(
            {public[name]: tensor for name, tensor in needed.items()}, given, what="the tensors of the checkpoint"
        )
        _refuse_no_weights({public[name]: given[public[name]] for name in needed})
        converted = {name: given[public[name]].float() for name in needed}
        if self.absolute_bn:
            for name in converted:
                if name.endswith("bn.weight"):
                    converted[name] = converted[name].abs() + ABSOLUTE_EPSILON
        settings = ScaleNasSettings.from_json(spec.settings)
        return Converted(spec, converted, self._recipe(settings.outputs, size or self.size, names), skipped)

    def _refuse_other_nets(self, given: Mapping[str, Tensor]) -> None:
        for pattern, what in _REFUSED.items():
            found = sorted({name.partition(".")[0] for name in given if re.match(pattern, name)})
            if found:
                raise UserError(
                    f"the checkpoint has {what} ({', '.join(found)}); only HRNet with the plain pose or segmentation "
                    "head can be imported"
                )
        other = {"pose": "last_layer.", "segmentation": "final_layer."}[self.task]
        if any(name.startswith(other) for name in given):
            raise UserError(f"the checkpoint has the head {other[:-1]}, which is not that of a {self.task} net")

    def _spec(self, given: Mapping[str, Tensor], size: tuple[int, int]) -> SubnetSpec:
        first = given.get("stage2.0.branches.0.0.conv1.weight")
        if first is None:
            shown = ", ".join(list(given)[:4]) or "none"
            raise UserError(
                f"no tensor is named stage2.0.branches.0.0.conv1.weight, so this is no HRNet (has {shown}, ...)"
            )
        # Counted, not read off the highest number: a name in the file must not decide how much is built.
        blocks = {match.groups() for match in map(_BLOCK_NAME.fullmatch, given) if match}
        depth = Counter(f"stage{stage}.{module}" for stage, module, _ in blocks)
        modules = Counter(name.partition(".")[0] for name in depth)
        head = given.get({"pose": "final_layer.weight", "segmentation": "last_layer.3.weight"}[self.task])
        outputs = "joints" if self.task == "pose" else "classes"
        counts = [max(1, modules[f"stage{stage}"]) for stage in (2, 3, 4)]
        settings: dict[str, Json] = {
            "task": self.task,
            "width": first.shape[0] if first.dim() else 0,
            "modules": counts,
            "stage1_blocks": len({name.split(".")[1] for name in given if name.startswith("layer1.")}) or 1,
            "depths": sorted({2, 3, 4, 5, *depth.values()}),
            **self.settings,
            **({outputs: head.shape[0]} if head is not None and head.dim() else {}),
        }
        steps = max(5, *depth.values())
        genes: dict[str, Json] = {}
        for stage, count in zip((2, 3, 4), counts, strict=True):
            for module in range(count):
                name = f"stage{stage}.{module}"
                own = depth.get(name, 4)
                rows = ["0" * (stage - 1)] * (own - 1) + ["1" * (stage - 1)] + ["0" * (stage - 1)] * (steps - own)
                genes[name] = {"depth": [own] * stage, "fuse": [rows] * stage}
        return SPACE.normalise(SubnetSpec(SPACE.name, settings, {"image": (3, *size)}, genes))

    def _recipe(self, outputs: int, size: tuple[int, int], names: str | None) -> Recipe:
        known = _JOINT_SETS if self.task == "pose" else _CLASS_SETS
        name = names or known.get(outputs)
        if name is None and self.fields.get("decode") == "dark-udp" and outputs % 3 == 0 and outputs // 3 in known:
            raise UserError(
                f"the checkpoint has {outputs} output channels: heatmaps and x and y offsets of {outputs // 3} joints "
                "(UDP's combined target), which are not decoded here; needed is one with a heatmap per joint alone "
                f"({outputs // 3} channels)"
            )
        if self.task == "pose":
            joints = joint_set(name) if name else JointSet("", _numbered("joint", outputs), (), (), ())
            _check_count(name, len(joints.joints), outputs)
            return pose_recipe(joints, size=size, **self.fields)
        classes = class_set(name) if name else ClassSet("", _numbered("class", outputs), _colours(outputs), 255)
        _check_count(name, len(classes.classes), outputs)
        return segmentation_recipe(classes, size=size, **self.fields)


_BLOCK_NAME = re.compile(r"stage(\d)\.(\d+)\.branches\.\d\.(\d+)\.conv1\.weight")


def _stripped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stripped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _PREFIX.match(name)
        short = name[match.end() :] if match else name
        if short in stripped:
            raise UserError(f"the checkpoint has {short} twice, under different prefixes; save one net alone")
        stripped[short] = tensor
    return stripped


def _refuse_no_weights(tensors: Mapping[str, Tensor]) -> None:
    whole = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if whole:
        raise UserError(
            f"{len(whole)} tensors of the checkpoint hold whole numbers ({whole[0]}, ...), so it is quantised; "
            "needed are weights in floating point"
        )
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"{len(broken)} tensors of the checkpoint hold NaN or infinity ({broken[0]}, ...): its training diverged; "
            "take an earlier one"
        )


def _state(spec: SubnetSpec) -> dict[str, Tensor]:
    import torch

    from scalenas.static import static_net

    with torch.device("meta"):
        state: dict[str, Tensor] = static_net(spec).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _public_names(spec: SubnetSpec, needed: Iterable[str]) -> dict[str, str]:
    prefixes = {
        f"{node.name}.{ours}": theirs
        for node in SPACE.graph(spec).live()
        for ours, theirs in _parts(node.name, node.operator)
    }
    names = {}
    for name in needed:
        layer, _, tensor = name.rpartition(".")
        names[name] = f"{prefixes[layer]}.{tensor}"
    return names


def _parts(name: str, operator: Operator) -> Iterator[tuple[str, str]]:
    """Yields (path of a convolution or BN under the node, its public path)."""
    if name == "head":
        if isinstance(operator, PoseHead):
            yield "conv", "final_layer"
        else:
            yield from (("mix", "last_layer.0"), ("bn", "last_layer.1"), ("classify", "last_layer.3"))
    elif match := re.fullmatch(r"stem\.conv(\d)", name):
        yield from (("conv", f"conv{match[1]}"), ("bn", f"bn{match[1]}"))
    elif match := re.fullmatch(r"transition(\d)\.branch(\d)", name):
        # A new branch is a chain of one stride-2 convolution there; the first branch is no chain.
        place = f"transition{match[1]}.{match[2]}" + ("" if match[2] == "0" else ".0")
        yield from _pair("", place)
    elif match := re.fullmatch(_FUSION[0], name):
        place = match.expand(_FUSION[1])
        if isinstance(operator, FuseDown):
            for index in range(operator.steps):
                yield from _pair(f"chain.{index}.", f"{place}.{index}")
        else:
            yield from _pair("conv1.", place)
    else:
        yield from _block_parts(name, operator)


def _block_parts(name: str, operator: Operator) -> Iterator[tuple[str, str]]:
    for pattern, template in _BLOCKS:
        if match := re.fullmatch(pattern, name):
            place = match.expand(template)
            for index in (1, 2, 3) if isinstance(operator, Bottleneck) else (1, 2):
                yield f"conv{index}.conv", f"{place}.conv{index}"
                yield f"conv{index}.bn", f"{place}.bn{index}"
            yield from _pair("shortcut.", f"{place}.downsample")


def _pair(ours: str, theirs: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (f"{ours}conv", f"{theirs}.0"), (f"{ours}bn", f"{theirs}.1")


def _check_count(name: str | None, known: int, outputs: int) -> None:
    if known != outputs:
        raise UserError(f"the checkpoint has {outputs} output channels, {name} has {known}; name another set")


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word}{index}" for index in range(count))


def _colours(count: int) -> tuple[tuple[int, int, int], ...]:
    # Steps prime to 256: neighbouring classes get distant colours, and none repeats.
    return tuple(((37 * k + 70) % 256, (91 * k + 130) % 256, (151 * k + 180) % 256) for k in range(count))


_HRNET_POSE = "MIT (leoxiaobin/deep-high-resolution-net.pytorch)"
_HRNET_SEG = "MIT (HRNet/HRNet-Semantic-Segmentation)"
_MMPOSE = "Apache-2.0 (open-mmlab/mmpose)"
_CLASSIC = {"affine": "classic", "decode": "quarter", "flip_shift": True}


def _bilinear(align_corners: bool) -> dict[str, Json]:
    upsample: dict[str, Json] = {"mode": "bilinear", "align_corners": align_corners}
    return {"fuse_upsample": upsample, "head_upsample": upsample}


IMPORTERS: Mapping[str, HRNetImporter] = {
    "hrnet-pose": HRNetImporter(
        "HRNet pose: crops by pixel counts, quarter offset, shifted flip", _HRNET_POSE, "pose", (256, 192), {}, _CLASSIC
    ),
    "mmpose": HRNetImporter("mmpose HRNet (MSRAHeatmap): as hrnet-pose", _MMPOSE, "pose", (256, 192), {}, _CLASSIC),
    "mmpose-dark": HRNetImporter(
        "mmpose HRNet with DARK (unbiased MSRAHeatmap): as mmpose, DARK decoding",
        _MMPOSE,
        "pose",
        (256, 192),
        {},
        {**_CLASSIC, "decode": "dark", "blur": 11},
    ),
    "dark": HRNetImporter(
        "DarkPose HRNet: crops by pixel centres, DARK decoding, unshifted flip",
        "Apache-2.0 (ilovepose/DarkPose)",
        "pose",
        (256, 192),
        {},
        {"affine": "udp", "decode": "dark", "blur": 11, "flip_shift": False},
    ),
    "udp": HRNetImporter(
        "HRNet with UDP (mmpose UDPHeatmap): crops by pixel centres, UDP decoding, unshifted flip",
        _MMPOSE,
        "pose",
        (256, 192),
        {},
        {"affine": "udp", "decode": "dark-udp", "blur": 11, "flip_shift": False},
    ),
    "hrnet-seg": HRNetImporter(
        "HRNet segmentation, branch pytorch-v1.1: bilinear, align_corners false",
        _HRNET_SEG,
        "segmentation",
        (1024, 2048),
        _bilinear(False),
        {"align_corners": False},
    ),
    "hrnet-seg-aligned": HRNetImporter(
        "HRNet segmentation, branch HRNet-OCR without OCR: bilinear, align_corners true",
        _HRNET_SEG,
        "segmentation",
        (1024, 2048),
        _bilinear(True),
        {"align_corners": True},
    ),
    "hrnet-seg-abn": HRNetImporter(
        "HRNet segmentation, branch master (PyTorch 0.4): as hrnet-seg, BN scales by |weight|",
        _HRNET_SEG,
        "segmentation",
        (1024, 2048),
        _bilinear(False),
        {"align_corners": False},
        absolute_bn=True,
    ),
}
