import numpy as np
from numpy.typing import NDArray

def class_map(
    logits: NDArray[np.float32],
    out: NDArray[np.uint8],
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    instructions: str,
) -> None: ...
def instruction_sets() -> list[str]: ...
