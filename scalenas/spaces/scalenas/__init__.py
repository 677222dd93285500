"""ScaleNAS: HRNet's branches with elastic depths and elastic fusions (Cheng et al., AutoML-Conf 2022)."""

from scalenas.spaces.scalenas.space import SPACE, ScaleNasSpace

__all__ = ["SPACE", "ScaleNasSpace"]
