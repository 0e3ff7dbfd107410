from __future__ import annotations

import ctypes
import platform
import resource
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from skssl.nn.precision import matmul_precision, resolve_precision
from skssl.training import devices
from skssl.training.devices import keeping_memory, resolve_device


def set_device_counts(monkeypatch, **counts):
    for kind in ("cuda", "mps"):
        count = counts.get(kind, 0)
        monkeypatch.setattr(getattr(torch, kind), "device_count", lambda count=count: count)


@pytest.mark.parametrize(("counts", "expected"), [({"cuda": 2, "mps": 1}, "cuda"), ({"mps": 1}, "mps"), ({}, "cpu")])
def test_auto_takes_the_fastest_available_device(monkeypatch, counts, expected):
    set_device_counts(monkeypatch, **counts)
    assert resolve_device("auto") == torch.device(expected)


def test_devices_are_taken_by_name_or_as_objects(monkeypatch):
    set_device_counts(monkeypatch, cuda=2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps", "meta"])
def test_an_absent_device_is_refused(monkeypatch, device):
    set_device_counts(monkeypatch)
    with pytest.raises(ValueError, match=f"device='{device}' is not available: torch finds no device of type"):
        resolve_device(device)


def test_an_index_beyond_the_last_device_is_refused(monkeypatch):
    set_device_counts(monkeypatch, cuda=1)
    with pytest.raises(ValueError, match=r"device='cuda:1' is not available: torch finds 1 device\(s\) of type 'cuda'"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("device", ["gpu", "", None, 1.5])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="device must be 'auto' or a device that torch knows"):
        resolve_device(device)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_precisions_are_taken_by_name(name):
    assert resolve_precision(name, torch.device("cpu"), side=32) is getattr(torch, name)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_precision_on_cuda_follows_the_hardware(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert resolve_precision("auto", torch.device("cuda"), side=32) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, torch.float32),  # not x86
        ({"amx_bf16": False, "avx512_bf16": False}, torch.float32),
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),  # AMD since Zen 4
    ],
)
def test_auto_precision_on_a_cpu_follows_the_hardware(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert resolve_precision("auto", torch.device("cpu"), side=32) is expected


def test_auto_precision_elsewhere_is_float32():
    assert resolve_precision("auto", torch.device("mps"), side=32) is torch.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="Unknown precision 'bfloat61', did you mean 'bfloat16'"):
        resolve_precision("bfloat61", torch.device("cpu"), side=32)


def test_a_cpu_computes_small_images_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert resolve_precision("auto", torch.device("cpu"), side=15) is torch.float32
    with pytest.raises(ValueError, match=r"needs images of at least 16 pixels a side\. Got 8"):
        resolve_precision("bfloat16", torch.device("cpu"), side=8)


def cleared_pages():
    """Allocate and free 80 MB several times, and return how many pages the system had to clear at least."""
    counts = []
    for _ in range(20):  # small blocks that others allocate in between may divide the free one at first
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(20_000_000)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_within_the_context_and_returned_at_its_end(monkeypatch):
    monkeypatch.setattr(devices, "LONG", 0.0)
    devices._glibc("malloc_trim", 0)  # what other tests have freed is not counted
    before = resident_bytes()
    with keeping_memory():
        with keeping_memory():
            assert cleared_pages() < 1000
        assert cleared_pages() < 1000, "memory is kept until the outermost context ends"
        assert resident_bytes() > before + 60e6
    assert devices._keeping == 0
    assert resident_bytes() < before + 40e6


def test_keeping_memory_does_nothing_without_glibc(monkeypatch):
    for error in (AttributeError("mallopt"), OSError("no library"), TypeError("name must be a string")):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, error=error: (_ for _ in ()).throw(error))
        with keeping_memory():
            torch.ones(10)
        assert devices._glibc("mallopt", -1, 0) is None
        assert devices._keeping == 0


def test_matmul_precision_is_set_within_the_context_on_cuda():
    for device, precision, expected in (
        ("cuda", "high", "high"),
        ("cuda", None, "highest"),
        ("cpu", "high", "highest"),
    ):
        with suppress(ZeroDivisionError), matmul_precision(precision, torch.device(device)):
            assert torch.get_float32_matmul_precision() == expected
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "highest"
