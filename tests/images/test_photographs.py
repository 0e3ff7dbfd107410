"""Tests of photographs: pictures in sizes of their own, of which crops are cut where they are decoded."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from skssl import Augmentation, BadImageWarning
from skssl.images import as_images, image_files
from skssl.images.image_files import upright
from skssl.images.photographs import Crops, FilePhotographs, Photographs, cut_boxes, default_size, still_boxes

SIZES = [(90, 120), (120, 90), (70, 70), (200, 81), (65, 300), (110, 111)]


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """Return an RGB picture that JPEG hardly changes, with some detail."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photographs")
    for i, size in enumerate(SIZES):
        (folder / str(i % 2)).mkdir(exist_ok=True)
        ending = "png" if i == 2 else "jpg"
        Image.fromarray(smooth(*size, seed=i)).save(folder / str(i % 2) / f"{i}.{ending}", quality=95)
    return sorted(map(str, folder.rglob("*.*")))


def photographs(X: object, **options: object) -> FilePhotographs:
    images = as_images(X, **{"whole": True, **options})  # type: ignore[arg-type]
    assert isinstance(images, FilePhotographs)
    return images


def rgb(path: object) -> Image.Image:
    return Image.open(path).convert("RGB")  # type: ignore[arg-type]


def cut(images: Photographs, boxes: Tensor, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """Return the crops (v, n, c, h, w) of all images."""
    plan = [(torch.arange(len(images)), lambda sizes: [Crops(boxes, size, interpolation)])]
    (_, (crops,), _), *more = images.crops(plan)
    assert not more
    return crops.unflatten(0, (len(boxes), -1))


def test_sizes_are_read_upright_without_decoding(paths: list[str], tmp_path: Path) -> None:
    images = photographs(paths)
    assert [tuple(size) for size in images.sizes.tolist()] == [rgb(path).size[::-1] for path in paths]
    assert (images.shape, images.scale, images.guessed) == ((3, 81, 81), None, True)  # the median of the shorter sides
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth(100, 160, 0)).save(tmp_path / "a.jpg", exif=exif)
    cut_short = (tmp_path / "a.jpg").read_bytes()[:1000]  # holds the header
    (tmp_path / "a.jpg").write_bytes(cut_short)
    assert photographs([tmp_path / "a.jpg"] * 2).sizes.tolist() == [[160, 100]] * 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (100, 100)])
def test_crops_are_torchvisions_resized_crops(paths: list[str], size: tuple[int, int], interpolation: str) -> None:
    images = photographs(paths)
    augment = Augmentation(size=size, interpolation=interpolation)
    crops = augment.draw_crops(images.sizes, (1, 1), torch.Generator().manual_seed(0), n_views=3)
    assert crops.size == size
    made = cut(images, crops.boxes, size, crops.interpolation)
    assert made.dtype == torch.uint8
    for views, boxes in zip(made, crops.boxes, strict=True):
        for view, box, path in zip(views, boxes, paths, strict=True):
            how = {"size": list(size), "interpolation": TF.InterpolationMode(interpolation), "antialias": True}
            picture, place = rgb(path), [int(x) for x in box]
            assert torch.equal(view, TF.resized_crop(TF.pil_to_tensor(picture), *place, **how))
            by_pillow = np.asarray(TF.resized_crop(picture, *place, **how))
            difference = (view.int() - torch.from_numpy(by_pillow.copy()).permute(2, 0, 1).int()).abs()
            assert difference.max() <= (1 if interpolation == "bilinear" else 2)  # Pillow rounds otherwise
            assert difference.float().mean() < 0.2


def test_boxes_are_drawn_as_those_of_images_of_one_size() -> None:
    sizes = torch.tensor([[300, 400], [81, 400], [400, 90]])
    for size in sizes:
        crops = Augmentation(size=32).draw_crops(size.expand(500, 2), (1, 1), torch.Generator().manual_seed(0))
        numbers = torch.rand(500, 22, generator=torch.Generator().manual_seed(0))
        area = (0.08 + 0.92 * numbers[:, :10]) * size.prod()
        ratio = torch.exp((2 * numbers[:, 10:20] - 1) * np.log(4 / 3))
        height, width = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
        fits = (height <= size[0]) & (width <= size[1])
        first = fits.float().argmax(1)
        rows = torch.arange(500)[fits.any(1)]
        found = crops.boxes[0, rows]
        np.testing.assert_allclose(found[:, 2], height[rows, first[rows]], atol=1)  # rounding of float32
        np.testing.assert_allclose(found[:, 3], width[rows, first[rows]], atol=1)
        boxes = crops.boxes[0]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= size).all()
    assert (~fits.any(1)).any()  # the last size is too narrow for some


def test_pixels_at_the_borders_are_seen(paths: list[str]) -> None:
    sizes = torch.tensor([[100, 400]]).expand(2000, 2)
    boxes = Augmentation(size=32).draw_crops(sizes, (1, 1), torch.Generator().manual_seed(0)).boxes[0]
    assert boxes[:, 1].min() == 0
    assert (boxes[:, 1] + boxes[:, 3]).max() == 400


@pytest.mark.parametrize("resize", [256 / 224, 1.0, 1.5])
@pytest.mark.parametrize("side", [32, 56])
def test_still_views_are_those_of_torchvision(paths: list[str], side: int, resize: float) -> None:
    images = photographs(paths).still((side, side), resize, "bilinear")
    assert images.shape == (3, side, side)
    literal = v2.Compose([v2.Resize(round(side * resize)), v2.CenterCrop(side)])
    for view, path in zip(images.read(torch.arange(len(images))), paths, strict=True):
        expected = torch.from_numpy(np.array(literal(rgb(path)))).permute(2, 0, 1)
        difference = (view.int() - expected.int()).abs()
        assert difference.max() <= 2  # Pillow's boxes are float32
        assert (difference > 1).float().mean() < 1e-3


def test_whole_still_views_and_non_square_ones(paths: list[str]) -> None:
    whole = photographs(paths).still((20, 30), None, "bicubic").read(torch.arange(6))
    for view, path in zip(whole, paths, strict=True):
        expected = np.asarray(rgb(path).resize((30, 20), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(view.permute(1, 2, 0), expected)
    boxes = still_boxes(torch.tensor(SIZES), (20, 30), 1.25)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor(SIZES)).all()
    pixels = boxes[:, 2:] / torch.tensor([20, 30])
    np.testing.assert_allclose(pixels[:, 0], pixels[:, 1], rtol=0.02)  # the aspect ratio is kept


def test_views_without_a_crop_are_whole_pictures(paths: list[str]) -> None:
    images = photographs(paths)
    crops = Augmentation(crop_scale=None).draw_crops(images.sizes, (48, 48), torch.Generator())
    made = cut(images, crops.boxes, crops.size)[0]
    expected = np.asarray(rgb(paths[0]).resize((48, 48), Image.Resampling.BILINEAR)).astype(int)
    np.testing.assert_allclose(made[0].permute(1, 2, 0), expected, atol=1)


def test_large_jpegs_are_decoded_at_reduced_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = smooth(801, 1203, 0)
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    sizes = []
    monkeypatch.setattr(
        "skssl.images.photographs.upright", lambda pil, *args: sizes.append(pil.size) or upright(pil, *args)
    )
    images = photographs([tmp_path / "a.jpg"] * 2, n_jobs=1)
    boxes = torch.tensor([[[101, 203, 600, 800], [0, 0, 801, 1203]]], dtype=torch.float64)
    for side, decoded in ((8, (151, 101)), (12, (301, 201)), (32, (602, 401)), (140, (1203, 801))):
        sizes.clear()
        made = cut(images, boxes, (side, side))[0]
        assert sizes[0] == decoded
        for view, box in zip(made, boxes[0], strict=True):
            full = TF.pil_to_tensor(rgb(tmp_path / "a.jpg"))
            expected = TF.resized_crop(full, *(int(x) for x in box), size=[side, side], antialias=True)
            difference = (view.int() - expected.int()).abs()
            assert difference.max() <= (4 if decoded[0] < 1203 else 0)
            assert difference.float().mean() < 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_crops_of_turned_jpegs_are_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth(403, 605, 0)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    turned = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))
    images = photographs([tmp_path / "a.jpg"] * 2)
    assert images.sizes[0].tolist() == [turned.height, turned.width]
    box = torch.tensor([20, 40, 200, 160])
    for side, most in ((100, 0), (8, 4)):  # the second is decoded at half the scale
        view = cut(images, box.double().expand(1, 2, 4), (side, side))[0, 0]
        expected = TF.resized_crop(TF.pil_to_tensor(turned), *box.tolist(), size=[side, side], antialias=True)
        difference = (view.int() - expected.int()).abs()
        assert difference.max() <= most
        assert difference.float().mean() < 0.6


def test_crops_do_not_depend_on_threads_or_order(paths: list[str]) -> None:
    boxes = Augmentation().draw_crops(torch.tensor(SIZES), (9, 9), torch.Generator().manual_seed(0), n_views=2).boxes
    boxes = boxes[:, [paths.index(path) for path in paths]].minimum(torch.tensor(60.0, dtype=torch.float64))
    one, two = (cut(photographs(paths, n_jobs=n_jobs), boxes, (16, 16)) for n_jobs in (1, 2))
    assert torch.equal(one, two)
    index = torch.tensor([4, 4, 0])
    plan = [Crops(boxes[:, index], (16, 16)), Crops(boxes[:1, index], (8, 8))]
    found = list(photographs(paths, n_jobs=2).crops([(index, lambda sizes: plan)] * 5))
    assert len(found) == 5
    for indices, (large, small), found_boxes in found:
        assert torch.equal(indices, index)
        assert torch.equal(large.unflatten(0, (2, 3)), one[:, index])
        assert small.shape == (3, 3, 8, 8)
        assert torch.equal(found_boxes[0], boxes[:, index])


def test_pictures_of_extreme_shapes() -> None:
    pictures = [Image.fromarray(smooth(*size, seed=0)) for size in ((1, 1), (1, 300), (2000, 5), (7, 5), (40, 40))]
    images = photographs(pictures)
    crops = Augmentation(size=16).draw_crops(images.sizes, (1, 1), torch.Generator().manual_seed(0), n_views=8)
    made = cut(images, crops.boxes, crops.size)
    for views, boxes in zip(made, crops.boxes, strict=True):
        for view, box, picture in zip(views, boxes.int().tolist(), pictures, strict=True):
            assert min(box[2:]) >= 1
            assert box[0] + box[2] <= picture.height
            assert box[1] + box[3] <= picture.width
            expected = TF.resized_crop(TF.pil_to_tensor(picture), *box, size=[16, 16], antialias=True)
            assert (view.int() - expected.int()).abs().max() <= 1
    assert torch.equal(images.read(torch.tensor([0])).flatten(2).unique(dim=2)[0, :, 0], made[0, 0, :, 0, 0])


def test_the_first_image_of_an_animation_is_read(paths: list[str], tmp_path: Path) -> None:
    frames = [Image.new("RGB", (60, 50), color) for color in ("red", "blue", "lime")]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    views = photographs([tmp_path / "a.gif", tmp_path / "a.tif", paths[0]]).read(torch.tensor([0, 1]))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    assert torch.equal(views, red.expand_as(views))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_boxes_of_an_array_are_those_of_a_pil_image(mode: str) -> None:
    pil = Image.fromarray(smooth(50, 60, 0)).convert(mode)
    pixels = np.atleast_3d(np.asarray(pil))
    boxes = [np.array([[3.0, 4.0, 20.0, 30.0], [3.5, 4.25, 20.5, 30.0]]), np.array([[0.0, 0.0, 50.0, 60.0]])]
    plan = [Crops(torch.empty(0), (8, 9)), Crops(torch.empty(0), (16, 16), alone=False)]
    first, second = (
        [np.zeros((len(of), *crops.size, pixels.shape[2]), np.uint8) for crops, of in zip(plan, boxes, strict=True)]
        for _ in range(2)
    )
    cut_boxes(pil, plan, boxes, first)
    cut_boxes(pixels, plan, boxes, second)
    assert first[0].std() > 0
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)


def test_forms_of_pictures(paths: list[str]) -> None:
    expected = photographs(paths).read(torch.arange(6))
    opened = [rgb(path) for path in paths]
    data = [io.BytesIO(Path(path).read_bytes()) for path in paths]
    folder = ImageFolder(str(Path(paths[0]).parents[1]))
    for X in ([Path(path) for path in paths], data, opened, folder, Subset(folder, [0, 1, 2, 3, 4, 5])):
        images = photographs(X)
        assert torch.equal(images.sizes, photographs(paths).sizes)
        assert (images.read(torch.arange(6)).int() - expected.int()).abs().max() <= 1
        assert torch.equal(images.read(torch.tensor([5, 5])), images.read(torch.arange(6))[[5, 5]])


def test_subsets_and_pickles(paths: list[str]) -> None:
    images = photographs(paths, n_jobs=2)
    everything = images.read(torch.arange(6))
    taken = images.take(torch.tensor([5, 1, 1])).take(torch.tensor([2, 0]))
    assert isinstance(taken, Photographs)
    assert taken.sizes.tolist() == images.sizes[[1, 5]].tolist()
    assert torch.equal(taken.read(torch.arange(2)), everything[[1, 5]])
    assert torch.equal(pickle.loads(pickle.dumps(taken)).read(torch.arange(2)), everything[[1, 5]])


def test_channels_are_those_of_the_whole_set(paths: list[str], tmp_path: Path) -> None:
    gray = Image.fromarray(smooth(80, 70, 0)[:, :, 0])
    gray.save(tmp_path / "gray.png")
    assert photographs([str(tmp_path / "gray.png"), *paths]).shape[0] == 3
    assert photographs([tmp_path / "gray.png"] * 2).shape == (1, 80, 70)
    images = photographs([tmp_path / "gray.png"] * 2, image_shape=(4, 32, 40))
    assert images.shape == (4, 32, 40)
    assert (images.read(torch.tensor([0]))[0, 3] == 255).all()
    folder = ImageFolder(str(Path(paths[0]).parents[1]))
    assert photographs(Subset(folder, [0, 2])).shape[0] == 3


def test_files_of_the_size_that_is_asked_for_are_decoded_once(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(smooth(64, 40, i)).save(tmp_path / f"{i}.png")
    X = sorted(map(str, tmp_path.glob("*.png")))
    assert not isinstance(as_images(X), Photographs)
    assert not isinstance(as_images(X, (64, 40)), Photographs)
    assert isinstance(as_images(X, (32, 40)), Photographs)
    assert not isinstance(as_images(X, size=(64, 40)), Photographs)
    assert isinstance(as_images(X, size=(32, 40)), Photographs)
    assert isinstance(as_images(X, whole=True), Photographs)
    Image.fromarray(smooth(64, 41, 3)).save(tmp_path / "3.png")
    assert isinstance(as_images([*X, str(tmp_path / "3.png")]), Photographs)
    assert not isinstance(as_images([*X, str(tmp_path / "3.png")], (64, 40), whole=False), Photographs)


def test_headers_are_read_once(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(X):
        Image.fromarray(smooth(64, 40, i)).save(path)
    read = []
    inspect = image_files.inspect_image
    monkeypatch.setattr(image_files, "inspect_image", lambda image, name: read.append(image) or inspect(image, name))
    for files in (X, paths):
        read.clear()
        as_images(files)
        assert sorted(read) == sorted(files)


def test_default_size() -> None:
    assert default_size(torch.tensor([[500, 400], [400, 300], [60, 500]])) == (224, 224)
    assert default_size(torch.tensor([[500, 100], [80, 300], [60, 500]])) == (80, 80)
    assert default_size(torch.tensor([[500, 100], [500, 100]])) == (500, 100)


def test_damaged_files(paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(Path(paths[0]).read_bytes()[:1500])  # the size is known, the rest is missing
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"Sample 1 of X, the file .*text\.jpg.*cannot be read as an image"):
        as_images([paths[0], tmp_path / "text.jpg"])
    images = photographs([paths[0], tmp_path / "cut.jpg"])
    with pytest.raises(
        ValueError, match=r"Sample 1 of X, the file .*cut\.jpg.*cannot be read as an image: .*truncated"
    ):
        images.read(torch.tensor([0, 1]))
    X = [paths[0], tmp_path / "text.jpg", paths[1], tmp_path / "cut.jpg", paths[2]]
    with pytest.warns(BadImageWarning, match="1 of the 5 images in X cannot be read and was left out"):
        images = photographs(X, on_bad_image="skip")
    assert images.kept is not None
    assert images.kept.tolist() == [True, False, True, True, True]
    boxes = torch.zeros(1, 4, 4, dtype=torch.float64)
    boxes[0, :, 2:] = images.sizes / 2
    plan = [(torch.arange(4), lambda sizes: [Crops(boxes, (16, 16))])]
    with pytest.warns(BadImageWarning, match="1 of the 4 images .* was replaced by the next readable ones"):
        ((index, (crops,), (found_boxes,)),) = images.crops(plan)
    assert index.tolist() == [0, 1, 3, 3]
    assert torch.equal(crops[2], crops[3])  # a quarter of the picture that takes the place
    torch.testing.assert_close(found_boxes[0, :, 2:], images.sizes[index].double() / 2)


def test_a_file_that_has_changed_is_named(paths: list[str], tmp_path: Path) -> None:
    Image.fromarray(smooth(80, 70, 0)).save(tmp_path / "a.png")
    images = photographs([tmp_path / "a.png", paths[0]])
    Image.fromarray(smooth(70, 80, 0)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png.*it has changed since its size was read. Expected \(80, 70\)"):
        images.read(torch.tensor([0]))


@pytest.fixture(scope="module")
def deep_paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return 16-bit and float pictures whose values are 100 to 4,000."""
    folder = tmp_path_factory.mktemp("deep")
    for i, size in enumerate(SIZES):
        numbers = (100 + smooth(*size, seed=i)[:, :, 0] / 255 * 3900).astype(np.float32 if i % 2 else np.uint16)
        Image.fromarray(numbers).save(folder / f"{i}.{'tif' if i % 2 else 'png'}")
    return sorted(map(str, folder.iterdir()))


def numbers_of(path: str) -> np.ndarray:
    with Image.open(path) as pil:
        return np.asarray(pil).astype(np.float32)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_keep_numbers_of_more_than_eight_bits(deep_paths: list[str], interpolation: str) -> None:
    pictures = [numbers_of(path) for path in deep_paths]
    low, high = min(map(np.min, pictures)), max(map(np.max, pictures))
    images = photographs(deep_paths)
    assert (images.shape, images.scale) == ((1, 81, 81), (low, high))
    augment = Augmentation(size=32, interpolation=interpolation)
    boxes = augment.draw_crops(images.sizes, (1, 1), torch.Generator().manual_seed(0), n_views=2).boxes
    how = {"size": [32, 32], "interpolation": TF.InterpolationMode(interpolation), "antialias": True}
    made = cut(images, boxes, (32, 32), interpolation)
    assert made.dtype == torch.float32
    for views, of in zip(made, boxes, strict=True):
        for view, box, picture in zip(views, of, pictures, strict=True):
            scaled = torch.from_numpy((picture - low) / (high - low))[None]
            expected = TF.resized_crop(scaled, *(int(x) for x in box), **how).clip(0, 1)
            torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)
    assert len(made.unique()) > 4096


def test_still_views_of_more_than_eight_bits_take_the_training_range(deep_paths: list[str]) -> None:
    train = photographs(deep_paths, image_shape=(3, 24, 24))
    options = {"reset": False, "shape": train.shape, "scale": (0.0, 1000.0)}
    for images, (low, high) in ((train, train.scale), (photographs(deep_paths[:2], **options), (0.0, 1000.0))):
        views = images.still((24, 24), None, "bilinear").read(torch.arange(2))
        for view, path in zip(views, deep_paths, strict=False):
            expected = Image.fromarray(numbers_of(path)).resize((24, 24), Image.Resampling.BILINEAR)
            expected = (np.asarray(expected) - low) / (high - low)
            np.testing.assert_allclose(view, expected[None].repeat(3, 0), atol=1e-5)


def test_pictures_whose_range_cannot_be_found(deep_paths: list[str], tmp_path: Path) -> None:
    numbers = numbers_of(deep_paths[0])
    numbers[5, 7] = np.nan
    Image.fromarray(numbers).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match=r"Sample 1 of X, the file .*nan\.tif.* contains NaN or infinity"):
        photographs([deep_paths[1], tmp_path / "nan.tif"])
    with pytest.warns(BadImageWarning, match=r"1 of the 3 images in X cannot be read and was left out.*nan\.tif"):
        images = photographs([deep_paths[1], tmp_path / "nan.tif", deep_paths[3]], on_bad_image="skip")
    assert images.scale == photographs(deep_paths[1:4:2]).scale
    assert torch.equal(images.read(torch.arange(2)), photographs(deep_paths[1:4:2]).read(torch.arange(2)))


def test_saliency_maps_choose_boxes_by_their_exact_mean() -> None:
    sizes, generator = torch.tensor([[90, 120], [60, 200]] * 20), torch.Generator().manual_seed(1)
    maps = np.zeros((40, 6, 8), np.float32)
    maps[:, :3, :4] = 1.0  # the upper left quarter
    augment = Augmentation(size=32, crop_scale=(0.05, 0.2), saliency=maps)
    boxes = augment.draw_crops(sizes, (1, 1), generator, torch.arange(40), n_views=2).boxes
    fine = np.kron(maps[0], np.ones((30, 30)))  # each pixel of a picture holds whole values of this grid
    for view in boxes:
        means = []
        for (top, left, height, width), (h, w) in zip(view.tolist(), sizes.tolist(), strict=True):
            pixels = Image.fromarray(fine.astype(np.float32)).resize((w, h), Image.Resampling.BOX)
            means.append(np.asarray(pixels)[int(top) : int(top + height), int(left) : int(left + width)].mean())
        assert np.mean(np.array(means) > 0.25) > 0.95  # ten tries fail now and then
    with pytest.raises(ValueError, match="saliency maps needs the images' indices"):
        augment.draw_crops(sizes, (1, 1), generator)
