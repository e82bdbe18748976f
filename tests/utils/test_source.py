"""Still images and folders of images as media; images read from odd files and written."""

import io
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image
from pillow_heif import register_heif_opener

from datasets.sample import read_pixels
from utils.errors import UserError
from utils.image import decode_image, image_size, image_sizes, list_images, read_image, write_image
from utils.source import advice_on_name, open_source

DATA = Path(__file__).parents[1] / "data" / "media"


def scene(width: int = 48, height: int = 32) -> UInt8[np.ndarray, "H W 3"]:
    """Four corners of different colours, so that every turn and mirror image shows."""
    image = np.full((height, width, 3), 200, np.uint8)
    image[: height // 2, : width // 2] = (200, 40, 40)
    image[: height // 2, width // 2 :] = (40, 180, 40)
    image[height // 2 :, : width // 2] = (40, 40, 220)
    return image


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


# What is stored, for each EXIF orientation, of an image that is to be shown upright.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene())))
    image = decode_image(encoded(stored, kind, exif=exif, quality=95), "picture")
    assert image.shape == (32, 48, 3)
    corners = np.ix_([4, -4], [4, -4])
    assert np.abs(image[corners].astype(int) - scene()[corners]).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_grey_becomes_rgb(kind: str) -> None:
    image = decode_image(encoded(Image.fromarray(scene()[..., 0]), kind), "picture")
    assert image.shape == (32, 48, 3)
    assert np.abs(image.astype(int) - scene()[..., :1]).max() < 16


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    for name, values in (("grey", grey), ("colour", np.stack([grey, grey // 2, grey // 4], -1))):
        path = tmp_path / f"{name}{suffix}"
        cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 else values)
        image = read_image(path)
        expected = np.broadcast_to(values.reshape(48, 64, -1) / 257, image.shape)
        assert np.abs(image - expected).max() <= 1


def test_transparent_pixels_show_white() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:10] = (200, 50, 50, 255)
    for picture in (Image.fromarray(pixels), Image.fromarray(pixels).quantize()):
        image = decode_image(encoded(picture, "PNG"), "picture")
        assert image[2, 2].tolist() == [200, 50, 50]
        assert image[15, 15].tolist() == [255, 255, 255]


def test_cmyk_and_palette_keep_their_colours() -> None:
    picture = Image.fromarray(scene())
    for content in (
        encoded(picture.convert("CMYK"), "JPEG", quality=95),
        encoded(picture.convert("P"), "PNG"),
        encoded(picture.convert("P"), "BMP"),
    ):
        image = decode_image(content, "picture")
        assert np.abs(image[4, 4].astype(int) - (200, 40, 40)).max() < 40
        assert np.abs(image[-4, 4].astype(int) - (40, 40, 220)).max() < 40


def test_damaged_images_are_one_line(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(scene(400, 300)), "JPEG")
    contents = {
        "cut.jpg": whole[: len(whole) // 2],
        "empty.png": b"",
        "text.jpg": b"no picture at all",
        "cut.png": encoded(Image.fromarray(scene()), "PNG")[:60],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            open_source(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_still_is_one_frame(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", scene())
    source = open_source(tmp_path / "a.png")
    assert (source.info.kind, source.info.width, source.info.height) == ("image", 48, 32)
    frames = list(source)
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0)]
    np.testing.assert_array_equal(frames[0].image, scene())
    frames[0].image[:] = 0
    np.testing.assert_array_equal(next(iter(source)).image, scene())


def test_folder_in_natural_order(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9, 100):
        write_image(tmp_path / f"frame{number}.png", np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "._frame3.png").write_bytes(b"left by another system")
    (tmp_path / "folder.png").mkdir()
    source = open_source(tmp_path, fps=12)
    assert (source.info.kind, source.info.fps) == ("folder", 12)
    assert source.info.frame_count_estimate == 5
    assert [int(frame.image[0, 0, 0]) for frame in source] == [1, 2, 9, 10, 100]
    assert [frame.time_s for frame in source] == pytest.approx([k / 12 for k in range(5)])


def test_natural_order_of_mixed_names(tmp_path: Path) -> None:
    for name in ("b.png", "10.png", "2.PNG", "A1.jpg", "a01.jpg", "a²3.png"):
        (tmp_path / name).touch()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["2.PNG", "10.png", "A1.jpg", "a01.jpg", "a²3.png", "b.png"]


def test_unreadable_image_in_a_folder_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 3):
        write_image(tmp_path / f"{number}.png", np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "0.png").write_bytes(b"broken")
    (tmp_path / "2.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(tmp_path))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 3]
    assert [frame.index for frame in frames] == [0, 1]
    assert len(caplog.records) == 1
    assert "2 unreadable" in caplog.text


def test_folder_of_two_sizes_names_the_file(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", scene())
    write_image(tmp_path / "2.png", scene(50, 32))
    with pytest.raises(UserError, match=r"2\.png"):
        list(open_source(tmp_path))


def test_what_is_no_medium(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="no file"):
        open_source(tmp_path / "missing.mp4")
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(UserError, match="unknown format"):
        open_source(tmp_path / "table.csv")


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".jpg", 4)])
def test_written_image_reads_back(tmp_path: Path, suffix: str, tolerance: int) -> None:
    path = tmp_path / "new folder" / f'it\'s a "picture" ü{suffix}'
    write_image(path, scene())
    assert np.abs(read_image(path).astype(int) - scene()).mean() <= tolerance
    assert list(path.parent.iterdir()) == [path]


def test_image_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.jpg or \.png"):
        write_image(tmp_path / "a.webp", scene())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_image(tmp_path / "file" / "a.png", scene())


def test_gif_is_a_video(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((20, 30, 3), 40 * k, np.uint8)) for k in range(5)]
    pictures[0].save(
        tmp_path / "moving.gif", save_all=True, append_images=pictures[1:], duration=100
    )
    source = open_source(tmp_path / "moving.gif")
    assert (source.info.kind, source.info.fps) == ("video", pytest.approx(10))
    assert [round(float(frame.image.mean()) / 40) for frame in source] == [0, 1, 2, 3, 4]
    pictures[3].save(tmp_path / "still.gif")
    frames = list(open_source(tmp_path / "still.gif"))
    assert [round(float(frame.image.mean()) / 40) for frame in frames] == [3]


VIDEO = Path(__file__).parents[2] / "demo" / "test_video.mp4"
REFERENCES = {
    "concat.mp4": "ffconcat version 1.0\nfile 'secret.mp4'\n",
    "concat.mkv": "ffconcat version 1.0\nfile secret.mp4\n",
    "hls.ts": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "sdp.mov": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash.avi": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1000"><BaseURL>secret.mp4</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("name", REFERENCES)
def test_lists_of_other_videos_are_no_videos(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").symlink_to(VIDEO)
    (tmp_path / name).write_text(REFERENCES[name])
    with pytest.raises(UserError, match="no readable video"):
        open_source(tmp_path / name)


def test_a_video_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a%03d.mp4").symlink_to(VIDEO)
    with open_source(tmp_path / "a%03d.mp4") as media:
        assert media.info.width == 1280


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_images_that_run_other_programs_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(scene()).save(path, format="EPS")
    with pytest.raises(UserError, match="cannot read the image"):
        read_image(path)
    assert image_size(path) is None
    Image.fromarray(scene()).save(path, format="PPM")  # harmless, but not what the README lists
    with pytest.raises(UserError, match="cannot read the image"):
        read_image(path)


def png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_with(picture: Image.Image, *chunks: bytes, behind: bool = False) -> bytes:
    """A PNG file with further chunks, before its pixels or behind them."""
    content = encoded(picture, "PNG")
    place = content.index(b"IEND") - 4 if behind else 33
    return content[:place] + b"".join(chunks) + content[place:]


@pytest.mark.parametrize("suffix", [".heic", ".avif", ".jfif", ".mpo", ".jpg", ".mp4", ""])
@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JPEG", "MPO", "PNG"])
def test_content_says_what_a_picture_is(tmp_path: Path, suffix: str, kind: str) -> None:
    register_heif_opener()
    path = tmp_path / f"phone{suffix}"
    path.write_bytes(encoded(Image.fromarray(scene(96, 64)), kind, quality=90))
    source = open_source(path)
    assert (source.info.kind, source.info.width, source.info.height) == ("image", 96, 64)
    (frame,) = source
    corners = np.ix_([8, -8], [8, -8])
    assert np.abs(frame.image[corners].astype(int) - scene(96, 64)[corners]).max() < 16
    assert image_size(path) == (96, 64)


def test_heic_is_turned_by_its_container_alone(tmp_path: Path) -> None:
    """Telephones state the turn in EXIF data as well, where it must not be taken a second time."""
    register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.heic"
    Image.fromarray(scene(96, 64)).save(path, exif=exif, quality=90)
    assert np.abs(read_image(path)[8, 8].astype(int) - scene()[4, 4]).max() < 16
    assert image_size(path) == (96, 64)


@pytest.mark.parametrize("behind", [False, True])
def test_long_texts_cost_no_picture(tmp_path: Path, behind: bool) -> None:
    long = zlib.compress(bytes(3 << 20))
    chunks = [png_chunk(b"zTXt", b"Comment\0\0" + long), png_chunk(b"tEXt", b"a\0" * 999)]
    if not behind:
        chunks.append(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(99))))
    path = tmp_path / "a.png"
    path.write_bytes(png_with(Image.fromarray(scene()), *chunks, behind=behind))
    np.testing.assert_array_equal(read_image(path), scene())
    np.testing.assert_array_equal(read_pixels(path), scene())
    assert image_size(path) == (48, 32)


def test_odd_exif_costs_no_picture_and_keeps_its_turn(tmp_path: Path) -> None:
    """A negative exposure bias in a type without a sign, which Pillow cannot write again."""
    tags = [
        struct.pack("<HHI4s", 0x0112, 3, 1, struct.pack("<HH", 6, 0)),
        struct.pack("<HHII", 0x829A, 5, 1, 8 + 2 + 2 * 12 + 4),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + struct.pack("<ii", -1, 3)
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](scene())))
    path = tmp_path / "a.jpg"
    for name, data in (("odd", exif), ("nonsense", b"Exif\0\0II*\0" + b"\xff" * 40)):
        path.write_bytes(encoded(stored, "JPEG", exif=data))
        size = (48, 32) if name == "odd" else (32, 48)
        assert read_image(path).shape[1::-1] == size
        assert image_size(path) == size
        assert read_pixels(path).shape[1::-1] == (32, 48)


def test_the_phone_picture_with_odd_exif() -> None:
    assert read_image(DATA / "odd_exif.jpg").shape == (640, 360, 3)


def test_huge_photographs_are_read_reduced(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    Image.new("L", (12000, 9000), 90).save(path, quality=30)
    info = open_source(path).info
    assert (info.width, info.height, info.reduction) == (6000, 4500, 2)
    sizes = image_sizes(path)
    assert sizes is not None
    assert (sizes.upright, sizes.stored, sizes.reduction) == ((6000, 4500), (12000, 9000), 2)


@pytest.mark.parametrize("reader", [read_image, read_pixels, open_source])
def test_headers_of_many_pixels_are_refused(
    tmp_path: Path, reader: Callable[[Path], object]
) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"x"))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + png_chunk(b"IEND", b""))
    with pytest.raises(UserError, match="60000x60000 pixels are too many") as caught:
        reader(path)
    assert "\n" not in str(caught.value)
    assert image_size(path) is None


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "AVIF"])
def test_animations_are_videos(tmp_path: Path, kind: str) -> None:
    pictures = [Image.fromarray(np.full((32, 48, 3), 40 * k, np.uint8)) for k in range(5)]
    path = tmp_path / f"moving.{kind.lower()}"
    options = {"lossless": True} if kind == "WEBP" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **options)
    source = open_source(path)
    assert (source.info.kind, source.info.width, source.info.height) == ("video", 48, 32)
    assert source.info.fps == pytest.approx(10)
    assert source.info.frame_count_estimate == 5
    for _ in range(2):
        assert [round(float(frame.image.mean()) / 40) for frame in source] == [0, 1, 2, 3, 4]
    faster = [round(float(frame.image.mean()) / 40) for frame in open_source(path, fps=20)]
    assert faster == [k // 2 for k in range(10)]


def test_what_a_folder_holds_besides_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "1.png", scene())
    for name in ("a.mp4", "b.mp4", "notes.txt", "LICENSE", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    source = open_source(tmp_path)
    assert len(list(source)) == 1
    (record,) = caplog.records
    assert "2 .mp4" in record.message
    assert "1 .txt" in record.message
    assert "1 without a suffix" in record.message
    assert "1 folder" in record.message


def test_hints_for_what_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UserError, match=r"1 \.mp4; for many videos, use --input"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="addresses are not read"):
        open_source(Path("https://example.org/a.mp4"))
    assert advice_on_name(f"{tmp_path}\\clip.mp4") == f"; write it as {tmp_path}/clip.mp4"
    assert advice_on_name("clip.mp4") == ""


def test_written_pngs_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", scene())
    write_image(tmp_path / "a.jpg", scene())
    assert capfd.readouterr() == ("", "")
