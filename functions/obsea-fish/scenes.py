"""Draw underwater scenes with fish whose boxes are known: extra training data and the sample pictures.

Nothing here is a photograph. Same seed, same picture (up to the JPEG encoder of the OpenCV in use).

    python functions/obsea-fish/scenes.py OUT --count 8 --seed 17 --size 1080x1920
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Boxes = NDArray[np.float32]

# Water at the top and the bottom of a picture, RGB 0-1: turquoise, blue, green, grey, brown-green, violet.
WATERS = (
    ((0.45, 0.85, 0.80), (0.20, 0.45, 0.40)),
    ((0.15, 0.55, 0.75), (0.05, 0.22, 0.38)),
    ((0.45, 0.72, 0.52), (0.18, 0.32, 0.22)),
    ((0.70, 0.74, 0.74), (0.42, 0.40, 0.38)),
    ((0.58, 0.62, 0.42), (0.30, 0.30, 0.20)),
    ((0.40, 0.42, 0.62), (0.18, 0.18, 0.34)),
)
# Back, belly and marking colours of fish, RGB 0-1.
COATS = (
    ((0.12, 0.11, 0.10), (0.28, 0.26, 0.22), (0.02, 0.02, 0.02)),
    ((0.30, 0.36, 0.38), (0.82, 0.86, 0.84), (0.15, 0.17, 0.18)),
    ((0.36, 0.30, 0.20), (0.74, 0.68, 0.52), (0.20, 0.14, 0.08)),
    ((0.55, 0.50, 0.20), (0.90, 0.86, 0.62), (0.12, 0.12, 0.12)),
    ((0.20, 0.28, 0.22), (0.52, 0.56, 0.44), (0.08, 0.12, 0.08)),
    ((0.55, 0.28, 0.20), (0.86, 0.66, 0.54), (0.35, 0.12, 0.10)),
)
SPRITE_PX = 256


def noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int = 4) -> Image:
    """Smooth noise (height, width) float32, 0-1: random grids of doubling fineness, enlarged and added."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        n = cells * 2**octave
        grid = rng.random((max(2, n * height // width), n), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low + 1e-6)


def outline(rng: np.random.Generator) -> tuple[Image, Image, Image, float]:
    """Upper and lower edge of a body seen from the side: t (n,), up (n,), down (n,), slenderness."""
    t = np.linspace(0, 1, 60, dtype=np.float32)
    slender = float(rng.uniform(0.12, 0.30))
    snout, stalk = rng.uniform(0.45, 0.8), rng.uniform(0.08, 0.22)
    profile = np.clip(np.sin(np.pi * t**snout), 0, 1) ** rng.uniform(0.7, 1.1)
    profile = np.maximum(profile * slender, stalk * slender * np.clip(t * 6, 0, 1))
    hump = rng.uniform(0.85, 1.2)
    return t, profile * hump, profile * (2 - hump), slender


def shapes(rng: np.random.Generator) -> tuple[NDArray[np.int32], list[NDArray[np.int32]], float]:
    """Polygons of one fish heading left on a square of SPRITE_PX: body, fins, and its half height in px."""
    t, up, down, slender = outline(rng)
    length, x0, middle = 0.68 * SPRITE_PX, 0.08 * SPRITE_PX, SPRITE_PX / 2
    bend = rng.uniform(-0.10, 0.10)

    def at(u: float | Image, v: float | Image) -> NDArray[np.int32]:
        """Body coordinates (along 0-1, across, both in lengths) to sprite pixels (n, 2)."""
        u, v = np.atleast_1d(u), np.atleast_1d(v)
        sway = bend * np.clip(u - 0.3, 0, None) ** 2
        return np.stack([x0 + u * length, middle + (v + sway) * length], -1).astype(np.int32)

    body = np.concatenate([at(t, -up), at(t[::-1], down[::-1])])
    spread, reach, fork = rng.uniform(0.10, 0.22), rng.uniform(1.14, 1.32), rng.uniform(-0.03, 0.12)
    tail = at(
        np.array([0.95, reach, reach - fork, reach, 0.95]),
        np.array([-0.02, -spread, 0.0, spread, 0.02]),
    )
    start, end = rng.uniform(0.25, 0.4), rng.uniform(0.65, 0.92)
    rise = slender * rng.uniform(1.05, 1.6)
    back = at(np.array([start, start + 0.08, end, end]), np.array([-slender * 0.7, -rise, -rise * 0.7, -0.03]))
    belly = at(np.array([0.6, 0.66, 0.85, 0.9]), np.array([slender * 0.6, rise, rise * 0.5, 0.03]))
    return body, [tail, back, belly], slender * length


def sprite(rng: np.random.Generator) -> NDArray[np.float32]:
    """One fish heading left or right: (h, w, 4) float32, RGB and opacity, 0-1, trimmed to the fish."""
    body, fins, half = shapes(rng)
    dark, light, mark = (np.array(c, np.float32) for c in COATS[rng.integers(len(COATS))])
    tint = rng.uniform(0.75, 1.25, 3).astype(np.float32)
    fin_mask, body_mask = np.zeros((2, SPRITE_PX, SPRITE_PX), np.float32)
    for fin in fins:
        cv2.fillPoly(fin_mask, [fin], 1.0)
    cv2.fillPoly(body_mask, [body], 1.0)
    rows = np.linspace(-1, 1, SPRITE_PX, dtype=np.float32)[:, None] * SPRITE_PX / 2 / half
    shade = np.clip(rows * rng.uniform(0.4, 0.9) + rng.uniform(0.2, 0.6), 0, 1)[..., None]
    colour = dark * (1 - shade) + light * shade
    colour = np.broadcast_to(colour, (SPRITE_PX, SPRITE_PX, 3)).copy()
    marks = markings(rng)[..., None] * rng.uniform(0.2, 0.9)
    colour = colour * (1 - marks) + mark * marks
    colour *= 0.85 + 0.3 * noise(rng, SPRITE_PX, SPRITE_PX, 16, 3)[..., None]
    fin_colour = dark * rng.uniform(0.6, 1.3) + rng.uniform(0, 0.15)
    rgb = np.where(body_mask[..., None] > 0, colour, fin_colour)
    eye = (int(0.15 * SPRITE_PX), int(SPRITE_PX / 2 - half * 0.25))
    radius = max(2, int(half * rng.uniform(0.10, 0.18)))
    cv2.circle(rgb, eye, radius, (0.85, 0.85, 0.7), -1)
    cv2.circle(rgb, eye, max(1, radius * 2 // 3), (0.03, 0.03, 0.03), -1)
    alpha = np.maximum(body_mask, fin_mask * rng.uniform(0.45, 0.95))
    picture = np.dstack([np.clip(rgb * tint, 0, 1), alpha]).astype(np.float32)
    return trim(picture[:, ::-1] if rng.random() < 0.5 else picture)


def markings(rng: np.random.Generator) -> Image:
    """Strength of the markings over the sprite, (SPRITE_PX, SPRITE_PX) float32 0-1: bars, lines, spots."""
    y, x = np.mgrid[0:SPRITE_PX, 0:SPRITE_PX].astype(np.float32) / SPRITE_PX
    kind = rng.integers(5)
    if kind == 0:
        return (np.sin(x * rng.uniform(25, 60) + y * 3) > rng.uniform(0.2, 0.7)).astype(np.float32)
    if kind == 1:
        return (np.sin(y * rng.uniform(60, 150)) > 0.6).astype(np.float32)
    if kind == 2:
        return (noise(rng, SPRITE_PX, SPRITE_PX, 20, 2) > 0.62).astype(np.float32)
    if kind == 3:
        spot = (x - rng.uniform(0.45, 0.75)) ** 2 + (y - 0.48) ** 2
        return (spot < rng.uniform(0.02, 0.05) ** 2).astype(np.float32)
    return np.zeros_like(x)


def trim(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut (h, w, 4) down to where the opacity is above 0.3."""
    rows, columns = np.where(picture[..., 3].max(1) > 0.3)[0], np.where(picture[..., 3].max(0) > 0.3)[0]
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def pose(rng: np.random.Generator, fish: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    """Turn a sprite: foreshorten it (heading towards the camera), pitch it, scale it to `length` px."""
    heading = rng.uniform(0.35, 1.0) ** 0.6
    scale = length / fish.shape[1]
    angle = np.radians(np.clip(rng.normal(0, 14), -50, 50))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos * heading, -sin], [sin * heading, cos]], np.float32) * scale
    h, w = fish.shape[:2]
    corners = matrix @ np.array([[0, w, 0, w], [0, 0, h, h]], np.float32)
    low = corners.min(1)
    size = np.ceil(corners.max(1) - low).astype(int) + 2
    # Blur before shrinking: warpAffine samples points and would alias.
    blurred = cv2.GaussianBlur(fish, (0, 0), 0.4 / scale) if scale < 0.7 else fish
    warp = np.column_stack([matrix, 1 - low])
    turned = cv2.warpAffine(blurred, warp, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR)
    return trim(turned) if turned[..., 3].max() > 0.5 else turned


def place(
    rng: np.random.Generator, scene: Image, fish: NDArray[np.float32], haze: float, veil: Image
) -> tuple[float, float, float, float]:
    """Lay a posed fish into `scene` (changed in place), hidden by `haze` 0-1 of the `veil` colour.

    Returns:
        Its box, xyxy px, clipped to the scene.
    """
    h, w = fish.shape[:2]
    height, width = scene.shape[:2]
    x, y = int(rng.uniform(-0.2 * w, width - 0.8 * w)), int(rng.uniform(-0.1 * h, height - 0.9 * h))
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    part = fish[y1 - y : y2 - y, x1 - x : x2 - x]
    spot = scene[y1:y2, x1:x2]
    local = 0.5 * veil + 0.5 * spot.mean((0, 1))
    colour = part[..., :3] * (0.35 + 0.65 * local / (local.max() + 1e-6))
    opaque = part[..., 3:] * (1 - 0.3 * haze)
    spot[:] = spot * (1 - opaque) + (colour * (1 - haze) + local * haze) * opaque
    return x1, y1, x2, y2


def seabed(rng: np.random.Generator, scene: Image, horizon: int, colour: Image) -> None:
    """Draw a textured bottom with caustic light below `horizon` px, fading into the water far away."""
    height, width = scene.shape[:2]
    depth = height - horizon
    rough = noise(rng, depth, width, 24, 5)
    light = np.abs(noise(rng, depth, width, 14, 3) - 0.5)
    caustics = np.clip(1 - light * 8, 0, 1) * rng.uniform(0, 0.2)
    ground = colour * (0.45 + 0.8 * rough[..., None]) + caustics[..., None]
    near = np.linspace(0, 1, depth, dtype=np.float32)[:, None, None]
    near = 0.95 * np.clip(near * rng.uniform(1.2, 4), 0, 1)
    scene[horizon:] = scene[horizon:] * (1 - near) + ground * near


def rock(rng: np.random.Generator, scene: Image, centre: tuple[float, float]) -> None:
    """Draw one stone with a ragged outline around `centre` (x, y) px, lighter on top."""
    height, width = scene.shape[:2]
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ragged = 1 + sum(rng.uniform(0, 0.25 / k) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 9))
    wide, tall = width * rng.uniform(0.03, 0.16), height * rng.uniform(0.04, 0.22)
    edge = np.stack([centre[0] + wide * ragged * np.cos(angle), centre[1] + tall * ragged * np.sin(angle)], -1)
    mask = np.zeros((height, width), np.float32)
    cv2.fillPoly(mask, [edge.astype(np.int32)], 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), width / 500)[..., None] * rng.uniform(0.5, 0.95)
    light = np.clip((centre[1] - np.arange(height, dtype=np.float32)) / tall, -1, 1)[:, None]
    stone = rng.uniform(0.25, 0.9) * (0.75 + 0.25 * light) * (0.4 + 0.9 * noise(rng, height, width, 40, 5))
    scene[:] = scene * (1 - mask) + scene[-1].mean(0) * stone[..., None] * mask


def clutter(rng: np.random.Generator, scene: Image, horizon: int) -> None:
    """Draw what is not fish: rocks, weed, posts, ropes, a bright cable."""
    height, width = scene.shape[:2]
    for _ in range(rng.integers(0, 5)):
        rock(rng, scene, (rng.uniform(0, width), rng.uniform(horizon, height * 1.05)))
    lines = np.zeros((height, width, 4), np.float32)
    for _ in range(rng.integers(0, 25) if rng.random() < 0.6 else 0):  # weed
        x, tall = rng.uniform(0, width), height * rng.uniform(0.05, 0.25)
        t = np.linspace(0, 1, 12)
        xs = x + np.sin(t * rng.uniform(1, 4) + rng.uniform(0, 6)) * tall * 0.2
        ys = rng.uniform(horizon + 0.3 * (height - horizon), height) - t * tall
        colour = (*(np.array([0.2, 0.3, 0.12]) * rng.uniform(0.5, 1.4)), 0.8)
        points = np.stack([xs, ys], -1).astype(np.int32)
        cv2.polylines(lines, [points], False, colour, max(1, int(width * rng.uniform(0.002, 0.007))))
    for _ in range(rng.integers(0, 4)):  # posts, ropes, cable
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
        bright = rng.random() < 0.3
        colour = (0.75, 0.8, 0.2, 0.9) if bright else (*([rng.uniform(0.1, 0.5)] * 3), 0.8)
        thick = max(1, int(width * rng.choice([0.002, 0.004, 0.02])))
        cv2.line(lines, ends[0].astype(int).tolist(), ends[1].astype(int).tolist(), colour, thick)
    opaque = lines[..., 3:] * rng.uniform(0.4, 1)
    scene[:] = scene * (1 - opaque) + lines[..., :3] * opaque


def water(rng: np.random.Generator, height: int, width: int) -> tuple[Image, Image]:
    """An empty scene (height, width, 3) float32 RGB 0-1, and the colour (3,) of its haze."""
    top, bottom = (np.array(c, np.float32) for c in WATERS[rng.integers(len(WATERS))])
    tint = rng.uniform(0.85, 1.15, 3).astype(np.float32)
    top, bottom = top * tint, bottom * tint
    down = (np.linspace(0, 1, height, dtype=np.float32) ** rng.uniform(0.6, 1.4))[:, None, None]
    scene = np.broadcast_to(top * (1 - down) + bottom * down, (height, width, 3)).copy()
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    sun = np.exp(-(((x / width - rng.uniform(0.1, 0.9)) / 0.35) ** 2) - (y / height / 0.6) ** 2)
    shafts = 0.5 + 0.5 * np.sin((x + y * rng.uniform(-0.5, 0.5)) / width * rng.uniform(15, 40))
    scene += (sun * rng.uniform(0.05, 0.3) * (0.8 + 0.2 * shafts))[..., None]
    scene *= 0.94 + 0.12 * noise(rng, height, width, 4, 3)[..., None]
    return scene, (0.6 * top + 0.4 * bottom)


def camera(rng: np.random.Generator, scene: Image) -> NDArray[np.uint8]:
    """Floating particles, vignette, blur and sensor noise: float32 0-1 to uint8, both (h, w, 3) RGB."""
    height, width = scene.shape[:2]
    specks = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(0, 60)):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.circle(specks, centre, int(width * rng.uniform(0.0004, 0.0025)), rng.uniform(0.1, 0.5), -1)
    scene = scene + cv2.GaussianBlur(specks, (0, 0), width / 900)[..., None]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)  # type: ignore[misc]
    scene = scene * (1 - rng.uniform(0, 0.25) * (x**2 + y**2) / 2)[..., None]
    scene = cv2.GaussianBlur(scene, (0, 0), width * rng.uniform(0.0004, 0.0012))
    scene = scene + rng.normal(0, rng.uniform(0.003, 0.02), (height, width, 1)).astype(np.float32)
    return (np.clip(scene, 0, 1) * 255).astype(np.uint8)


def draw(rng: np.random.Generator, size: tuple[int, int], count: int | None = None) -> tuple[NDArray[np.uint8], Boxes]:
    """Draw one scene.

    Args:
        rng: source of all choices.
        size: (height, width), px.
        count: number of fish; chosen from 0 to 8 if left out.

    Returns:
        The picture (height, width, 3) uint8 RGB, and the boxes (n, 4) float32 xyxy px.
    """
    height, width = size
    scene, veil = water(rng, height, width)
    horizon = int(height * rng.uniform(0.55, 0.95))
    if rng.random() < 0.85:
        seabed(rng, scene, horizon, rng.uniform(0.25, 0.75) * (0.5 + veil))
    clutter(rng, scene, horizon)
    number = int(rng.integers(0, 9)) if count is None else count
    distances = np.sort(rng.uniform(0, 0.75, number))[::-1]  # far ones first
    boxes = []
    for distance in distances:
        length = width * rng.uniform(0.07, 0.2) * (1 - 0.8 * distance)
        fish = pose(rng, sprite(rng), length)
        boxes.append(place(rng, scene, fish, float(distance * rng.uniform(0.5, 1.0)), veil))
    return camera(rng, scene), np.array(boxes, np.float32).reshape(-1, 4)


def main() -> None:
    """Write pictures and one COCO file with their boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=8, help="number of pictures")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--size", default="1080x1920", help="HEIGHTxWIDTH, px")
    args = parser.parse_args()
    height, width = (int(n) for n in args.size.split("x"))
    args.out.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(args.count):
        # Picture 0 is empty, the next have 1, 2, ... 6 fish, then empty again.
        picture, boxes = draw(np.random.default_rng((args.seed, number)), (height, width), number % 7)
        name = f"scene_{args.seed}_{number:02d}.jpg"
        cv2.imwrite(str(args.out / name), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        for x1, y1, x2, y2 in boxes.tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1, "bbox": box})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "fish"}]}
    (args.out / "scenes.coco.json").write_text(json.dumps(coco, indent=1) + "\n")


if __name__ == "__main__":
    main()
