#!/usr/bin/env python3
"""Makes cases.json: small pictures as files, and what Pillow reads and resizes them to.

Needs python3-pil (Debian 12's, over the same libjpeg and libpng). Run it here; check in the result.
"""
import base64
import io
import json
import pathlib

from PIL import Image

# name, mode, (width, height), how it is saved
FILES = [
    ("grey.png", "L", (9, 7), {}),
    ("colour.png", "RGB", (10, 6), {}),
    ("alpha.png", "RGBA", (8, 8), {}),
    ("grey-alpha.png", "LA", (5, 4), {}),
    ("palette.png", "P", (12, 5), {}),
    ("bits.png", "1", (11, 3), {}),
    ("deep.png", "I;16", (6, 6), {}),
    ("grey.jpg", "L", (20, 13), {"quality": 90}),
    ("colour.jpg", "RGB", (23, 17), {"quality": 85}),
    ("progressive.jpg", "RGB", (33, 24), {"quality": 80, "progressive": True}),
]
SIZES = [(4, 4), (7, 3), (16, 20)]
FILTERS = {"rgb": Image.BILINEAR, "bicubic": Image.BICUBIC}


def sample(x, y, c):
    return (x * 29 + y * 53 + c * 97 + x * y * 7) % 256


def picture(mode, size):
    width, height = size
    if mode == "I;16":
        image = Image.new("I;16", size)
        for y in range(height):
            for x in range(width):
                image.putpixel((x, y), sample(x, y, 0) * 256 + sample(y, x, 1))
        return image
    colour = Image.new("RGB", size)
    # Smooth, so that JPEG keeps it.
    colour.putdata([(sample(x, y, 0) if mode in ("P", "RGBA", "1", "LA") else x * 11 % 256,
                     y * 13 % 256, (x + y) * 5 % 256) for y in range(height) for x in range(width)])
    if mode == "RGBA":
        colour.putalpha(Image.linear_gradient("L").resize(size))
        return colour
    if mode == "LA":
        return Image.merge("LA", (colour.convert("L"), Image.linear_gradient("L").resize(size)))
    return colour.convert(mode)


def b64(data):
    return base64.b64encode(data).decode()


def main():
    cases = []
    for name, mode, size, options in FILES:
        file = io.BytesIO()
        picture(mode, size).save(file, "PNG" if name.endswith("png") else "JPEG", **options)
        data = file.getvalue()
        read = Image.open(io.BytesIO(data))
        if mode == "I;16":  # Pillow clips where libpng keeps the high byte
            high = bytes(read.getpixel((x, y)) >> 8 for y in range(size[1]) for x in range(size[0]))
            colour = Image.frombytes("L", size, high).convert("RGB")
        else:
            colour = read.convert("RGB")
        grey = colour.convert("L") if not name.endswith("jpg") or mode == "RGB" else read
        case = {"name": name, "width": size[0], "height": size[1], "file": b64(data),
                "rgb": b64(colour.tobytes()), "grey": b64(grey.tobytes()), "resized": []}
        for width, height in SIZES:
            small = {key: colour.resize((width, height), how) for key, how in FILTERS.items()}
            case["resized"].append({"width": width, "height": height}
                                   | {key: b64(image.tobytes()) for key, image in small.items()})
        box = (1.25, 0.5, size[0] - 1.5, size[1] - 0.25)
        case["boxed"] = {"box": box, "width": 5, "height": 4}
        for key, how in FILTERS.items():
            case["boxed"][key] = b64(colour.resize((5, 4), how, box=box).tobytes())
        cases.append(case)
    pathlib.Path(__file__).with_name("cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
