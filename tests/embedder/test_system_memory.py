import pytest
import torch

from cardioembed.embedder.system_memory import available_bytes, peak_bytes

CPU = torch.device("cpu")
V2 = {"memory.max": "3000000", "memory.current": "2500000", "memory.stat": "anon 1\ninactive_file 1000000\n"}
V1 = {
    "memory.limit_in_bytes": "3000000",
    "memory.usage_in_bytes": "2500000",
    "memory.stat": "inactive_file 7\ntotal_inactive_file 1000000\n",
}


@pytest.mark.parametrize(
    ("group", "folder", "files", "expected"),
    [
        ("0::/a/b", "sys/fs/cgroup/a", V2, 1_500_000),
        ("0::/", "sys/fs/cgroup", V2, 1_500_000),
        ("4:memory:/host/path", "sys/fs/cgroup/memory", V1, 1_500_000),
        ("0::/", "sys/fs/cgroup", V2 | {"memory.max": "max"}, 4_096_000),
        ("3:cpu:/", "sys/fs/cgroup", V2, 4_096_000),
    ],
)
def test_available_memory_respects_a_container(tmp_path, group, folder, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text(group + "\n")
    (tmp_path / folder).mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / folder / name).write_text(text)
    assert available_bytes(CPU, tmp_path) == expected


def test_peak_memory_rises_with_what_is_held():
    before = peak_bytes(CPU)
    held = torch.ones(100_000_000)
    assert peak_bytes(CPU) > max(before, held.nbytes)
