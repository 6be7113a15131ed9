"""Raw and compressed images become exactly the RGB pixels that were meant, or a reasoned refusal."""

import cv2
import numpy as np
import pytest

from occ_perception.errors import BadMessage
from occ_perception.recordings.images import ENCODINGS, decode_image
from occ_perception.recordings.messages import make

RGB = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def image(encoding, stored, *, width=None, height=None, padding=0, big_endian=False):
    """An Image whose rows are `stored` [rows, bytes], with `padding` bytes of rubbish behind each."""
    stored = np.ascontiguousarray(stored).view(np.uint8).reshape(len(stored), -1)
    padded = np.pad(stored, ((0, 0), (0, padding)), constant_values=77)
    return make("sensor_msgs/msg/Image", height=height or len(stored), width=width or RGB.shape[1], encoding=encoding,
                is_bigendian=int(big_endian), step=padded.shape[1], data=padded.reshape(-1))


def compressed(data, kind="jpeg"):
    return make("sensor_msgs/msg/CompressedImage", format=kind, data=np.frombuffer(bytes(data), np.uint8))


ALPHA = np.full((*RGB.shape[:2], 1), 9, np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(("encoding", "stored"), [
    ("rgb8", RGB),
    ("bgr8", RGB[..., ::-1]),
    ("rgba8", np.concatenate([RGB, ALPHA], -1)),
    ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], -1)),
])
def test_colour_encodings_give_the_exact_pixels_with_and_without_row_padding(encoding, stored, padding):
    pixels = decode_image(image(encoding, stored, padding=padding))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RGB)


def test_mono8_repeats_the_grey():
    np.testing.assert_array_equal(decode_image(image("mono8", RGB[..., 0], padding=3)), RGB[..., :1].repeat(3, -1))


@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bit_images_are_scaled_to_8_bits_in_either_byte_order(big_endian):
    order = ">u2" if big_endian else "<u2"
    grey = np.array([[0, 257, 65535, 128 * 257], [1, 256 * 4, 129, 30000]])
    expected = np.rint(grey / 257).astype(np.uint8)
    message = image("mono16", grey.astype(order), width=4, padding=2, big_endian=big_endian)
    np.testing.assert_array_equal(decode_image(message), expected[..., None].repeat(3, -1))
    wide = (RGB.astype(np.uint16) * 257).astype(order)
    np.testing.assert_array_equal(decode_image(image("rgb16", wide, big_endian=big_endian)), RGB)


YUV = {"black": (16, 128, 128), "white": (235, 128, 128), "red": (81, 90, 240), "blue": (41, 240, 110)}
MEANT = {"black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.mark.parametrize("colour", YUV)
@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"])
def test_yuv_encodings_give_the_colour_that_was_meant(encoding, colour):
    y, u, v = YUV[colour]
    pair = [y, u, y, v] if "yuy" in encoding else [u, y, v, y]
    rows = np.tile(np.array(pair, np.uint8), (4, 4))
    if encoding.startswith("nv"):
        chroma = [u, v] if encoding == "nv12" else [v, u]
        rows = np.concatenate([np.full((4, 8), y, np.uint8), np.tile(np.array(chroma, np.uint8), (2, 4))])
    pixels = decode_image(image(encoding, rows, height=4, padding=4))
    assert pixels.shape == (4, 8, 3)
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(MEANT[colour], (4, 8, 3)), atol=2)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_mosaics_of_one_colour_give_that_colour(pattern, bits):
    value = {"r": 200, "g": 100, "b": 50}
    tile = np.array([value[letter] for letter in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (3, 4)).astype(np.uint8)
    stored = mosaic if bits == 8 else (mosaic.astype(np.uint16) * 257).astype("<u2")
    pixels = decode_image(image(f"bayer_{pattern}{bits}", stored, padding=2))
    np.testing.assert_array_equal(pixels, np.broadcast_to([200, 100, 50], (6, 8, 3)))


def test_every_listed_encoding_is_known_in_capitals_too():
    assert {"rgb8", "bgr8", "mono8", "mono16", "yuv422", "nv12", "bayer_rggb8"} <= set(ENCODINGS)
    np.testing.assert_array_equal(decode_image(image("RGB8", RGB)), RGB)


def test_png_is_decoded_to_the_exact_pixels():
    data = cv2.imencode(".png", RGB[..., ::-1])[1]
    np.testing.assert_array_equal(decode_image(compressed(data, "rgb8; png compressed bgr8")), RGB)


def test_jpeg_keeps_red_red_and_may_be_padded_behind():
    red = np.zeros((32, 48, 3), np.uint8)
    red[..., 2] = 250
    data = cv2.imencode(".jpg", red)[1].tobytes() + bytes(100)
    pixels = decode_image(compressed(data))
    assert pixels.shape == (32, 48, 3)
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to([250, 0, 0], pixels.shape), atol=4)


def test_grey_jpeg_gives_three_equal_channels():
    data = cv2.imencode(".jpg", np.full((16, 16), 90, np.uint8))[1]
    np.testing.assert_array_equal(decode_image(compressed(data)), np.full((16, 16, 3), 90))


def jpeg():
    return cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))[1].tobytes()


@pytest.mark.parametrize("data", [b"", b"no image at all", jpeg()[:10], jpeg()[: len(jpeg()) // 2], jpeg()[:-2]],
                         ids=["empty", "foreign", "header", "half", "end"])
def test_broken_compressed_images_are_refused(data):
    with pytest.raises(BadMessage) as caught:
        decode_image(compressed(data))
    assert caught.value.reason == "undecodable_image"


def test_an_unknown_encoding_is_refused_by_name():
    with pytest.raises(BadMessage, match="32FC3") as caught:
        decode_image(image("32FC3", RGB))
    assert caught.value.reason == "unknown_encoding"


@pytest.mark.parametrize("change", [{"height": 7}, {"width": 9}, {"step": 1}, {"width": 0}, {"height": 0}])
def test_sizes_that_do_not_fit_the_data_are_refused(change):
    message = image("rgb8", RGB)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(BadMessage) as caught:
        decode_image(message)
    assert caught.value.reason == "wrong_size"


def test_an_odd_width_of_a_format_that_pairs_pixels_is_refused():
    with pytest.raises(BadMessage) as caught:
        decode_image(image("nv12", np.zeros((6, 7), np.uint8), width=7, height=4))
    assert caught.value.reason == "wrong_size"
