"""Detection and segmentation: metrics against literal versions, training, and frozen encoders."""

import itertools
import json
import pickle
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from conftest import quick
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.optim.lr_scheduler import StepLR

import skssl
from skssl import Augmentation, DetectionTransfer, SegmentationTransfer
from skssl.datasets import make_voc_folder
from skssl.methods.deepcluster import sobel_filter
from skssl.transfer import average_precision, mean_iou
from skssl.transfer.annotations import (
    IGNORE_INDEX,
    MASKS,
    OBJECTS,
    AnnotatedImages,
    find_samples,
    read_mask,
    read_objects,
)
from skssl.transfer.pyramid import Pyramid

SMALL = {"image_size": 64, "width": 16, "batch_size": 2, "lr": 0.05, "device": "cpu", "random_state": 0}
BOTH = [DetectionTransfer, SegmentationTransfer]


@pytest.fixture(scope="module")
def encoder(X):
    return quick(skssl.SimCLR, epochs=0).fit(X)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_voc_folder(tmp_path_factory.mktemp("voc"), 40, random_state=0)


@pytest.fixture
def few(tmp_path):
    """A folder of a few images, which the tests damage."""
    return make_voc_folder(tmp_path / "voc", 8, random_state=1)


# Metrics


def literal_precision(truth, found, threshold, n_recalls):
    """COCO's average precision at a threshold, from its description."""
    values = []
    for name in sorted({name for image in truth for name in image["labels"]}):
        n_objects, rows = 0, []
        for real, guess in zip(truth, found, strict=True):
            boxes = [box for box, label in zip(real["boxes"], real["labels"], strict=True) if label == name]
            hard = [flag for flag, label in zip(real["difficult"], real["labels"], strict=True) if label == name]
            n_objects += len(hard) - sum(hard)
            taken = [False] * len(boxes)
            mine = [i for i in np.argsort(-guess["scores"], kind="stable") if guess["labels"][i] == name]
            for i in mine:
                a, best = guess["boxes"][i], None
                for must_count in (True, False):  # objects that count are matched first
                    for j, b in enumerate(boxes):
                        width = min(a[2], b[2]) - max(a[0], b[0])
                        height = min(a[3], b[3]) - max(a[1], b[1])
                        both = max(width, 0) * max(height, 0)
                        either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
                        fits = both / either >= (threshold if best is None else best[0])
                        if hard[j] != must_count and not taken[j] and fits:
                            best = both / either, j
                    if best is not None:
                        break
                if best is None:
                    rows.append((guess["scores"][i], 0))
                else:
                    taken[best[1]] = True
                    if not hard[best[1]]:
                        rows.append((guess["scores"][i], 1))
        if n_objects == 0:
            continue
        rows.sort(key=lambda row: -row[0])
        hits, curve = 0, []
        for rank, (_, hit) in enumerate(rows, start=1):
            hits += hit
            curve.append((hits / n_objects, hits / rank))
        recalls = np.linspace(0, 1, n_recalls)
        values.append(np.mean([max([p for r, p in curve if r >= recall], default=0) for recall in recalls]))
    return np.mean(values)


@pytest.mark.parametrize("n_recalls", [101, 11])  # COCO's, and PASCAL VOC 2007's
def test_average_precision_matches_a_literal_version_of_coco(n_recalls, capsys):
    rng = np.random.default_rng(0)
    for _ in range(5):
        truth, found = [], []
        for _ in range(6):
            n, m = rng.integers(1, 5), rng.integers(0, 4)
            boxes = rng.integers(0, 30, (n, 4)) + np.array([0, 0, 31, 31])
            truth.append({"boxes": boxes, "labels": rng.choice(["cat", "dog"], n), "difficult": rng.random(n) < 0.2})
            near = boxes + rng.normal(0, 2, (n, 4))  # some of another class, and m at random places
            others = rng.integers(0, 30, (m, 4)) + np.array([0, 0, 31, 31])
            labels = [truth[-1]["labels"], rng.choice(["cat", "dog", "cow"], m)]
            labels[0] = np.where(rng.random(n) < 0.2, "dog", labels[0])
            found.append(
                {
                    "boxes": np.concatenate([near, others]),
                    "labels": np.concatenate(labels),
                    "scores": rng.permutation(n + m) / 10 + rng.random() / 20,
                }
            )
        scores = average_precision(truth, found, n_recalls=n_recalls)
        by_threshold = [literal_precision(truth, found, 0.5 + 0.05 * k, n_recalls) for k in range(10)]
        assert 0 < scores["AP"] < 1
        assert scores == pytest.approx({"AP": np.mean(by_threshold), "AP50": by_threshold[0], "AP75": by_threshold[5]})
    assert capsys.readouterr() == ("", ""), "pycocotools must not print"


def test_average_precision_of_perfect_and_empty_predictions():
    truth = [{"boxes": np.array([[0, 0, 9, 9], [5, 5, 9, 9]]), "labels": np.array(["cat", "dog"])}]
    nothing = [{"boxes": np.zeros((0, 4)), "labels": np.array([], str), "scores": np.zeros(0)}]
    perfect = average_precision(truth, [{**truth[0], "scores": np.ones(2)}])
    assert perfect == pytest.approx({"AP": 1.0, "AP50": 1.0, "AP75": 1.0})
    assert average_precision(truth, nothing) == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    with pytest.raises(ValueError, match=r"at least one object that is not difficult"):
        average_precision([{**truth[0], "difficult": np.ones(2, bool)}], nothing)
    with pytest.raises(ValueError, match=r"the same length. Got 1 and 2"):
        average_precision(truth, nothing * 2)


def test_crowds_are_ignored_and_may_be_detected_twice():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 60, 60]])
    truth = [{"boxes": boxes, "labels": np.array(["cat", "cat"]), "crowd": np.array([False, True])}]
    found = np.array([[21, 21, 30, 30], [40, 40, 50, 50], [0, 0, 10, 10]])  # two within the crowd, with higher scores
    guess = [{"boxes": found, "labels": np.array(["cat"] * 3), "scores": np.array([0.9, 0.8, 0.7])}]
    assert average_precision(truth, guess)["AP"] == pytest.approx(1)
    plain = average_precision([{**truth[0], "crowd": np.zeros(2, bool)}], guess)
    assert plain["AP"] == pytest.approx(51 / 101 / 3), "one of two objects, at the third rank"


def test_average_precision_without_pycocotools_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r"pip install 'skssl\[detection\]'"):
        average_precision([], [])


def test_mean_iou_matches_its_formula():
    rng = np.random.default_rng(0)
    truth = [rng.choice([0, 1, 4, IGNORE_INDEX], shape).astype(np.uint8) for shape in ((5, 7), (8, 3))]
    found = [rng.choice([0, 1, 2], mask.shape).astype(np.uint8) for mask in truth]
    ious, right, known = [], 0, 0
    for k in (0, 1, 2, 4):
        both = either = 0
        for a, b in zip(truth, found, strict=True):
            for p, q in zip(a.ravel(), b.ravel(), strict=True):
                both += p == q == k
                either += p != IGNORE_INDEX and k in (p, q)
        ious.append(both / either)
    for a, b in zip(truth, found, strict=True):
        right, known = right + ((a == b) & (a != IGNORE_INDEX)).sum(), known + (a != IGNORE_INDEX).sum()
    assert mean_iou(truth, found) == pytest.approx({"mean_iou": np.mean(ious), "pixel_accuracy": right / known})
    with pytest.raises(ValueError, match=r"must have the same shape. Got \(5, 7\) and \(2, 2\)"):
        mean_iou(truth[:1], [np.zeros((2, 2), np.uint8)])
    with pytest.raises(ValueError, match="not void"):
        mean_iou([np.full((2, 2), IGNORE_INDEX)], [np.zeros((2, 2), int)])


# Folders


def test_made_boxes_fit_the_made_objects(folder):
    kinds = set()
    for i in range(40):
        objects, mask = (
            read_objects(folder / "Annotations" / f"{i:06d}.xml"),
            read_mask(folder / "SegmentationClass" / f"{i:06d}.png"),
        )
        image = np.asarray(Image.open(folder / "JPEGImages" / f"{i:06d}.jpg"))
        assert mask.shape == image.shape[:2] == (64, 64)
        outside = np.ones_like(mask, bool)
        for thing in objects:
            left, top, right, bottom = map(int, thing.box)
            k = {"disc": 1, "square": 2}[thing.name]
            inside = mask[top:bottom, left:right]
            assert set(np.unique(inside)) <= {0, k, IGNORE_INDEX}
            filled = np.isin(inside, (k, IGNORE_INDEX))
            assert all(filled.any(axis).all() for axis in (0, 1)), "the box must be tight"
            assert image[top:bottom, left:right, k - 1][inside == k].mean() > 120
            outside[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = False
            kinds.add(thing.name)
        assert not mask[outside].any()
    assert kinds == {"disc", "square"}


def test_annotations_count_pixels_from_one_and_mark_difficult_objects(tmp_path):
    text = (
        "<annotation><object><name>cat</name><difficult>1</difficult><part><name>head</name></part><bndbox><xmax>8</xmax>"
        "<ymin>2</ymin><xmin>1</xmin><ymax>5.5</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "a.xml").write_text(text)
    assert read_objects(tmp_path / "a.xml") == [("cat", (0.0, 1.0, 8.0, 5.5), True, False)]
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 50}">' for i in range(9))
    for spoilt in (
        text[:-5],
        text.replace("<xmax>8", "<xmax>x"),
        text.replace("<xmax>8", "<xmax>inf"),
        text.replace("<xmin>1</xmin>", ""),
        f'<!DOCTYPE a [<!ENTITY e0 "cat">{entities}]>' + text.replace("cat", "&e9;"),  # 50 ** 9 cats
    ):
        (tmp_path / "a.xml").write_text(spoilt)
        with pytest.raises(ValueError, match=r"a.xml' is not an annotation in PASCAL VOC's format"):
            read_objects(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text(text.replace("<xmax>8", "<xmax>0"))
    with pytest.raises(ValueError, match=r"an object 'cat' has the corners \[1.0, 2.0, 0.0, 5.5\]"):
        read_objects(tmp_path / "a.xml")


@pytest.mark.parametrize("method", BOTH)
def test_unusable_folders_raise(method, encoder, few):
    transfer = method(encoder, **SMALL, epochs=0)
    kind, lists, ending = {
        DetectionTransfer: ("Annotations", "Main", "xml"),
        SegmentationTransfer: ("SegmentationClass", "Segmentation", "png"),
    }[method]
    with pytest.raises(
        FileNotFoundError, match=r"nowhere' is in no known format: it must contain one of JPEGImages \(PASCAL VOC\), "
    ):
        transfer.fit(few / "nowhere")
    with pytest.raises(ValueError, match="Unknown split 'trian', did you mean 'train'"):
        transfer.fit(few, "trian")
    (few / "ImageSets" / lists / "one.txt").write_text("000000\n")
    with pytest.raises(ValueError, match=r"at least 2 training images. Got 1"):
        transfer.fit(few, "one")
    (few / "ImageSets" / lists / "none.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"The split 'none' of .* has no images"):
        transfer.fit(few, "none")
    (few / "ImageSets" / lists / "bytes.txt").write_bytes(b"\xff\xfe000000")
    with pytest.raises(ValueError, match=r"The split 'bytes' of .* cannot be read as text"):
        transfer.fit(few, "bytes")
    (few / "JPEGImages" / "000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="'000001' of the split 'train' has no file in"):
        transfer.fit(few)
    (few / kind / f"000000.{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=f"'000000' of the split 'train' has no annotation .*000000.{ending}"):
        transfer.fit(few)
    shutil.rmtree(few / kind)
    with pytest.raises(FileNotFoundError, match=f"it lacks {kind}. Expected JPEGImages, ImageSets/{lists}, {kind}"):
        transfer.fit(few)


def test_unknown_classes_raise(encoder, few):
    path = few / "Annotations" / "000005.xml"
    path.write_text(path.read_text().replace("<name>disc", "<name>cow").replace("<name>square", "<name>cow"))
    with pytest.raises(ValueError, match="The split 'val' has the class 'cow', which the training images lack"):
        DetectionTransfer(encoder, **SMALL, epochs=0).fit(few).evaluate(few)
    for i in range(4):
        path = few / "Annotations" / f"{i:06d}.xml"
        path.write_text("<annotation></annotation>")
    with pytest.raises(ValueError, match="has no objects"):
        DetectionTransfer(encoder, **SMALL, epochs=0).fit(few)
    mask = few / "SegmentationClass" / "000006.png"
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(mask)
    with pytest.raises(ValueError, match="The split 'val' has the class 9, which the training images lack"):
        SegmentationTransfer(encoder, **SMALL, epochs=0).fit(few).evaluate(few)


def test_unusable_masks_raise(encoder, few):
    masks = [few / "SegmentationClass" / f"{i:06d}.png" for i in range(4)]
    Image.fromarray(read_mask(masks[0])[:, 1:]).save(masks[0])
    with pytest.raises(
        ValueError, match=r"000000.png' has the height and width \(64, 63\), but its image has \(64, 64\)"
    ):
        SegmentationTransfer(encoder, **SMALL, epochs=1).fit(few)
    Image.new("RGB", (64, 64)).save(masks[0])
    with pytest.raises(
        ValueError, match=r"000000.png' has mode RGB, but a palette \(P\) or grey \(L\) image is expected"
    ):
        SegmentationTransfer(encoder, **SMALL).fit(few)
    masks[0].write_text("no image")
    with pytest.raises(ValueError, match=r"000000.png' cannot be read as a mask"):
        SegmentationTransfer(encoder, **SMALL).fit(few)
    for mask in masks:
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask)
    with pytest.raises(ValueError, match=r"at least 2 classes, including the background. Got \[0\]"):
        SegmentationTransfer(encoder, **SMALL).fit(few)


# Formats


@pytest.fixture
def coco(few):
    """The images of `few` in COCO's format."""
    root = few.parent / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        names = (few / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        images, annotations = [], []
        for name in names:
            shutil.copy(few / "JPEGImages" / f"{name}.jpg", root / f"{split}2017")
            images.append({"id": int(name) + 100, "file_name": f"{name}.jpg", "height": 64, "width": 64})
            for thing in read_objects(few / "Annotations" / f"{name}.xml"):
                left, top, right, bottom = thing.box
                rows = {"image_id": int(name) + 100, "bbox": [left, top, right - left, bottom - top], "iscrowd": 0}
                annotations.append({**rows, "category_id": {"disc": 7, "square": 3}[thing.name]})
        categories = [{"id": 7, "name": "disc"}, {"id": 3, "name": "square"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return root


def test_coco_has_the_objects_of_voc(encoder, few, coco):
    for split in ("train", "val"):
        theirs = find_samples(few, split, OBJECTS)
        ours = find_samples(coco, f"{split}2017", OBJECTS)
        assert [image.name for image, _ in ours] == [image.name for image, _ in theirs]
        assert [things for _, things in ours] == [things for _, things in theirs]
    detector = DetectionTransfer(encoder, **{**SMALL, "image_size": 32}, epochs=1)
    one = detector.fit(few).evaluate(few)
    assert one == detector.fit(coco, "train2017").evaluate(coco, "val2017")


def test_crowds_and_boxes_without_area_are_not_trained_on(encoder, few, coco):
    path = coco / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    n = len(content["annotations"])
    first = content["annotations"][0]
    content["annotations"] += [{**first, "iscrowd": 1}, {**first, "bbox": [3, 3, 0, 5]}]
    path.write_text(json.dumps(content))
    samples = find_samples(coco, "train2017", OBJECTS)
    assert sum(len(things) for _, things in samples) == n + 1
    assert [thing.crowd for _, things in samples for thing in things].count(True) == 1
    detector = DetectionTransfer(encoder, **SMALL, epochs=0).fit(coco, "train2017")
    _, things = next(sample for sample in samples if any(thing.crowd for thing in sample[1]))
    assert len(detector._target(things, torch.device("cpu"), 0)["boxes"]) == len(things) - 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data.pop("categories"), "KeyError, 'categories'"),
        (lambda data: data["annotations"][0].update(bbox=[1, 2, 3]), "ValueError, not enough values"),
        (lambda data: data["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "ValueError, an object has the box"),
        (lambda data: data["annotations"][0].update(category_id=5), "KeyError, 5"),
        (lambda data: data["annotations"][0].update(image_id=5), "KeyError, 5"),
        (lambda data: data.update(images=3), "TypeError, "),
    ],
)
def test_unusable_annotations_of_coco_raise(spoil, message, coco):
    path = coco / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"instances_val2017.json' is not in COCO's format: {message}"):
        find_samples(coco, "val2017", OBJECTS)


def test_unusable_folders_of_coco_raise(coco):
    path = coco / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "../train2017/000000.jpg"
    path.write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"The image '../train2017/000000.jpg' of the split .* has no file in"):
        find_samples(coco, "val2017", OBJECTS)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not in COCO's format: RecursionError"):
        find_samples(coco, "val2017", OBJECTS)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not in COCO's format: JSONDecodeError"):
        find_samples(coco, "val2017", OBJECTS)
    shutil.rmtree(coco / "val2017")
    with pytest.raises(FileNotFoundError, match="lacks val2017, the folder of the images of"):
        find_samples(coco, "val2017", OBJECTS)
    with pytest.raises(ValueError, match="Unknown split 'train', did you mean 'train2017'"):
        find_samples(coco, "train", OBJECTS)


def write_masks(few, root, image_name, mask_name, values):
    """Write the images and masks of `few`, with the values of the masks replaced, under other names."""
    for split in ("train", "val"):
        for name in (few / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split():
            image, mask = root / image_name.format(split, name), root / mask_name.format(split, name)
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.open(few / "JPEGImages" / f"{name}.jpg").save(image)
            Image.fromarray(values[read_mask(few / "SegmentationClass" / f"{name}.png")]).save(mask)
    return root


def test_cityscapes_masks_hold_train_ids(encoder, few, tmp_path):
    images, masks = "leftImg8bit/{0}/ulm/ulm_{1}_leftImg8bit.png", "gtFine/{0}/ulm/ulm_{1}_gtFine_labelIds.png"
    values = np.zeros(256, np.uint8)
    values[[0, 1, 2, IGNORE_INDEX]] = 7, 26, 33, 9  # the ids of road, car, bicycle and parking
    root = write_masks(few, tmp_path / "cityscapes", images, masks, values)
    ours, theirs = find_samples(root, "train", MASKS), find_samples(few, "train", MASKS)
    expected = np.full(256, IGNORE_INDEX)
    expected[[0, 1, 2]] = 0, 13, 18  # their train ids; parking is ignored
    assert len(ours) == len(theirs) == 4
    for (image, mask), (_, other) in zip(ours, theirs, strict=True):
        assert image.name.endswith("_leftImg8bit.png")
        assert mask.read().dtype == np.uint8
        np.testing.assert_array_equal(mask.read(), expected[other.read()])
        assert (mask.read() == IGNORE_INDEX).any()
    segmenter = SegmentationTransfer(encoder, **{**SMALL, "image_size": 32}, epochs=1).fit(root)
    assert segmenter.classes_.tolist() == [0, 13, 18]
    assert set(np.unique(segmenter.predict([ours[0][0]])[0])) <= {0, 13, 18}
    assert 0 < segmenter.evaluate(root)["pixel_accuracy"] < 1
    ours[0][1].path.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no annotation .*gtFine/train/ulm/ulm_000000_gtFine_labelIds.png"):
        segmenter.fit(root)
    with pytest.raises(ValueError, match="Unknown split 'test'"):
        segmenter.fit(root, "test")
    (root / "leftImg8bit" / "test").mkdir()
    with pytest.raises(ValueError, match=r"The split 'test' of .* has no images"):
        segmenter.fit(root, "test")


def test_value_0_of_ade20k_is_no_class(encoder, few, tmp_path):
    values = np.zeros(256, np.uint8)
    values[[0, 1, 2, IGNORE_INDEX]] = 3, 150, 5, 0
    root = write_masks(few, tmp_path / "ade", "images/{0}/{1}.jpg", "annotations/{0}/{1}.png", values)
    segmenter = SegmentationTransfer(encoder, **{**SMALL, "image_size": 32}, epochs=0).fit(root)
    assert segmenter.classes_.tolist() == [3, 5, 150]
    images = AnnotatedImages(find_samples(root, "val", MASKS), 3)
    others = AnnotatedImages(find_samples(few, "val", MASKS), 3)
    expected = torch.full((256,), IGNORE_INDEX, dtype=torch.uint8)
    expected[[0, 1, 2]] = torch.tensor([3, 150, 5], dtype=torch.uint8)
    for (_, mask), (_, other) in zip(images, others, strict=False):
        assert torch.equal(mask, expected[other.long()])
        assert segmenter._target(mask, torch.device("cpu"), 0).unique().tolist() == [
            {3: 0, 5: 1, 150: 2, IGNORE_INDEX: IGNORE_INDEX}[k] for k in mask.unique().tolist()
        ]


@pytest.mark.parametrize("method", BOTH)
def test_several_folders_are_joined(method, encoder, few, tmp_path):
    other = make_voc_folder(tmp_path / "other", 6, random_state=2)
    formats = {DetectionTransfer: OBJECTS, SegmentationTransfer: MASKS}[method]
    joined = find_samples([few, str(other)], "train", formats)
    assert [image for image, _ in joined] == [
        *(few / "JPEGImages" / f"{i:06d}.jpg" for i in range(4)),
        *(other / "JPEGImages" / f"{i:06d}.jpg" for i in range(3)),
    ]
    assert len(find_samples((few, other), ["train", "val"], formats)) == 7
    transfer = method(encoder, **{**SMALL, "image_size": 32}, epochs=1).fit([few, other], ["train", "val"])
    assert transfer.evaluate([other, other]) == pytest.approx(transfer.evaluate(other)), "the same images twice"
    for split in (["train"], ["train", "val", "train"]):
        with pytest.raises(ValueError, match=rf"one for each folder. Got {len(split)} names for 2 folders"):
            transfer.fit([few, other], split)
    with pytest.raises(TypeError, match=r"must be the path of a folder in the format of PASCAL VOC or .* Got int"):
        transfer.fit([few, 3])


def test_folders_of_two_formats_raise(encoder, few, coco):
    with pytest.raises(ValueError, match=r"The folders must have the same format. Got PASCAL VOC, COCO"):
        DetectionTransfer(encoder, **SMALL).fit([few, coco], ["train", "train2017"])


# The pyramid


@pytest.mark.parametrize(
    ("backbone", "side", "strides"),
    [
        ("convnet", 16, [1, 2, 4, 8]),
        ("resnet18", 16, [1, 2, 4, 8]),  # CIFAR's stem
        ("resnet18", 96, [4, 8, 16, 32]),
        ("alexnet", 224, [4, 8, 16]),  # three of its five convolutions have the same resolution
    ],
)
def test_pyramid_has_one_map_per_resolution(backbone, side, strides):
    net, _ = skssl.backbones.build_backbone(backbone, (3, side, side))
    pyramid = Pyramid(net, 3, 8, frozen=True, beyond=True)
    assert pyramid.strides == strides
    maps = pyramid(torch.zeros(2, 3, 128, 128))
    assert list(maps) == [*map(str, range(len(strides))), "pool"]
    if backbone != "alexnet":  # its first convolution has too little padding
        assert [grid.shape for grid in maps.values()] == [
            (2, 8, 128 // stride, 128 // stride) for stride in [*strides, 2 * strides[-1]]
        ]


def test_pyramid_maps_are_the_encoders_maps_including_hooks(X):
    method = quick(skssl.DeepCluster, epochs=0).fit(X)  # a Sobel filter precedes its first layer
    pyramid = Pyramid(method.encoder_, 3, 8, frozen=True).eval()
    seen = []
    pyramid.fpn.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = torch.rand(2, 3, 32, 32)
    pyramid(pixels)
    grid = sobel_filter(method.encoder_, (pixels,))
    with torch.no_grad():
        for i in range(4):
            grid = method.encoder_.features[3 * i : 3 * i + 3](grid)
            torch.testing.assert_close(seen[0][str(i)], grid)


def test_encoder_without_maps_raises():
    for net in (nn.Sequential(nn.Flatten(), nn.Linear(3 * 224**2, 4)), torchvision.models.vit_b_32()):
        with pytest.raises(
            ValueError, match=r"stages that end in maps, .* Got (Sequential|VisionTransformer), which has"
        ):
            Pyramid(skssl.backbones.build_backbone(net, (3, 224, 224))[0], 3, 8, frozen=True)


# Training


def test_detector_learns_to_find_objects(encoder, folder):
    detector = DetectionTransfer(FrozenEstimator(encoder), **SMALL, epochs=5)
    assert clone(detector).set_params(epochs=0).fit(folder).evaluate(folder)["AP50"] < 0.05
    detector.fit(folder)
    assert detector.classes_.tolist() == ["disc", "square"]
    scores = detector.evaluate(folder)
    assert scores["AP50"] > 0.4
    assert scores["AP50"] > scores["AP"] > 0.1
    history = detector.history_
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    parts = ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]
    assert set(history) == {"epoch", "loss", *parts, "lr", "images_per_second"}
    np.testing.assert_allclose(history["loss"], history[parts].sum(axis=1), rtol=1e-5)

    # Predictions for images of any kind and size
    path = folder / "JPEGImages" / "000030.jpg"
    image = Image.open(path)
    wide = Image.new("RGB", (90, 64))
    wide.paste(image, (20, 0))
    one, two, three, moved = detector.predict([str(path), image, np.asarray(image), wide])
    for found in (two, three):
        for name in ("boxes", "labels", "scores"):
            np.testing.assert_array_equal(one[name], found[name])
    assert one["boxes"].shape == (len(one["scores"]), 4)
    assert (np.diff(one["scores"]) <= 0).all()
    assert set(one["labels"]) <= {"disc", "square"}
    for thing in read_objects(folder / "Annotations" / "000030.xml"):
        for found, shift in ((one, 0), (moved, 20)):
            boxes = found["boxes"][found["labels"] == thing.name] - [shift, 0, shift, 0]
            assert np.abs(boxes - thing.box).max(1).min() < 8
    eleven = detector.evaluate(folder, n_recalls=11)
    assert eleven != scores
    assert eleven == pytest.approx(scores, abs=0.05)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.predict([image])[0]["boxes"], one["boxes"])


def test_segmenter_learns_to_classify_pixels(encoder, folder):
    segmenter = SegmentationTransfer(FrozenEstimator(encoder), **{**SMALL, "batch_size": 4}, epochs=8)
    assert clone(segmenter).set_params(epochs=0).fit(folder).evaluate(folder)["mean_iou"] < 0.4
    scores = segmenter.fit(folder).evaluate(folder)
    assert scores["mean_iou"] > 0.8
    assert scores["pixel_accuracy"] > 0.95
    assert set(segmenter.history_) == {"epoch", "loss", "loss_pixels", "lr", "images_per_second"}
    path = folder / "JPEGImages" / "000030.jpg"
    wide = np.pad(np.asarray(Image.open(path)), ((0, 0), (0, 36), (0, 0)), mode="edge")
    alone, beside = segmenter.predict([path]), segmenter.predict([wide, path])
    assert beside[0].shape == (64, 100)
    assert alone[0].dtype == np.uint8
    np.testing.assert_array_equal(alone[0], beside[1])
    again = pickle.loads(pickle.dumps(segmenter))
    np.testing.assert_array_equal(again.predict([path])[0], alone[0])


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("method", BOTH)
def test_frozen_encoder_and_the_users_encoder_are_unchanged(method, frozen, encoder, few):
    before = {name: value.clone() for name, value in encoder.encoder_.state_dict().items()}
    transfer = method(encoder, frozen=frozen, **SMALL, epochs=1).fit(few)
    after = (transfer.model_.backbone if method is DetectionTransfer else transfer.model_.pyramid).encoder
    unchanged = [torch.equal(value, before[name]) for name, value in after.state_dict().items()]
    assert all(unchanged) if frozen else not any(unchanged), "weights and BatchNorm's statistics"
    assert all(parameter.requires_grad != frozen for parameter in after.parameters())
    assert all((parameter.grad is None) == frozen for parameter in after.parameters())
    transfer.model_.train()
    assert all(module.training != frozen for module in after.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.encoder_.state_dict().items())
    assert all(parameter.requires_grad for parameter in encoder.encoder_.parameters())


@pytest.mark.parametrize(
    ("schedule", "warmup_epochs", "expected"),
    [
        ("cosine", 0, [0.05, 0.05 * (1 + 0.5**0.5) / 2, 0.025, 0.05 * (1 - 0.5**0.5) / 2]),
        ("polynomial", 0, [0.05, 0.05 * 0.75**0.9, 0.05 * 0.5**0.9, 0.05 * 0.25**0.9]),
        (((0.5, 0.1), (0.75, 0.01)), 0, [0.05, 0.05, 0.005, 5e-4]),
        (lambda progress: 1 - progress, 0, [0.05, 0.0375, 0.025, 0.0125]),
        ("constant", 1, [0.025, 0.05, 0.05, 0.05]),
        (partial(StepLR, step_size=1, gamma=0.5), 0, [0.05, 0.05, 0.025, 0.025]),
    ],
)
def test_learning_rate_follows_the_schedule_in_every_step(schedule, warmup_epochs, expected, encoder, few, monkeypatch):
    seen, step = [], torch.optim.SGD.step

    def record(optimizer, *args, **kwargs):
        seen.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", record)
    segmenter = SegmentationTransfer(
        encoder, **{**SMALL, "image_size": 32}, epochs=2, schedule=schedule, warmup_epochs=warmup_epochs
    ).fit(few)  # two epochs of two steps
    assert seen == pytest.approx(expected)
    assert segmenter.history_["lr"].tolist() == pytest.approx(expected[1::2])


def test_unusable_schedules_raise(encoder, few):
    with pytest.raises(ValueError, match="Unknown schedule 'polynomal', did you mean 'polynomial'"):
        SegmentationTransfer(encoder, schedule="polynomal").fit(few)
    with pytest.raises(ValueError, match=r"warmup_epochs=1 has no effect on one of torch's schedulers"):
        SegmentationTransfer(encoder, schedule=partial(StepLR, step_size=1)).fit(few)


@pytest.mark.parametrize("method", BOTH)
def test_same_seed_gives_same_bits(method, encoder, few):
    state = torch.random.get_rng_state()
    first, second, third = (
        method(FrozenEstimator(encoder), **{**SMALL, "random_state": seed}, epochs=1).fit(few) for seed in (0, 0, 1)
    )
    assert first.history_["loss"][0] == second.history_["loss"][0] != third.history_["loss"][0]
    for a, b in zip(first.model_.state_dict().values(), second.model_.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(state, torch.random.get_rng_state())


def test_mirrored_images_have_mirrored_targets(encoder, few, monkeypatch):
    for method in BOTH:
        transfer = method(encoder, **SMALL, epochs=0).fit(few)
        samples = AnnotatedImages(transfer._find_training_samples(few, "train"), 3)
        given = []
        monkeypatch.setattr(transfer, "model_", lambda *args, given=given: given.append(args) or {"a": 0})
        for flip in (0.0, 1.0):
            transfer.set_params(flip=flip)._losses([samples[i] for i in range(4)], torch.device("cpu"))
        for plain, mirrored in zip(given[0][0], given[1][0], strict=True):
            torch.testing.assert_close(plain, mirrored.flip(2))
        for plain, mirrored in zip(given[0][1], given[1][1], strict=True):
            if method is SegmentationTransfer:
                assert torch.equal(plain, mirrored.flip(1))
                continue
            assert torch.equal(plain["labels"], mirrored["labels"])
            for a, b in zip(plain["boxes"], mirrored["boxes"], strict=True):
                assert b.tolist() == [64 - a[2], a[1], 64 - a[0], a[3]]


def test_void_and_padded_pixels_do_not_count_in_the_loss(encoder, few):
    segmenter = SegmentationTransfer(encoder, **{**SMALL, "image_size": 32}, epochs=0).fit(few)
    model = segmenter.model_.train()
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=draw) for size in ((32, 32), (32, 48), (64, 80))]
    masks = [torch.randint(0, 3, image.shape[1:], generator=draw) for image in images]
    masks[0][:20] = IGNORE_INDEX
    scores = []
    model.classifier.register_forward_hook(lambda module, given, output: scores.append(output))
    loss = model(images, masks)["loss_pixels"]
    scores = nn.functional.interpolate(scores[0], (32, 64), mode="bilinear").log_softmax(1)
    total, known = 0.0, 0
    for score, mask, (h, w) in zip(scores, masks, ((32, 32), (32, 48), (32, 40)), strict=True):
        for i, j in itertools.product(range(h), range(w)):
            step = mask.shape[0] // h
            k = mask[i * step + step // 2, j * step + step // 2]  # the middle pixel if the mask is twice as large
            if k != IGNORE_INDEX:
                total, known = total - score[k, i, j], known + 1
    torch.testing.assert_close(loss, total / known)


def test_images_are_normalised_and_resized_as_in_training(X, few):
    augment = Augmentation(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    gray = X[..., 0]
    for images, mean, std in ((X, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), (gray, (0.2,), (0.6,))):
        encoder = quick(skssl.SimCLR, epochs=0, augment=augment).fit(images)
        transfer = DetectionTransfer(encoder, **{**SMALL, "image_size": range(32, 65, 8)}, epochs=1).fit(few)
        transform = transfer.model_.transform
        np.testing.assert_allclose(transform.image_mean, mean, rtol=1e-5)
        np.testing.assert_allclose(transform.image_std, std, rtol=1e-5)
        assert transform.min_size == (32, 40, 48, 56, 64)
        assert transform.max_size == 107
        assert transfer.predict([np.zeros((40, 60), np.uint8)])[0]["boxes"].shape[1] == 4
    with pytest.raises(ValueError, match="Sample 0 of X has 3 channels, but the encoder expects 1"):
        transfer.predict(X)


def test_invalid_input_raises(encoder, few):
    with pytest.raises(NotFittedError, match="The encoder, SimCLR, is not fitted"):
        DetectionTransfer(clone(encoder), **SMALL).fit(few)
    with pytest.raises(TypeError, match="encoder must be an estimator of skssl"):
        DetectionTransfer("resnet50", **SMALL).fit(few)
    for size in (16, (64, 16), ()):
        with pytest.raises(ValueError, match="image_size"):
            DetectionTransfer(encoder, **{**SMALL, "image_size": size}).fit(few)
    with pytest.raises(ValueError, match="'batch_size' parameter of SegmentationTransfer"):
        SegmentationTransfer(encoder, batch_size=1).fit(few)
    with pytest.raises(FloatingPointError, match=r"diverged in epoch \d: .* rate below lr=1e\+08"):
        SegmentationTransfer(encoder, **{**SMALL, "lr": 1e8}, epochs=4).fit(few)
    for method in BOTH:
        with pytest.raises(NotFittedError):
            method(encoder).predict([few / "JPEGImages" / "000000.jpg"])
        with pytest.raises(NotFittedError):
            method(encoder).evaluate(few)
        transfer = method(encoder, **SMALL, epochs=0).fit(few)
        for alone in (str(few / "JPEGImages" / "000000.jpg"), Image.new("RGB", (64, 64)), np.zeros((64, 64))):
            with pytest.raises(TypeError, match="put it into a list"):
                transfer.predict(alone)
        with pytest.raises(ValueError, match=r"Sample 0 of X, the file '.*000000.xml', cannot be read as an image"):
            transfer.predict([few / "Annotations" / "000000.xml"])


@pytest.mark.parametrize("method", BOTH)
def test_encoder_is_frozen_up_to_a_stage(method, encoder, few):
    before = {name: value.clone() for name, value in encoder.encoder_.state_dict().items()}
    transfer = method(encoder, frozen="conv2", **{**SMALL, "image_size": 32}, epochs=1).fit(few)
    after = (transfer.model_.backbone if method is DetectionTransfer else transfer.model_.pyramid).encoder
    stages = skssl.backbones.stages(after)
    names = {id(value): name for name, value in after.state_dict(keep_vars=True).items()}
    for stage, modules in stages.items():
        frozen = stage in ("conv1", "conv2")
        tensors = [value for module in modules for value in module.state_dict(keep_vars=True).values()]
        assert tensors
        assert all(torch.equal(value, before[names[id(value)]]) == frozen for value in tensors), stage
    transfer.model_.train()
    for stage, modules in stages.items():
        assert all(module.training == (stage in ("conv3", "conv4")) for module in modules)
    with pytest.raises(ValueError, match=r"Unknown frozen 'layer3'. Known names: 'conv1', 'conv2', 'conv3', 'conv4'"):
        method(encoder, frozen="layer3", **SMALL).fit(few)


def test_layers_of_a_resnet_are_frozen_as_detectron2_does(X):
    net, _ = skssl.backbones.build_backbone("resnet18", (3, 64, 64))
    Pyramid(net, 3, 8, frozen="layer3").train()
    trained = {name.split(".")[0] for name, value in net.named_parameters() if value.requires_grad}
    assert trained == {"layer4"}  # FREEZE_AT: 4 freezes the stem and the first three layers
    assert {name for name, child in net.named_children() if child.training} >= {"layer4"}
    assert not any(child.training for name, child in net.named_children() if name in ("conv1", "bn1", "layer3"))


def test_progress_is_shown_if_verbose(encoder, few, capsys):
    segmenter = SegmentationTransfer(encoder, **SMALL, epochs=1).fit(few)
    segmenter.evaluate(few)
    assert capsys.readouterr() == ("", "")
    segmenter.set_params(verbose=1).fit(few).evaluate(few)
    shown = capsys.readouterr().err
    assert "Epoch 1/1" in shown
    assert "Evaluation" in shown
