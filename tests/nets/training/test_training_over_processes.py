"""Two processes give what one gives with the same global batch; BN over processes is BN over the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from scalenas.data.samples import Feed
from scalenas.training.ranks import BatchNormOverRanks, Ranks, join, over_ranks
from scalenas.training.run import Place, Run
from scalenas_runtime.errors import UserError
from tests.nets.training import together, toys

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_two_processes_match_one(tmp_path: Path) -> None:
    alone = together.train(tmp_path / "one", Ranks())
    script = str(ROOT / "tests" / "nets" / "training" / "together.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    paths = os.pathsep.join([str(ROOT), *[path for path in sys.path if path]])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, script, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    together_trained = torch.load(tmp_path / "tensors.pt")
    for task, tensors in alone.items():
        both = together_trained[task]
        assert both.keys() == tensors.keys()
        far = {name: float((both[name] - value).abs().max()) for name, value in tensors.items()}
        assert max(far.values()) < 1e-4, (task, max(far, key=lambda name: far[name]))
        start = Run(toys.config(), together.supply(task), Place(tmp_path, quiet=True)).net
        moved = max(float((tensors[name] - value).abs().max()) for name, value in start.state_dict().items())
        assert moved > 1e-3


def _normalise(rank: int, port: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    ranks = join()
    x, norm = _case()
    parts = torch.split(x, [1, 3])
    net = nn.Sequential(norm)
    over_ranks(net, ranks)
    own = parts[rank].detach().requires_grad_()
    result = net(own)
    (result * torch.split(_weights(x), [1, 3])[rank]).sum().backward()
    ranks.average_gradients(net.parameters())
    given = {
        "x": own.grad,
        "result": result.detach(),
        **{name: weight.grad for name, weight in norm.named_parameters()},
    }
    torch.save({**given, **dict(norm.named_buffers())}, f"{folder}/{rank}.pt")
    ranks.close()


def _case() -> tuple[torch.Tensor, nn.BatchNorm2d]:
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=0.3)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2, generator=generator)
    return 5 + 3 * torch.randn(4, 3, 5, 2, generator=generator), norm


def _weights(x: torch.Tensor) -> torch.Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def test_batch_norm_over_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    spawn(_normalise, args=(29511, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    x, norm = _case()
    x.requires_grad_()
    result = norm(x)
    (result * _weights(x)).sum().backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(torch.cat([first["result"], second["result"]]), result.detach())
    torch.testing.assert_close(torch.cat([first["x"], second["x"]]), x.grad)
    for name, weight in norm.named_parameters():
        # Gradients are averaged over the processes; the sum here is over both.
        torch.testing.assert_close(2 * first[name], weight.grad)
        assert torch.equal(first[name], second[name])
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(first[name], buffer)


def _read_torn(rank: int, port: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    ranks = join()
    config = toys.config(schedule={"steps": 4}, checkpoint_steps=100)
    # The second process's sample of the third step.
    bad = Feed(config.batch, config.seed).index(5, 8)
    supply = replace(toys.pose_supply(), samples=toys.Torn(bad))
    try:
        Run(config, supply, Place(Path(folder) / "run", ranks, quiet=True)).train()
    except UserError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))
    ranks.close()


def test_a_torn_picture_of_one_process_ends_all_of_them_with_a_checkpoint(tmp_path: Path) -> None:
    spawn(_read_torn, args=(29512, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert first.startswith("another process has no batch; its own line says why; the last good checkpoint is")
    assert "is truncated; the last good checkpoint is" in second
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]


def test_one_process_keeps_torchs_own_batch_norm() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    over_ranks(net, Ranks())
    assert type(net[1]) is nn.BatchNorm2d
    over_ranks(net, Ranks(0, 2))
    assert type(net[1]) is BatchNormOverRanks
    x = torch.randn(2, 3, 4, 4)
    plain = nn.BatchNorm2d(4).eval()
    assert torch.equal(net.eval()(x), plain(net[0](x)))


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    ranks = join()
    assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
    assert ranks.shared("x") == "x"
    ranks.wait()
    ranks.close()
