"""The contract suite of families, for families from other packages too.

In a test of your own family:

    @pytest.mark.parametrize("check", scalenas.testing.SPACE_CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(scalenas.testing.Case(MY_SPACE))

    def test_contract_of_supernet():  # needs torch
        scalenas.testing.check_supernet(scalenas.testing.Case(MY_SPACE), size=(64, 64))
"""

from scalenas.testing.contract import SPACE_CHECKS, Case, check_space

__all__ = ["SPACE_CHECKS", "Case", "check_space", "check_supernet"]


def check_supernet(case: Case, *, size: tuple[int, int]) -> None:
    """Runs the checks that need torch on inputs of `size` (height, width); see `scalenas.testing.supernets`."""
    from scalenas.testing.supernets import check_supernet as check

    check(case, size=size)
