import functools
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scalenas import ImportOptions, Supernet, get_space, import_checkpoint, load_weights
from scalenas.weights import Weights, load_into
from scalenas_export.cli.app import run
from scalenas_runtime.errors import UserError
from scalenas_runtime.tasks import PoseRecipe, SegmentationRecipe
from tests.nets.lively import enliven
from tests.nets.public_hrnet import PublicHRNet

State = dict[str, Tensor]
SIZE = (64, 64)


def public(*, corners: bool | None = None, width: int = 4, outputs: int = 17, **shape: object) -> PublicHRNet:
    net = PublicHRNet(width=width, outputs=outputs, corners=corners, **shape).eval()  # type: ignore[arg-type]
    enliven(net, seed=3)
    return net


@functools.cache
def plain_state() -> State:
    """The state dict of the default net; not to be changed."""
    return dict(public().state_dict())


def options(recipe: str, kind: str = "static", **fields: object) -> ImportOptions:
    return ImportOptions("scalenas", recipe, kind, **{"size": SIZE, **fields})  # type: ignore[arg-type]


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def full_model(state: State) -> State:
    return {**prefixed("module.model.")(state), "module.loss.criterion.weight": torch.ones(19)}


def openmm(head: str) -> Callable[[State], State]:
    def rename(state: State) -> State:
        return {(head if "final_layer" in name else "backbone.") + name: value for name, value in state.items()}

    return rename


def save(path: Path, content: object, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def static_output(weights: Weights, picture: Tensor) -> Tensor:
    assert weights.spec is not None
    net = get_space("scalenas").static(weights.spec).eval()
    load_into(net, weights)
    with torch.no_grad():
        output: Tensor = net.double()(picture)
    return output


CASES: list[tuple[str, str, dict[str, object], Callable[[State], object]]] = [
    ("pose", "hrnet-pose", {}, lambda state: state),
    ("pose-w6-modules-1-4-3", "hrnet-pose", {"width": 6, "modules": (1, 4, 3)}, lambda state: {"state_dict": state}),
    ("pose-depth-2-stage1-2", "hrnet-pose", {"blocks": 2, "stage1": 2}, lambda state: {"model": state, "epoch": 3}),
    ("pose-module-prefix", "dark", {"outputs": 16}, lambda state: {"best_state_dict": prefixed("module.")(state)}),
    ("mmpose-1", "mmpose", {}, lambda state: {"meta": {}, "state_dict": openmm("head.")(state)}),
    ("mmpose-0", "udp", {}, lambda state: {"state_dict": openmm("keypoint_head.")(state)}),
    ("segmentation", "hrnet-seg", {"corners": False, "outputs": 19}, full_model),
    ("segmentation-aligned", "hrnet-seg-aligned", {"corners": True, "outputs": 5}, prefixed("model.")),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["static", "supernet"])
@pytest.mark.parametrize(("recipe", "shape", "wrap"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_imported_net_gives_what_the_public_net_gives(
    tmp_path: Path, kind: str, recipe: str, shape: dict[str, object], wrap: Callable[[State], object]
) -> None:
    oracle = public(**shape)  # type: ignore[arg-type]
    path = save(tmp_path / "net.pth", wrap(oracle.state_dict()), legacy=kind == "supernet")
    imported = import_checkpoint(path, options(recipe, kind))
    picture = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = oracle.double()(picture)
    if kind == "static":
        assert not imported.initialised
        output = static_output(imported.weights, picture)
    else:
        net = Supernet(get_space("scalenas"), imported.weights.settings, seed=1).eval()
        load_into(net, imported.weights)
        assert imported.initialised
        with torch.no_grad():
            output = net.double()(picture, imported.spec)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_supernet_import_agrees_exactly_with_static_import_and_tells_what_it_initialised(tmp_path: Path) -> None:
    path = save(tmp_path / "net.pth", plain_state())
    static, shared = (import_checkpoint(path, options("hrnet-pose", kind)) for kind in ("static", "supernet"))
    assert static.spec == shared.spec
    net = Supernet(get_space("scalenas"), shared.weights.settings).eval()
    load_into(net, shared.weights)
    picture = torch.randn(1, 3, *SIZE)
    extracted = get_space("scalenas").static(static.spec).eval()
    load_into(extracted, shared.weights)
    plain = get_space("scalenas").static(static.spec).eval()
    load_into(plain, static.weights)
    with torch.no_grad():
        expected = plain(picture)
        assert torch.equal(net(picture, shared.spec), expected)
        assert torch.equal(extracted(picture), expected)
    tensors = set(shared.weights.tensors)
    assert set(shared.initialised) == tensors - set(static.weights.tensors)
    again = import_checkpoint(path, options("hrnet-pose", "supernet"))
    other = import_checkpoint(path, options("hrnet-pose", "supernet", seed=1))
    assert again.weights.digest == shared.weights.digest != other.weights.digest


def test_half_precision_checkpoint_becomes_float32(tmp_path: Path) -> None:
    oracle = public().half()
    weights = import_checkpoint(save(tmp_path / "net.pth", oracle.state_dict()), options("hrnet-pose")).weights
    picture = torch.randn(1, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = oracle.double()(picture)
    assert {tensor.dtype for tensor in weights.tensors.values()} == {torch.float32}
    output = static_output(weights, picture)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_absolute_bn_recipe_scales_by_magnitude(tmp_path: Path) -> None:
    oracle = public(corners=False, outputs=19)
    path = save(tmp_path / "net.pth", oracle.state_dict())
    for module in oracle.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data = module.weight.data.abs() + 1e-5
    imported = import_checkpoint(path, options("hrnet-seg-abn"))
    picture = torch.randn(1, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = oracle.double()(picture)
    output = static_output(imported.weights, picture)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("recipe", "fields"),
    [
        ("hrnet-pose", {"affine": "classic", "decode": "quarter", "flip_shift": True}),
        ("mmpose", {"affine": "classic", "decode": "quarter", "flip_shift": True}),
        ("mmpose-dark", {"affine": "classic", "decode": "dark", "flip_shift": True, "blur": 11}),
        ("dark", {"affine": "udp", "decode": "dark", "flip_shift": False, "blur": 11}),
        ("udp", {"affine": "udp", "decode": "dark-udp", "flip_shift": False, "blur": 11}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pose_recipes_fix_everything_but_the_net(tmp_path: Path, recipe: str, fields: dict[str, object]) -> None:
    path = save(tmp_path / "net.pth", plain_state())
    made = import_checkpoint(path, options(recipe, size=None)).weights.recipe
    assert isinstance(made, PoseRecipe)
    assert {name: getattr(made, name) for name in fields} == fields
    assert (made.height, made.width, made.padding, made.color) == (256, 192, 1.25, "rgb")
    assert made.mean == (123.675, 116.28, 103.53)
    assert made.joints[0] == "nose"
    assert len(made.flip_pairs) == 8


@pytest.mark.parametrize(
    ("recipe", "corners", "outputs"), [("hrnet-seg", False, 19), ("hrnet-seg-aligned", True, 7)], ids=["v1.1", "ocr"]
)
def test_segmentation_recipes_carry_align_corners_into_net_and_decode(
    tmp_path: Path, recipe: str, corners: bool, outputs: int
) -> None:
    path = save(tmp_path / "net.pth", public(corners=corners, outputs=outputs).state_dict())
    imported = import_checkpoint(path, options(recipe, size=None))
    made = imported.weights.recipe
    assert isinstance(made, SegmentationRecipe)
    assert made.align_corners is corners
    assert len(made.classes) == outputs
    assert imported.spec.to_json()["inputs"] == {"image": [3, 1024, 2048]}
    for key in ("fuse_upsample", "head_upsample"):
        assert imported.weights.settings[key] == {"mode": "bilinear", "align_corners": corners}


def test_joint_set_is_chosen_by_name_or_numbered(tmp_path: Path) -> None:
    path = save(tmp_path / "net.pth", public(outputs=14).state_dict())
    numbered = import_checkpoint(path, options("hrnet-pose")).weights.recipe
    named = import_checkpoint(path, options("hrnet-pose", names="lspet-14")).weights.recipe
    assert isinstance(numbered, PoseRecipe)
    assert isinstance(named, PoseRecipe)
    assert numbered.joints[13] == "joint13"
    assert named.joints[13] == "head_top"
    with pytest.raises(UserError, match="has 14 output channels, coco-17 has 17"):
        import_checkpoint(path, options("hrnet-pose", names="coco-17"))


def test_offset_heads_of_udp_are_refused_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "net.pth", public(outputs=51).state_dict())
    with pytest.raises(UserError, match=r"51 output channels: heatmaps and x and y offsets of 17 joints .*17 channels"):
        import_checkpoint(path, options("udp"))
    face = import_checkpoint(path, options("dark")).weights.recipe
    assert isinstance(face, PoseRecipe)
    assert len(face.joints) == 51


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def adding(**tensors: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, **{name.replace("__", "."): value for name, value in tensors.items()}}


ONE = torch.ones(1)
FIRST = "stage2__0__branches__0__0__conv1__weight"


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("hrnet-pose", without("layer1.0.conv2.weight"), r"1 missing: layer1\.0\.conv2\.weight$"),
        ("hrnet-pose", without("final_layer.bias"), r"1 missing: final_layer\.bias$"),
        ("hrnet-pose", adding(extra__weight=ONE), r"1 surplus: extra\.weight$"),
        ("hrnet-pose", adding(conv1__weight=ONE), r"1 misshaped: conv1\.weight \(1,\) instead of \(64, 3, 3, 3\)$"),
        ("hrnet-pose", adding(module__conv1__weight=ONE), "has conv1.weight twice, under different prefixes"),
        ("hrnet-pose", adding(ocr_gather_head__w=ONE, aux_head__w=ONE), r"an OCR head \(aux_head, ocr_gather_head\)"),
        ("hrnet-pose", adding(incre_modules__w=ONE), r"an ImageNet classification head \(incre_modules\)"),
        ("hrnet-pose", adding(final_layers__0__w=ONE), "HigherHRNet's bottom-up heads"),
        ("hrnet-seg", lambda state: state, "has the head final_layer, which is not that of a segmentation net"),
        ("hrnet-pose", lambda state: {"fc.weight": ONE}, "so this is no HRNet"),
        ("hrnet-pose", adding(final_layer__weight=torch.tensor(1.0)), r"final_layer\.weight \(\) instead of \(17,"),
        ("hrnet-pose", adding(**{FIRST: torch.tensor(1.0)}), "setting width is 0; needed is an even positive number"),
        ("hrnet-pose", adding(stage2__0__branches__0__999999999__conv1__weight=ONE), "1 surplus|missing"),
        ("hrnet-pose", adding(bn1__weight=torch.full((64,), torch.nan)), r"hold NaN or infinity \(bn1\.weight, "),
        ("hrnet-pose", adding(bn1__weight=torch.ones(64, dtype=torch.int8)), r"hold whole numbers \(bn1\.weight, "),
    ],
    ids=[
        "missing",
        "missing-head",
        "surplus",
        "misshaped",
        "twice",
        "ocr",
        "imagenet",
        "higher",
        "head",
        "other-net",
        "head-scalar",
        "width-scalar",
        "huge-number",
        "nan",
        "quantised",
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, recipe: str, change: Callable[[State], State], message: str
) -> None:
    path = save(tmp_path / "net.pth", change(plain_state()))
    with pytest.raises(UserError, match=message):
        import_checkpoint(path, options(recipe))


def test_long_lists_are_capped_with_a_count(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in plain_state().items() if "stage4" not in name}
    with pytest.raises(UserError, match=r"^\S+: .* \d+ missing: .* and \d+ more$"):
        import_checkpoint(save(tmp_path / "net.pth", state), options("hrnet-pose"))


def test_width_asked_for_is_checked(tmp_path: Path) -> None:
    path = save(tmp_path / "net.pth", plain_state())
    with pytest.raises(UserError, match="is a checkpoint of width 4, asked for is width 32"):
        import_checkpoint(path, options("hrnet-pose", width=32))


def test_checkpoint_goes_only_into_a_supernet_of_its_upsampling(tmp_path: Path) -> None:
    path = save(tmp_path / "net.pth", public(corners=True, outputs=19).state_dict())
    weights = import_checkpoint(path, options("hrnet-seg-aligned", "supernet")).weights
    other = Supernet(get_space("scalenas"), {**weights.settings, "fuse_upsample": {"mode": "nearest"}})
    with pytest.raises(UserError, match=r"fuse_upsample is .*bilinear.* in the weights, .*nearest.* in the supernet"):
        load_into(other, weights)


def test_unknown_recipe_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown recipe of scalenas 'hrnet'.*hrnet-pose"):
        import_checkpoint(tmp_path / "net.pth", options("hrnet"))


def command(path: Path, out: Path, *more: str) -> list[str]:
    return ["import-checkpoint", str(path), "--recipe", "hrnet-pose", "--size", "64x64", "--out", str(out), *more]


def test_command_writes_weights_and_prints_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "net.pth", OrderedDict(plain_state()))
    out = tmp_path / "w.safetensors"
    assert run(command(path, out, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    weights = load_weights(out)
    assert report["digest"] == weights.digest
    assert report["recipe"]["decode"] == "quarter"
    assert all(name.endswith("num_batches_tracked") for name in report["skipped"])
    assert weights.provenance["importer"] == "hrnet-pose"
    assert weights.provenance["source"] == "net.pth"
    assert run(command(path, out, "--as", "supernet", "--overwrite")) == 0
    assert "initialised: " in capsys.readouterr().out
    assert load_weights(out).kind == "supernet"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--width", "32"], "is a checkpoint of width 4, asked for is width 32"),
        (["--size", "100x64"], "size 100x64"),
        (["--size", "big"], "size 'big' is not HEIGHTxWIDTH"),
        (["--family", "nowhere"], "unknown family 'nowhere'"),
        (["--names", "coco"], "no joint set is called 'coco'"),
    ],
    ids=["width", "size-step", "size", "family", "names"],
)
def test_command_refuses_in_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    path = save(tmp_path / "net.pth", plain_state())
    assert run(command(path, tmp_path / "w.safetensors", *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [item.name for item in tmp_path.iterdir()] == ["net.pth"]


def test_command_takes_its_options_from_a_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "import.yaml"
    config.write_text("as: supernet\nrecipe: dark\nsize: 64x64\nout: w.safetensors\n")
    assert run(["import-checkpoint", "net.pth", "--config", str(config), "--seed", "5", "--print-config"]) == 0
    printed = capsys.readouterr().out
    for line in ("as: supernet", "recipe: dark", "seed: 5", "size: 64x64"):
        assert line in printed.splitlines()


def test_imagenet_weights_of_mmpose_are_named(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in plain_state().items() if not name.startswith("final_layer")}
    path = save(tmp_path / "net.pth", {"state_dict": {**state, "head.0.0.0.conv1.weight": ONE}})
    with pytest.raises(UserError, match=r"an ImageNet classification head \(head\)"):
        import_checkpoint(path, options("mmpose"))


def test_command_keeps_a_file_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.safetensors"
    out.write_text("mine")
    assert run(command(tmp_path / "net.pth", out)) == 2
    assert "exists already; name another file or pass --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_command_says_that_a_checkpoint_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(tmp_path / "none.pth", tmp_path / "w.safetensors")) == 2
    assert "none.pth: No such file" in capsys.readouterr().err
