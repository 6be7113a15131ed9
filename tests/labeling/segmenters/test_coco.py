"""Annotations in COCO's format, in all three kinds of masks."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ_perception.errors import DatasetError
from occ_perception.labeling.segmenters.coco import CocoImages, decode_mask


def runs_of(mask):
    """Run lengths down the columns, zeros first."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return np.diff([0, *edges, flat.size]).tolist()


def compressed(runs):
    """As COCO's API writes them (`rleToString`)."""
    text = ""
    for row, run in enumerate(runs):
        value, more = run - (runs[row - 2] if row > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
    return text


@given(st.integers(1, 20), st.integers(1, 90), st.floats(0, 1), st.integers(0, 2**31))
def test_run_lengths_plain_and_compressed_give_the_mask_back(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs, size = runs_of(mask), list(mask.shape)
    np.testing.assert_array_equal(decode_mask({"size": size, "counts": runs}, *mask.shape), mask)
    np.testing.assert_array_equal(decode_mask({"size": size, "counts": compressed(runs)}, *mask.shape), mask)


def test_a_known_compressed_mask():
    """The example of pycocotools' documentation style: 3 x 3 with its middle set is 4 zeros, 1 one, 4 zeros."""
    np.testing.assert_array_equal(decode_mask({"size": [3, 3], "counts": "414"}, 3, 3),
                                  [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_polygons_are_filled():
    mask = decode_mask([[2, 1, 6, 1, 6, 4, 2, 4]], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(mask, expected)
    both = decode_mask([[0, 0, 2, 0, 2, 2, 0, 2], [5.6, 3.6, 8, 3.6, 8, 6, 5.6, 6]], 6, 8)
    expected[:], expected[:2, :2], expected[4:, 6:] = False, True, True
    np.testing.assert_array_equal(both, expected)


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="size"):
        decode_mask({"size": [3, 4], "counts": [12]}, 3, 3)
    with pytest.raises(ValueError, match="8 of 9"):
        decode_mask({"size": [3, 3], "counts": [8]}, 3, 3)


def written(folder, names=("sidewalk", "pedestrian"), counts=None):
    cv2.imwrite(str(folder / "a.png"), np.full((4, 6, 3), (255, 0, 0), np.uint8))
    ground, person = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    ground[2:], person[1:4, 3] = True, True
    data = {
        "images": [{"id": 7, "file_name": "a.png", "height": 4, "width": 6}],
        "categories": [{"id": row + 1, "name": name} for row, name in enumerate(names)],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2,
             "segmentation": {"size": [4, 6], "counts": counts or runs_of(person)}},
            {"id": 2, "image_id": 7, "category_id": 1, "segmentation": {"size": [4, 6], "counts": runs_of(ground)}},
        ],
    }
    (folder / "train.json").write_text(json.dumps(data))
    return folder / "train.json"


def test_images_come_with_their_instances_by_prompt(tmp_path):
    images = CocoImages(written(tmp_path))
    assert images.prompts == ("sidewalk", "person")
    image = images[0]
    assert image.image[0, 0].tolist() == [0, 0, 255]  # RGB
    assert image.of("person").shape == (1, 4, 6)
    assert image.of("road").shape == (0, 4, 6)
    expected = np.zeros((4, 6), np.uint8)
    expected[2:] = 2
    expected[1:4, 3] = 11
    np.testing.assert_array_equal(image.classes(), expected)


def test_faults_of_annotations_name_the_file(tmp_path):
    with pytest.raises(DatasetError, match="no such annotation file"):
        CocoImages(tmp_path / "none.json")
    with pytest.raises(DatasetError, match="no prompts: kerbstone"):
        CocoImages(written(tmp_path, names=("kerbstone", "person")))
    with pytest.raises(DatasetError, match="annotation 1 cannot be read"):
        CocoImages(written(tmp_path, counts=[3]))[0]
    path = written(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match="missing or no image"):
        CocoImages(path)[0]
    path.write_text("{}")
    with pytest.raises(DatasetError, match="COCO's format"):
        CocoImages(path)
