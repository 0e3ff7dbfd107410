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


def present(monkeypatch, **counts):
    for kind in ("cuda", "mps"):
        count = counts.get(kind, 0)
        monkeypatch.setattr(getattr(torch, kind), "device_count", lambda count=count: count)


@pytest.mark.parametrize(("counts", "expected"), [({"cuda": 2, "mps": 1}, "cuda"), ({"mps": 1}, "mps"), ({}, "cpu")])
def test_auto_takes_the_fastest_device_there_is(monkeypatch, counts, expected):
    present(monkeypatch, **counts)
    assert resolve_device("auto") == torch.device(expected)


def test_a_device_by_name_or_as_an_object(monkeypatch):
    present(monkeypatch, cuda=2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps", "meta"])
def test_an_absent_device_is_refused(monkeypatch, device):
    present(monkeypatch)
    with pytest.raises(ValueError, match=f"device='{device}' is not available: torch finds no device of type"):
        resolve_device(device)


def test_an_index_beyond_the_last_device_is_refused(monkeypatch):
    present(monkeypatch, cuda=1)
    with pytest.raises(ValueError, match=r"device='cuda:1' is not available: torch finds 1 device\(s\) of type 'cuda'"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("device", ["gpu", "", None, 1.5])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="device must be 'auto' or a device that torch knows"):
        resolve_device(device)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_precision_by_name(name):
    assert resolve_precision(name, torch.device("cpu"), side=32) is getattr(torch, name)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_precision_on_cuda_follows_the_hardware(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert resolve_precision("auto", torch.device("cuda"), side=32) is expected


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize(("amx", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_auto_precision_on_a_cpu_follows_the_hardware(monkeypatch, public, amx, expected):
    if public:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    else:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolve_precision("auto", torch.device("cpu"), side=32) is expected


def test_auto_precision_elsewhere_is_float32():
    assert resolve_precision("auto", torch.device("mps"), side=32) is torch.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="Unknown precision 'bfloat61', did you mean 'bfloat16'"):
        resolve_precision("bfloat61", torch.device("cpu"), side=32)


def test_a_cpu_computes_small_images_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert resolve_precision("auto", torch.device("cpu"), side=15) is torch.float32
    with pytest.raises(ValueError, match=r"needs images of at least 16 pixels a side\. Got 8"):
        resolve_precision("bfloat16", torch.device("cpu"), side=8)


def cleared_pages():
    """Write to 400 MB that were freed just before, some times, and count the pages that the system had to clear."""
    counts = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(100_000_000)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)  # at first other blocks are in the way


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_is_kept_for_the_next_step_and_given_back_in_the_end(monkeypatch):
    monkeypatch.setattr(devices, "LONG", 0.0)
    before = resident()
    with keeping_memory():
        with keeping_memory():
            assert cleared_pages() < 1000
        assert cleared_pages() < 1000, "until the outermost ends"
        assert resident() > before + 300e6
    assert devices._keeping == 0
    assert resident() < before + 100e6


def test_where_there_is_no_glibc_nothing_is_kept(monkeypatch):
    for error in (AttributeError("mallopt"), OSError("no library"), TypeError("name must be a string")):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, error=error: (_ for _ in ()).throw(error))
        with keeping_memory():
            torch.ones(10)
        assert devices._glibc("mallopt", -1, 0) is None
        assert devices._keeping == 0


def test_products_have_another_precision_for_a_while_on_cuda():
    for device, precision, expected in (
        ("cuda", "high", "high"),
        ("cuda", None, "highest"),
        ("cpu", "high", "highest"),
    ):
        with suppress(ZeroDivisionError), matmul_precision(precision, torch.device(device)):
            assert torch.get_float32_matmul_precision() == expected
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "highest"
