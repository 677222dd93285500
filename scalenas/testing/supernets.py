"""What every family must keep with torch: supernet and static net compute the same, and cost counts real modules."""

from __future__ import annotations

import torch

from scalenas.cost import LIVE
from scalenas.static import extract, static_net
from scalenas.testing.contract import Case, expect


def check_supernet(case: Case, *, size: tuple[int, int]) -> None:
    """Compares supernet, extracted net and fresh static net on every spec of the case.

    Args:
        case: The family, settings and number of specs.
        size: Height and width of the input tensors.

    Raises:
        AssertionError: outputs or initial weights differ in any bit, or parameters are not what `cost` says.
    """
    space = case.space
    supernet = space.supernet(case.settings).eval()
    generator = torch.Generator().manual_seed(case.seed)
    for spec in case.specs():
        channels = {name: shape[0] for name, shape in spec.inputs.items()}
        inputs = {name: torch.randn(1, int(count), *size, generator=generator) for name, count in channels.items()}
        net = extract(supernet, spec).eval()
        with torch.no_grad():
            expected = supernet(inputs, spec)
            same_live = supernet(inputs, space.live(spec))
            found = net(*inputs.values())
        expect(_equal(expected, found), f"supernet and extracted net differ for {spec}")
        expect(_equal(expected, same_live), f"{spec} and its live form differ")
        params = sum(parameter.numel() for parameter in net.parameters())
        counted = space.cost(spec, counting=LIVE).params
        expect(params == counted, f"{spec} has {params} parameters, cost says {counted}")
        fresh, own = static_net(spec, space=space).state_dict(), net.state_dict()
        expect(fresh.keys() == own.keys(), f"extracted and fresh nets of {spec} have different modules")
        unlike = [name for name in fresh if not torch.equal(fresh[name], own[name])]
        expect(not unlike, f"initial weights of {spec} do not follow from seed and name: {', '.join(unlike[:3])}")


def _equal(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return False
