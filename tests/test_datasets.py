from __future__ import annotations

import hashlib
import io
import itertools
import lzma
import os
import re
import socket
import tarfile
import tracemalloc
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torchvision.datasets import ImageFolder

from skssl import BadImageWarning
from skssl.datasets import connection_timeout, load_images, make_clips, make_rings, make_shapes
from skssl.images import as_images
from skssl.images.known_folders import IMAGENET100, KNOWN_FOLDERS, find_known_folder

STARTED_IN = os.getcwd()
SKSSL_DATA = os.environ.get("SKSSL_DATA", "")
X, Y = make_shapes(24, image_size=8, n_classes=3, random_state=0)


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide all data sets but those that the test writes."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SKSSL_DATA", raising=False)


def write(folder: Path, images: np.ndarray, classes: np.ndarray, ending: str = "png") -> Path:
    for i, (image, name) in enumerate(zip(images, classes, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name / f"{i:03}.{ending}")
    return folder


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:xz") as members:
        members.add(folder, arcname=".")
    return archive


def assert_same(loaded: tuple[Any, np.ndarray], images: np.ndarray, classes: np.ndarray) -> None:
    """Check that the loaded images are those that were written, sorted by class."""
    order = np.lexsort((np.arange(len(classes)), classes))
    np.testing.assert_array_equal(loaded[0], images[order])
    np.testing.assert_array_equal(loaded[1], classes[order])


# Folders


def test_folder_of_class_folders(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", X, Y)
    (folder / "readme.txt").write_text("no image")
    (folder / "disc" / "notes.txt").write_text("no image")
    (folder / "disc" / "._000.png").write_text("no image, despite its name")
    for path in (folder, str(folder)):
        with pytest.warns(
            BadImageWarning, match=r"2 without the ending of an image file \('disc/notes.txt', 'readme.txt'\)"
        ):
            assert_same(load_images(path), X, Y)
    with pytest.raises(ValueError, match=r"no split 'test'\. Images at test/<class>/<file> were expected"):
        load_images(folder, "test")


def test_folder_of_splits(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(folder / "train", X[:20], Y[:20])
    write(folder / "test", X[20:], Y[20:])
    assert_same(load_images(folder), X[:20], Y[:20])
    assert_same(load_images(folder, "test"), X[20:], Y[20:])
    with pytest.raises(ValueError, match=r"no split 'val'.* Its splits are \['test', 'train'\]"):
        load_images(folder, "val")


def test_folders_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", X[:16], Y[:16])
    write(tmp_path / "elsewhere", X[16:], Y[16:])
    for i, name in enumerate(np.unique(Y)):  # links to a folder and to a file, and folders in class folders
        (folder / name / "more").mkdir()
        (folder / name / "linked.png").symlink_to(next((folder / name).glob("0*.png")))
        if (tmp_path / "elsewhere" / name).exists():
            (folder / name / "more" / "linked").symlink_to(tmp_path / "elsewhere" / name)
        Image.fromarray(X[i]).save(folder / name / "more" / "deep.PNG")
    (folder / "linked").symlink_to(tmp_path / "elsewhere" / "disc")
    expected = ImageFolder(str(folder))
    images, y = load_images(folder)
    assert len(images) == len(expected)
    wanted = {path: expected.classes[k] for path, k in expected.samples}
    order = sorted(wanted, key=lambda path: Path(path).relative_to(folder).as_posix())
    assert y.tolist() == [wanted[path] for path in order]
    np.testing.assert_array_equal(images, [np.asarray(Image.open(path)) for path in order])


def test_circular_and_broken_links_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", X, Y)
    (folder / "disc" / "up").symlink_to(folder)
    (folder / "square" / "self").symlink_to(folder / "square" / "self")  # a link to itself
    (folder / "cross").symlink_to(tmp_path / "not mounted")
    message = (
        r"2 with a broken link \('cross', 'square/self'\); 1 with a link to a folder that contains it \('disc/up'\)"
    )
    with pytest.warns(BadImageWarning, match=message):
        assert_same(load_images(folder), X, Y)


def test_folder_without_class_folders_has_no_labels(tmp_path: Path) -> None:
    folder = write(tmp_path, X, np.full(24, "data")) / "data"
    images, y = load_images(folder)
    np.testing.assert_array_equal(images, X)
    assert y is None
    with pytest.raises(ValueError, match="no split 'test'"):
        load_images(folder, "test")
    packed, y = load_images(pack(folder, tmp_path / "small.tar.xz"), data_home=tmp_path / "kept")
    np.testing.assert_array_equal(packed, X)
    assert y is None


def test_splits_may_have_no_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "data", X, np.repeat(["train", "test"], 12))
    images, y = load_images(tmp_path / "data", "test")
    np.testing.assert_array_equal(images, X[12:])
    assert y is None
    write(tmp_path / "data", X[:1], np.array(["bus"]))  # now "train" and "test" are classes
    assert load_images(tmp_path / "data")[1].tolist() == ["bus"] + ["test"] * 12 + ["train"] * 12


def test_images_beside_splits_and_classes_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", X[:2], np.array(["cat", "dog"]))
    write(folder / "train", X[:20], Y[:20])
    write(folder / "test" / "disc", X[20:], np.full(4, "deep"))
    Image.fromarray(X[0]).save(folder / "train" / "a.png")
    Image.fromarray(X[0]).save(folder / "b.png")
    expected = (
        r"Found 20 images in .*data'\. Left out: 3 beside the split folders test, train \('b\.png', "
        r"'cat/000\.png', 'dog/001\.png'\); 1 in no class folder \('train/a\.png'\)\."
    )
    with pytest.warns(BadImageWarning, match=expected) as caught:
        assert_same(load_images(folder), X[:20], Y[:20])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(BadImageWarning, match="3 beside"):
        assert load_images(folder, "test")[1].tolist() == ["disc"] * 4
    with pytest.raises(ValueError, match=r"no split 'val'.* Its splits are \['test', 'train'\]"):
        load_images(folder, "val")


def test_splits_of_other_names_are_found_by_their_class_folders(tmp_path: Path) -> None:
    for fold in ("fold1", "fold2"):
        write(tmp_path / "data" / fold, X, Y)
    assert_same(load_images(tmp_path / "data", "fold2"), X, Y)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_unreadable_images_are_skipped_and_named_together_with_other_files(
    mixed: bool, packed: bool, tmp_path: Path
) -> None:
    folder = write(tmp_path / "data", X, Y)
    (folder / "disc" / "zzz.png").write_text("no image")
    cut = png(X[0])[:60]
    (folder / "square" / "cut.png").write_bytes(b"" if mixed else cut)  # the header of a cut file can be read
    (folder / "notes.txt").write_text("no image")
    for name in ("Thumbs.db", ".DS_Store", ".ipynb_checkpoints/000.png", "__MACOSX/disc/000.png"):
        (folder / "disc" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "disc" / name).write_bytes(png(X[0]))
    if mixed:
        Image.fromarray(X[0]).resize((9, 8)).save(folder / "star.png")
        (folder / "disc" / "wide.png").write_bytes((folder / "star.png").read_bytes())
        (folder / "star.png").unlink()
    home = tmp_path / "kept"
    where = pack(folder, tmp_path / "small.tar.xz") if packed else folder
    for _ in range(2):  # the second time without a decoded copy
        with pytest.warns(BadImageWarning) as caught:
            images, y = load_images(where, data_home=home, on_bad_image="skip")
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert re.search(
            rf"Found {24 + mixed} images in .* 1 without the ending of an image file \('notes.txt'\); "
            r"2 that cannot be read \('disc/zzz.png', 'square/cut.png'\)\. The first error: The file .*zzz\.png",
            str(caught[0].message),
        )
    if mixed:
        assert len(images) == len(y) == 25
        assert isinstance(images[0], bytes if packed else str)
    else:
        assert_same((images, y), X, Y)
    with pytest.raises(ValueError, match=r"zzz\.png.* cannot be read as an image"):
        load_images(where, data_home=home)
    with pytest.raises(ValueError, match="Unknown on_bad_image 'drop'"):
        load_images(where, on_bad_image="drop")


def test_gray_files_have_one_channel(tmp_path: Path) -> None:
    images, _ = load_images(write(tmp_path / "data", X[..., 0], Y))
    assert images.shape == (24, 8, 8, 1)


def test_files_of_sixteen_bits_keep_their_numbers(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (24, 8, 8), dtype=np.uint16)
    for where in (folder := write(tmp_path / "data", deep, Y), pack(folder, tmp_path / "small.tar.xz")):
        for _ in range(2):  # the second time from the decoded copy of the archive
            assert_same(load_images(where, data_home=tmp_path / "kept"), deep[..., None].astype(np.float32), Y)


def test_images_of_several_sizes_are_returned_as_paths(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", X, Y)
    Image.fromarray(X[0]).resize((9, 8)).save(folder / "disc" / "wide.png")
    paths, y = load_images(folder)
    assert all(Path(path).parent == folder / name for path, name in zip(paths, y, strict=True))
    assert as_images(paths, (8, 8)).shape == (3, 8, 8)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", X, Y)
    (folder / "disc" / "zzz.png").write_text("no image")
    with pytest.raises(ValueError, match=r"The file .*zzz\.png.* cannot be read as an image"):
        load_images(folder)


def test_empty_folders_and_missing_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"no split 'train'.* at <class>/<file> if all are for training"):
        load_images(tmp_path / "data")
    for missing in (tmp_path / "missing", str(tmp_path / "missing"), "missing.npz"):
        with pytest.raises(
            FileNotFoundError, match=r"name_or_path is '.*missing.*', but there is no such folder or file"
        ):
            load_images(missing)


# .npz files


@pytest.mark.parametrize(
    ("keys", "split"),
    [
        (("X_train", "y_train"), "train"),
        (("x_train", "y_train"), "train"),
        (("X_test", "y_test"), "test"),
        (("val_images", "val_labels"), "val"),
        (("X", "y"), "train"),
        (("images", "labels"), "train"),
        (("data", "target"), "train"),
    ],
)
def test_npz_keys_and_splits(tmp_path: Path, keys: tuple[str, str], split: str) -> None:
    y = np.arange(24)[:, None]
    np.savez(tmp_path / "data.npz", **{keys[0]: X, keys[1]: y})
    loaded = load_images(tmp_path / "data.npz", split)
    np.testing.assert_array_equal(loaded[0], X)
    np.testing.assert_array_equal(loaded[1], np.arange(24))
    with pytest.raises(ValueError, match=r"no split 'other'.* its arrays are \["):
        load_images(tmp_path / "data.npz", "other")


# Archives


def test_archives_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "train", X[:20], Y[:20])
    write(tmp_path / "data" / "test", X[20:], Y[20:])
    archive = pack(tmp_path / "data", tmp_path / "small.tar.xz")
    home = tmp_path / "kept"
    assert_same(load_images(archive, data_home=home), X[:20], Y[:20])
    (copy,) = home.iterdir()  # no temporary file remains
    assert copy.name.startswith("small.tar.xz-")
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert_same(load_images(archive, "test", data_home=home), X[20:], Y[20:])
    # A changed archive is decoded again
    write(tmp_path / "data" / "test", X[20:][::-1], Y[20:])
    pack(tmp_path / "data", archive)
    assert_same(load_images(archive, "test", data_home=home), X[20:][::-1], Y[20:])


def test_archive_without_splits_is_read_if_data_home_is_not_writable(tmp_path: Path) -> None:
    archive = pack(write(tmp_path / "data", X, Y), tmp_path / "small.tar.xz")
    (tmp_path / "file").write_text("no folder")
    assert_same(load_images(archive, data_home=tmp_path / "file"), X, Y)
    with pytest.raises(ValueError, match="no split 'test'"):
        load_images(archive, "test")


def test_damaged_file_in_archive_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", X, Y)
    (folder / "disc" / "zzz.png").write_text("no image")
    with pytest.raises(ValueError, match=r"The file 'disc/zzz\.png' in .*small\.tar\.xz' cannot be read"):
        load_images(pack(folder, tmp_path / "small.tar.xz"))


def pack_bytes(archive: Path, members: dict[str, bytes | tarfile.TarInfo], ending: str = "") -> Path:
    """Write an archive of files, links and devices."""
    with tarfile.open(archive, f"w:{ending}") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return archive


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


PICTURES: dict[str, Any] = {f"{name}/{i}.png": png(X[i]) for i, name in enumerate("aabbcc")}


def test_archives_of_one_name_size_and_time_have_their_own_copies(tmp_path: Path) -> None:
    archives = []
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        file = io.BytesIO()
        Image.fromarray(X[i]).save(file, "BMP")
        content = {f"a/{k}.bmp": file.getvalue() for k in range(2)}
        archives.append(pack_bytes(tmp_path / str(i) / "small.tar", content))
        os.utime(archives[i], ns=(0, 0))
    assert os.path.getsize(archives[0]) == os.path.getsize(archives[1])
    for i in (0, 1, 0):
        np.testing.assert_array_equal(load_images(archives[i], data_home=tmp_path / "kept")[0][0], X[i])
    archives[0].write_bytes(archives[1].read_bytes())
    os.utime(archives[0], ns=(0, 0))
    np.testing.assert_array_equal(load_images(archives[0], data_home=tmp_path / "kept")[0][0], X[1])


@pytest.mark.parametrize("ending", ["", "gz", "bz2", "xz"])
def test_cut_archives_are_refused(ending: str, tmp_path: Path) -> None:
    archive = pack_bytes(tmp_path / "small.tar", PICTURES, ending)
    whole = archive.read_bytes()
    assert len(load_images(archive, data_home=tmp_path / "kept")[0]) == 6
    if ending:
        cuts = [*range(1, len(whole), len(whole) // 20), len(whole) - 1]
    else:
        with tarfile.open(archive) as members:
            cuts = [member.offset for member in members][1:]  # between members
        cuts += [cuts[2] + 100, cuts[2] + 600]
    for cut in cuts:
        archive.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"small\.tar' cannot be read as a tar archive: "):
            load_images(archive, data_home=tmp_path / "kept")
    middle = cuts[2]
    archive.write_bytes(whole[:middle] + b"junk" * 500 + whole[middle + 2000 :])
    with pytest.raises(ValueError, match=r"small\.tar' cannot be read as a tar archive: "):
        load_images(archive, data_home=tmp_path / "kept")
    if ending == "gz":  # whose checksum is at its end
        archive.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
        with pytest.raises(ValueError, match=r"small\.tar' cannot be read as a tar archive: BadGzipFile: CRC"):
            load_images(archive, data_home=tmp_path / "kept")


def zeros(archive: Path, name: str, size: int, kind: bytes = tarfile.REGTYPE) -> Path:
    """Write a small archive with a large member of zeros before the images."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    with lzma.open(archive, "w", preset=0) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size // 2**20):
            file.write(bytes(2**20))
        pack_bytes(archive.with_suffix(".rest"), PICTURES)
        file.write(archive.with_suffix(".rest").read_bytes())
    return archive


@pytest.mark.parametrize(
    ("name", "kind"), [("train/a.png", tarfile.REGTYPE), ("x", tarfile.XHDTYPE), ("x", tarfile.GNUTYPE_LONGNAME)]
)
def test_archives_that_unpack_to_too_much_are_refused(name: str, kind: bytes, tmp_path: Path) -> None:
    archive = zeros(tmp_path / "small.tar.xz", name, 2**26, kind)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"unpacks to more than 1,048,576 bytes\. .* set max_bytes to a larger number"):
        load_images(archive, data_home=tmp_path / "kept", max_bytes=2**20)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**24


def test_other_members_of_archives_are_not_kept_in_memory(tmp_path: Path) -> None:
    archive = zeros(tmp_path / "small.tar.xz", "README", 2**26)
    tracemalloc.start()
    with pytest.warns(BadImageWarning, match=r"Found 6 images in .* 1 without the ending .* \('README'\)"):
        images, _ = load_images(archive, data_home=tmp_path / "kept")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(images, X[:6])
    assert most < 2**24


def test_limit_of_archives_counts_decoded_images_and_is_lifted_by_none(tmp_path: Path) -> None:
    large = png(np.zeros((1000, 1000, 3), np.uint8))
    archive = pack_bytes(tmp_path / "small.tar", {f"a/{i}.png": large for i in range(4)}, "xz")
    with pytest.raises(ValueError, match=r"small\.tar' cannot be decoded: it unpacks to more than 1,000,000 bytes"):
        load_images(archive, data_home=tmp_path / "kept", max_bytes=1_000_000)
    assert load_images(archive, data_home=tmp_path / "kept", max_bytes=None)[0].shape == (4, 1000, 1000, 3)
    with pytest.raises(ValueError, match="max_bytes must be at least 1"):
        load_images(archive, max_bytes=0)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_archives_are_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a/link.png")
    info.type, info.linkname = kind, "/etc/passwd"
    archive = pack_bytes(tmp_path / "small.tar", {**PICTURES, "a/link.png": info})
    with pytest.raises(ValueError, match=r"it holds 'a/link\.png', which is a link or a device"):
        load_images(archive, data_home=tmp_path / "kept")


@pytest.mark.parametrize("name", ["../a/0.png", "/a/0.png", "a/../0.png"])
def test_paths_outside_of_archives_are_refused(name: str, tmp_path: Path) -> None:
    archive = pack_bytes(tmp_path / "small.tar", {**PICTURES, name: PICTURES["a/0.png"]})
    with pytest.raises(ValueError, match=r"it holds '.*0\.png', a path outside of the archive"):
        load_images(archive, data_home=tmp_path / "kept")


@pytest.mark.parametrize("size", [b"", b"9 size=9\n"])  # the size of all members, but not of the step to the next
def test_archives_of_negative_sizes_do_not_hang(size: bytes, tmp_path: Path) -> None:
    common, negative = tarfile.TarInfo("g"), tarfile.TarInfo("a")
    common.type, common.size, negative.size = tarfile.XGLTYPE, len(size), -1536 if size else -512
    data = common.tobuf(tarfile.GNU_FORMAT) + size.ljust(512, b"\0") + negative.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    first = tarfile.TarInfo("first").tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "small.tar").write_bytes(first + (data if size else data[1024:]))
    with pytest.raises(ValueError, match=r"small\.tar' cannot be read as a tar archive: "):
        load_images(tmp_path / "small.tar")


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "labels"])
def test_damaged_copies_of_archives_are_made_anew_with_a_warning(damage: str, tmp_path: Path) -> None:
    archive = pack_bytes(tmp_path / "small.tar", PICTURES)
    load_images(archive, data_home=tmp_path / "kept")
    (copy,) = (tmp_path / "kept").iterdir()
    whole = copy.read_bytes()
    if damage == "labels":
        np.savez(copy, X_train=X[:6], y_train=np.zeros(5))
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 3] ^= 1
        copy.write_bytes({"cut": whole[:500], "flipped": bytes(flipped), "foreign": b"no archive"}[damage])
    with pytest.warns(UserWarning, match=r"The decoded archive is damaged, so it is decoded anew\. .*small"):
        images, y = load_images(archive, data_home=tmp_path / "kept")
    np.testing.assert_array_equal(images, X[:6])
    assert y.tolist() == list("aabbcc")
    np.testing.assert_array_equal(load_images(archive, data_home=tmp_path / "kept")[0], X[:6])


def test_files_of_other_kinds_are_refused_in_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "few.npz", X=X[:5], y=np.arange(3))
    np.savez(tmp_path / "scalar.npz", X=np.array(1), y=np.arange(1))
    np.savez(tmp_path / "objects.npz", X=X[:1], y=np.array([{}], object), allow_pickle=True)
    np.savez_compressed(tmp_path / "bomb.npz", X=np.zeros((100, 100, 100)), y=np.zeros(100))
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.png").write_bytes(png(X[0]))
    (tmp_path / "a.tar").write_bytes(b"junk" * 1000)
    (tmp_path / "b.tar").write_bytes(b"")
    (tmp_path / "a.tar.xz").write_bytes(b"\xfd7zXZ\0junk")
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("X", b"no array")
        archive.writestr("y", b"no array")
    whole = bytearray((tmp_path / "bomb.npz").read_bytes())
    whole[27] ^= 8  # the length of the first name
    (tmp_path / "long.npz").write_bytes(whole)
    npz, tar = "cannot be read as an .npz file: ", "cannot be read as a tar archive: "
    for name, message in {
        "a.npy": npz + "it is another kind of file, or cut",
        "a.txt": npz + "it is another kind of file, or cut",
        "a.png": npz + "it is another kind of file, or cut",
        "few.npz": npz + r"'X' has 5 images, but 'y' has the shape \(3,\). One label for each image was expected",
        "scalar.npz": npz + "'X' is no array of at least one axis",
        "objects.npz": npz + "Object arrays cannot be loaded",
        "raw.npz": npz + "'X' is no array of at least one axis",
        "bomb.npz": npz + "it unpacks to more than 1,000,000 bytes",
        "long.npz": npz + r"BadZipFile: File name .{400,480}\.\.\.",
        "a.tar": tar,
        "b.tar": tar + "ReadError: empty file",
        "a.tar.xz": tar,
    }.items():
        limit = 10**8 if name == "long.npz" else 10**6
        with pytest.raises(ValueError, match=rf"{name}' {message}"):
            load_images(tmp_path / name, data_home=tmp_path / "kept", max_bytes=limit)


def test_unfinished_copies_of_killed_processes_are_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in (".old.tar-0123.npz.01234567", ".notes.npz", ".01234567"):
        (kept / name).write_bytes(b"unfinished")
    load_images(pack_bytes(tmp_path / "small.tar", PICTURES), data_home=kept)
    assert sorted(path.name[:10] for path in kept.iterdir()) == [".01234567", ".notes.npz", "small.tar-"]


def test_copies_are_in_the_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path / "cache"))
    load_images(pack_bytes(tmp_path / "small.tar", PICTURES))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


def test_files_that_pillow_decodes_by_programs_are_no_images_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "data", X, Y)
    for ending in ("eps", "ps", "pdf", "wmf"):
        (tmp_path / "data" / "disc" / f"a.{ending}").write_bytes(b"%!PS")
    with pytest.warns(BadImageWarning, match="4 without the ending of an image file"):
        assert_same(load_images(tmp_path / "data"), X, Y)


# Names


def test_folders_are_searched_for_names_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, shared, named = tmp_path / "kept", tmp_path / "shared" / "data", tmp_path / "named"
    for i, folder in enumerate((home, shared, named)):
        folder.mkdir(parents=True)
        np.savez(folder / "cifar10.npz", X_train=X, y_train=np.full(24, i))
    monkeypatch.setenv("SKSSL_DATA", str(named))
    for i in (2, 1, 0):  # a folder is searched after those before it are emptied
        assert load_images("cifar10", data_home=home)[1][0] == i
        ([named, shared, home][2 - i] / "cifar10.npz").unlink()
    write(home / "cifar10" / "train", X, Y)
    assert_same(load_images("cifar10", data_home=home), X, Y)
    pack(write(tmp_path / "own", X[::-1], Y[::-1]), named / "own-jpeg.tar.xz")
    assert_same(load_images("own", data_home=home), X[::-1], Y[::-1])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown data set 'cifar11', did you mean 'cifar10'"):
        load_images("cifar11")


def fake(monkeypatch: pytest.MonkeyPatch, name: str, data: Any) -> list[tuple[Path, dict[str, Any]]]:
    """Replace a data set of torchvision, and return the list of its calls."""
    from torchvision import datasets

    calls = []

    def make(root: Path, **kwargs: Any) -> Any:
        calls.append((root, kwargs))
        root.mkdir(exist_ok=True)  # as torchvision does before a download
        if isinstance(data, Exception):
            raise data
        return data

    monkeypatch.setattr(datasets, name, make)
    return calls


def test_torchvision_loads_names_that_no_folder_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.arange(24) % 3
    calls = fake(monkeypatch, "CIFAR10", SimpleNamespace(data=X, targets=y.tolist(), classes=["a", "b", "c"]))
    images, classes = load_images("cifar10", "test", data_home=tmp_path)
    np.testing.assert_array_equal(images, X)
    np.testing.assert_array_equal(classes, np.array(["a", "b", "c"])[y])
    calls += fake(monkeypatch, "SVHN", SimpleNamespace(data=X.transpose(0, 3, 1, 2), labels=y))
    np.testing.assert_array_equal(load_images("svhn", "extra", data_home=tmp_path, download=False)[1], y)
    assert calls == [(tmp_path / "torchvision", {"train": False, "download": True})]
    np.testing.assert_array_equal(load_images("cifar10", "test", data_home=tmp_path)[0], X)
    assert len(calls) == 2, "torchvision reads its own folder"
    with pytest.raises(ValueError, match=r"split must be 'train' or 'test' for 'cifar10'\. Got 'val'"):
        load_images("cifar10", "val")


@pytest.mark.parametrize("error", [urllib.error.URLError("no network"), RuntimeError("not found"), TimeoutError()])
def test_failed_download_lists_the_folders_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fake(monkeypatch, "MNIST", error)
    monkeypatch.setenv("SKSSL_DATA", str(tmp_path / "named"))
    with pytest.raises(FileNotFoundError, match=r"'mnist' was not found in .*named.*, and its download failed"):
        load_images("mnist")
    (tmp_path / "kept").mkdir()
    with pytest.raises(FileNotFoundError, match=r"shared/data.*kept, and download=False"):
        load_images("mnist", data_home=tmp_path / "kept", download=False)


def test_silent_server_times_out() -> None:
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(TimeoutError), connection_timeout(0.1):
        urllib.request.urlopen(f"http://127.0.0.1:{server.getsockname()[1]}/data")
    assert socket.getdefaulttimeout() == before


# Folders of known data sets


def save(path: Path, i: int, size: int = 8) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (i, 0, 0)).save(path, "PNG")  # files of other endings hold a PNG, too
    return str(path)


def red(images: Any) -> list[int]:
    """Return the red value of images of one color."""
    return [int(image[0, 0, 0]) for image in images]


@pytest.mark.parametrize("root", ["tiny-imagenet-200", "tiny-imagenet"])
def test_tiny_imagenet_is_read_with_its_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    folder = tmp_path / "sets" / root
    monkeypatch.setenv("SKSSL_DATA", str(tmp_path / "sets"))
    for i, wnid in enumerate(["n02", "n01"]):
        for k in range(2):
            save(folder / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", 10 * i + k)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("n02_0.JPEG\t0\t0\t8\t8\n")
        save(folder / "val" / "images" / f"val_{i}.JPEG", 100 + i)
        save(folder / "test" / "images" / f"test_{i}.JPEG", 200 + i)
    images, y = load_images("tiny-imagenet")
    assert (red(images), y.tolist()) == ([10, 11, 0, 1], ["n01", "n01", "n02", "n02"])
    with pytest.raises(ValueError, match=r"class of 'val/images/val_0\.JPEG' .* needs val/val_annotations\.txt"):
        load_images("tiny-imagenet", "val")
    (folder / "val" / "val_annotations.txt").write_text("val_1.JPEG\tn02\t0\t0\t8\t8\nval_0.JPEG\tn01\t0\t0\t8\t8\n")
    images, y = load_images("tiny-imagenet", "val")
    assert (red(images), y.tolist()) == ([100, 101], ["n01", "n02"])
    images, y = load_images("tiny-imagenet", "test")
    assert (red(images), y) == ([200, 201], None)
    with pytest.raises(ValueError, match="Unknown split 'valid', did you mean 'val'"):
        load_images("tiny-imagenet", "valid")


@pytest.mark.parametrize("name", ["imagenet", "imagenet100"])
@pytest.mark.parametrize("root", ["imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "imagenet/ILSVRC/Data/CLS-LOC"])
def test_usual_folders_of_imagenet_are_found(tmp_path: Path, root: str, name: str) -> None:
    (tmp_path / "first" / root).mkdir(parents=True)
    (tmp_path / "second" / root / "train").mkdir(parents=True)
    assert find_known_folder(name, [tmp_path / "first", tmp_path / "second"]) == tmp_path / "second" / root
    assert find_known_folder(name, [tmp_path / "first"]) is None


def test_imagenet_and_its_100_classes(tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "imagenet"
    wnids = [*IMAGENET100, "n01440764", "n15075141"]
    paths = {
        split: [save(folder / split / wnid / f"{wnid}_1.JPEG", i, size=8 + i % 2) for i, wnid in enumerate(wnids)]
        for split in ("train", "val")
    }
    for split in ("train", "val"):
        X, y = load_images("imagenet", split, data_home=tmp_path / "kept")
        assert (X, y.tolist()) == (sorted(paths[split]), sorted(wnids))
        X, y = load_images("imagenet100", split, data_home=tmp_path / "kept")
        assert (X, y.tolist()) == (sorted(paths[split][:100]), sorted(IMAGENET100))
    for wnid in wnids:
        (folder / "val" / wnid / f"{wnid}_1.JPEG").rename(folder / "val" / f"ILSVRC2012_val_{wnid}.JPEG")
        (folder / "val" / wnid).rmdir()
    with pytest.raises(ValueError, match=r"class of 'val/ILSVRC2012_val_n01440764\.JPEG' .*datasets\.ImageNet"):
        load_images("imagenet", "val", data_home=tmp_path / "kept")
    with pytest.raises(ValueError, match=r"lacks 100 of its 100 class folders.* torchvision\.datasets\.ImageNet"):
        load_images("imagenet100", "val", data_home=tmp_path / "kept")
    with pytest.raises(ValueError, match=r"'imagenet' has no split 'test': the folder .*test' does not exist"):
        load_images("imagenet", "test", data_home=tmp_path / "kept")


def test_imagenet100_in_a_folder_of_its_own(tmp_path: Path) -> None:
    assert len(set(IMAGENET100)) == 100
    assert sorted(IMAGENET100) == IMAGENET100
    content = "\n".join(IMAGENET100).encode()
    assert hashlib.sha256(content).hexdigest()[:16] == "d61d354b64beb3ce", "CMC's imagenet100.txt, sorted"
    save(tmp_path / "imagenet" / "train" / "n01" / "1.JPEG", 1)
    for i, wnid in enumerate(IMAGENET100[:99]):
        save(tmp_path / "imagenet100" / "train" / wnid / "1.JPEG", i)
    with pytest.raises(ValueError, match=f"lacks 1 of its 100 class .* as 'train/{IMAGENET100[99]}'. To use"):
        load_images("imagenet100", data_home=tmp_path)
    save(tmp_path / "imagenet100" / "train" / IMAGENET100[99] / "1.JPEG", 99)
    images, y = load_images("imagenet100", data_home=tmp_path)
    assert (red(images), y.tolist()) == (list(range(100)), IMAGENET100)


@pytest.mark.parametrize("root", ["miniplaces", "miniplaces/data"])
@pytest.mark.parametrize("lists", ["", "data", "development_kit/data"])
def test_miniplaces_with_the_lists_of_its_development_kit(tmp_path: Path, root: str, lists: str) -> None:
    folder = tmp_path / root
    scenes = ["a/abbey", "b/bakery/shop", "c/church/outdoor"]
    for i, scene in enumerate(scenes):
        save(folder / "images" / "train" / scene / "00000001.jpg", i)
        save(folder / "images" / "val" / f"0000000{i}.jpg", 100 + i)
    save(folder / "images" / "test" / "00000001.jpg", 200)
    images, y = load_images("miniplaces", data_home=tmp_path)
    assert (red(images), y.tolist()) == ([0, 1, 2], ["abbey", "bakery/shop", "church/outdoor"])
    with pytest.raises(ValueError, match=r"class of 'val/00000000\.jpg' .* needs val\.txt and categories\.txt"):
        load_images("miniplaces", "val", data_home=tmp_path)
    (folder / lists).mkdir(parents=True, exist_ok=True)
    (folder / lists / "categories.txt").write_text("".join(f"/{scene} {i}\n" for i, scene in enumerate(scenes)))
    (folder / lists / "val.txt").write_text("val/00000000.jpg 2\nval/00000001.jpg 0\nval/00000002.jpg 1\n")
    images, y = load_images("miniplaces", "val", data_home=tmp_path)
    assert (red(images), y.tolist()) == ([100, 101, 102], ["church/outdoor", "abbey", "bakery/shop"])
    images, y = load_images("miniplaces", "test", data_home=tmp_path)
    assert (red(images), y) == ([200], None)


@pytest.mark.parametrize("name", ["imagenet", "imagenet100", "miniplaces", "tiny-imagenet"])
def test_missing_folder_of_a_known_data_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKSSL_DATA", str(tmp_path / "named"))
    expected = (
        rf"'{name}' was not found: .*named.*shared/data.*kept.* {KNOWN_FOLDERS[name].folders[-1]} with .*https?://"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        load_images(name, data_home=tmp_path / "kept")
    (tmp_path / "named" / name).mkdir(parents=True)  # without a folder "train"
    with pytest.raises(FileNotFoundError, match="It is not downloaded"):
        load_images(name, data_home=tmp_path / "kept")
    np.savez(tmp_path / "named" / f"{name}.npz", X_train=X, y_train=Y)
    np.testing.assert_array_equal(load_images(name)[0], X)
    (tmp_path / "named" / f"{name}.npz").unlink()
    write(Path(name), X, Y)  # in the working directory
    assert_same(load_images(name), X, Y)


def test_links_and_unreadable_images_of_a_known_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "imagenet" / "train"
    for i in range(3):
        save(folder / f"n0{i}" / "1.JPEG", i)
    (folder / "n00" / "2.JPEG").write_bytes(b"no image")
    (folder / "n00" / "up").symlink_to(folder / "n00")
    (folder / "n03").symlink_to(folder / "n01")
    with pytest.raises(ValueError, match=r"2\.JPEG"):
        load_images("imagenet", data_home=tmp_path)
    message = (
        r"1 with a link to a folder that contains it \('train/n00/up'\); 1 that cannot be read \('train/n00/2.JPEG'\)"
    )
    with pytest.warns(BadImageWarning, match=message):
        images, y = load_images("imagenet", data_home=tmp_path, on_bad_image="skip")
    assert (red(images), y.tolist()) == ([0, 1, 2, 1], ["n00", "n01", "n02", "n03"])


@pytest.mark.slow
def test_cifar10_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(STARTED_IN)
    monkeypatch.setenv("SKSSL_DATA", SKSSL_DATA)
    folders = [Path(SKSSL_DATA or "nowhere"), Path("../shared/data")]
    if not any(list(folder.glob("cifar10*")) for folder in folders):
        pytest.skip("neither SKSSL_DATA nor ../shared/data holds CIFAR-10")
    images, y = load_images("cifar10", data_home=tmp_path, download=False)
    assert (images.shape, images.dtype) == ((50000, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(np.unique(y, return_counts=True)[1], [5000] * 10)
    images, y = load_images("cifar10", "test", data_home=tmp_path, download=False)
    assert images.shape == (10000, 32, 32, 3)
    assert 100 < images.mean() < 140


# Generated images


def test_make_shapes_is_uint8_balanced_and_seeded() -> None:
    images, y = make_shapes(100, image_size=16, random_state=3)
    again, y_again = make_shapes(100, image_size=16, random_state=np.random.RandomState(3))
    assert (images.shape, images.dtype) == ((100, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(y, y_again)
    assert (images != make_shapes(100, image_size=16, random_state=4)[0]).any()
    names, counts = np.unique(y, return_counts=True)
    assert names.tolist() == ["arrow", "crescent", "cross", "disc", "ring", "square", "star", "triangle"]
    assert set(counts) == {12, 13}


def test_make_shapes_is_brighter_at_the_top() -> None:
    images, _ = make_shapes(400, random_state=0)
    rows = images.mean((0, 2, 3))
    assert rows[:8].mean() > 1.2 * rows[-8:].mean()


def test_edges_tell_classes_of_make_shapes_better_than_pixels() -> None:
    """A representation can improve on the pixels."""
    images, y = make_shapes(1600, random_state=0)
    pixels = images.reshape(len(images), -1) / 255
    down, right = np.gradient(images.mean(-1) / 255, axis=(1, 2))
    steepness, direction = (
        np.hypot(down, right),
        (np.arctan2(down, right) % np.pi / np.pi * 18).astype(int) % 18,
    )
    edges = np.sqrt(np.stack([(steepness * (direction == k)).sum((1, 2)) for k in range(18)], 1))

    def score(features: np.ndarray, alpha: float) -> float:
        return RidgeClassifier(alpha).fit(features[:800], y[:800]).score(features[800:], y[800:])

    assert max(score(pixels, alpha) for alpha in (10, 1e3, 1e5)) < 0.25
    assert KNeighborsClassifier(20).fit(pixels[:800], y[:800]).score(pixels[800:], y[800:]) < 0.25
    assert score(edges, 0.1) > 0.35


@pytest.mark.parametrize("wrong", [{"n_samples": 0}, {"image_size": 7}, {"n_classes": 9}, {"n_classes": 1}])
def test_make_shapes_parameters_are_validated(wrong: dict[str, int]) -> None:
    ((parameter, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{parameter} must be (at least|from) .*\. Got {value}\."):
        make_shapes(**wrong)


def test_make_rings_is_balanced_and_seeded() -> None:
    images, y = make_rings(100, random_state=3)
    again, y_again = make_rings(100, random_state=np.random.RandomState(3))
    assert (images.shape, images.dtype) == ((100, 24, 24, 3), np.uint8)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(y, y_again)
    names, counts = np.unique(y, return_counts=True)
    assert (names.tolist(), counts.tolist()) == (["disc", "ring", "target"], [34, 33, 33])


def test_make_rings_fills_discs_and_dots_alone() -> None:
    """The mean brightness at the centre of a shape tells whether it is filled."""
    images, y = make_rings(300, image_size=48, random_state=0)
    bright = images.mean(-1)
    rows, columns = (np.indices((48, 48))[k] for k in (0, 1))
    weight = (bright - 64).clip(30) - 30
    total = weight.sum((1, 2))
    centre = [((weight * place).sum((1, 2)) / total).round().astype(int) for place in (rows, columns)]
    ratio = {
        name: np.median(
            [
                bright[i, r - 1 : r + 2, c - 1 : c + 2].mean()
                for i, r, c in zip(*np.nonzero(y == name), *[of[y == name] for of in centre], strict=True)
            ]
        )
        for name in ("disc", "ring", "target")
    }
    assert ratio["ring"] < 80 < 120 < min(ratio["disc"], ratio["target"])


@pytest.mark.parametrize("wrong", [{"n_samples": 0}, {"image_size": 7}])
def test_make_rings_parameters_are_validated(wrong: dict[str, int]) -> None:
    ((parameter, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{parameter} must be at least \d\. Got {value}\."):
        make_rings(**wrong)


def test_make_clips_is_balanced_and_seeded() -> None:
    clips, waveforms, shapes, motions = make_clips(64, n_frames=5, image_size=16, random_state=3)
    again = make_clips(64, n_frames=5, image_size=16, random_state=np.random.RandomState(3))
    assert (clips.shape, clips.dtype) == ((64, 5, 16, 16, 3), np.uint8)
    assert (waveforms.shape, waveforms.dtype) == ((64, 4000), np.float32)
    assert np.abs(waveforms).max() <= 1
    for first, second in zip((clips, waveforms, shapes, motions), again, strict=True):
        np.testing.assert_array_equal(first, second)
    pairs, counts = np.unique(np.stack([shapes, motions]), axis=1, return_counts=True)
    assert (pairs.shape, set(counts)) == ((2, 16), {4})


def test_only_the_masked_shape_of_a_clip_moves() -> None:
    clips, *_, masks = make_clips(32, random_state=0, return_masks=True)
    change = np.abs(np.diff(clips.astype(float), axis=1)).max(-1)
    moved = masks[:, 1:] | masks[:, :-1]
    near = np.stack([binary_dilation(mask, iterations=2) for mask in moved.reshape(-1, 32, 32)]).reshape(moved.shape)
    assert change[moved].mean() > 2 * change[~near].mean()
    assert change[~near].mean() < 16, "noise alone"


def test_motions_of_make_clips_show_in_the_masks() -> None:
    *_, motions, masks = make_clips(64, n_silent=0, random_state=0, return_masks=True)
    area = masks.sum((2, 3))
    rows, columns = (((masks.sum(axis) * np.arange(32)).sum(2) / area) for axis in (3, 2))
    spread = {name: np.ptp(of, axis=1) for name, of in {"fall": rows, "slide": columns, "grow": np.sqrt(area)}.items()}
    for name, of in spread.items():
        assert of[motions == name].min() > of[(motions != name)].max(), name


def test_tones_of_make_clips_fit_shape_and_motion() -> None:
    _, waveforms, shapes, motions = make_clips(96, random_state=0)
    spectrum = np.abs(np.fft.rfft(waveforms[:, 1500:2500]))  # the middle of the course, in steps of 4 Hz
    pitch = 4 * spectrum.argmax(1)
    pitches = [pitch[shapes == name] for name in ("disc", "square", "triangle", "cross")]
    for low, high in itertools.pairwise(pitches):
        assert low.max() < high.min()
    loudness = np.square(waveforms).reshape(96, 80, 50).mean(2)
    ratio = loudness[:, 40:].mean(1) / loudness[:, :40].mean(1)
    assert (np.abs(np.log(ratio[motions == "grow"])) > 0.8).all()
    assert (np.abs(np.log(ratio[motions != "grow"])) < 0.2).all()
    beats = np.abs(np.fft.rfft(loudness))[:, 8] / loudness.sum(1)
    assert beats[motions == "spin"].min() > 5 * beats[motions != "spin"].max()


@pytest.mark.parametrize("wrong", [{"n_frames": 1}, {"n_classes": 7}, {"n_silent": -1}, {"sample_rate": 100}])
def test_make_clips_parameters_are_validated(wrong: dict[str, int]) -> None:
    ((parameter, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{parameter} must be (at least|from) .*\. Got {value}\."):
        make_clips(**wrong)
