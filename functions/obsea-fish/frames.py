"""Frames with fish boxes: reading the DeepFish folder, and mixing frames into training samples."""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scenes
from numpy.typing import NDArray

GREY = 114
BAND_LEVEL = 12  # mean brightness below which a row at the top or the bottom is padding
NATURAL_SCALE = 640 / 360  # a frame of 360 px meets an input of 640 px enlarged by this
MOSAIC, EMPTY_ODDS, PASTE, DRAWN = 0.5, 0.7, 0.45, 0.12
RIM_SPREAD, CUT_AREA = 0.025, (0.25, 0.65)
SEEN, SMALLEST_PX = 0.35, 4.0  # boxes less visible or smaller than this after cutting are dropped


@dataclass(frozen=True)
class Frame:
    """One picture (h, w, 3) uint8 RGB, its boxes (n, 4) float32 xyxy px, its file name and site."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    name: str
    site: str


def read(folder: Path, part: str) -> list[Frame]:
    """Decode all frames of `part` ("train" or "val") from its zip and its COCO file, in file order."""
    coco = json.loads((folder / f"{part}.coco.json").read_text())
    found = defaultdict(list)
    for note in coco["annotations"]:
        x, y, w, h = note["bbox"]
        found[note["image_id"]].append((x, y, x + w, y + h))
    frames = []
    with zipfile.ZipFile(folder / f"{part}_images.zip") as archive:
        for entry in coco["images"]:
            name = entry["file_name"]
            data = np.frombuffer(archive.read(name), np.uint8)
            image = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
            boxes = np.array(found[entry["id"]], np.float32).reshape(-1, 4)
            frames.append(Frame(image, boxes, name, name.split("_")[0]))
    return frames


def without_bands(frame: Frame) -> Frame:
    """Cut off the black rows that pad the picture above and below."""
    bright = np.where(frame.image.mean((1, 2)) > BAND_LEVEL)[0]
    top, bottom = (int(bright[0]) + 1, int(bright[-1])) if len(bright) > 32 else (0, len(frame.image))
    boxes = frame.boxes - np.array([0, top, 0, top], np.float32)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, bottom - top)
    return Frame(np.ascontiguousarray(frame.image[top:bottom]), boxes, frame.name, frame.site)


def drawn(count: int, seed: int) -> list[Frame]:
    """`count` drawn scenes of about the size of the real frames."""
    frames = []
    for number in range(count):
        image, boxes = scenes.draw(np.random.default_rng((seed, 1, number)), (270, 480))
        small = cv2.resize(image, (360, 203), interpolation=cv2.INTER_AREA)
        frames.append(Frame(small, boxes * 0.75, f"drawn_{number}", "drawn"))
    return frames


class Mixer:
    """Makes training samples. Sample `n` depends on the seed and `n` alone, so a stopped run can go on."""

    def __init__(self, frames: list[Frame], seed: int, size: int, drawings: int = 300) -> None:
        self.frames = [without_bands(f) for f in frames]
        self.drawings = drawn(drawings, seed)
        rng = np.random.default_rng((seed, 2))
        self.sprites = [scenes.sprite(rng) for _ in range(drawings)]
        self.cuttings = cuttings(self.frames)
        self.seed, self.size = seed, size
        sites = [f.site for f in frames]
        # Sites differ up to six times in frames: draw them by the square root, and empty frames less often.
        odds = [sites.count(f.site) ** -0.5 * (1.0 if len(f.boxes) else EMPTY_ODDS) for f in frames]
        self.odds = np.cumsum(odds) / np.sum(odds)

    def sample(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Sample `number`: (size, size, 3) uint8 RGB and boxes (n, 4) float32 xyxy px."""
        rng = np.random.default_rng((self.seed, 3, number))
        size = self.size
        fill = (GREY, 0, int(rng.integers(256)))[rng.integers(3)]
        canvas = np.full((size, size, 3), fill, np.uint8)
        if rng.random() < MOSAIC:
            x, y = (int(v) for v in rng.uniform(0.3, 0.7, 2) * size)
            areas = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
        else:
            areas = [(0, 0, size, size)]
        boxes = []
        for x1, y1, x2, y2 in areas:
            shift = np.array([x1, y1, x1, y1])
            boxes.append(self.fill(rng, canvas[y1:y2, x1:x2]) + shift)
        return finish(rng, canvas, np.concatenate(boxes).astype(np.float32))

    def fill(self, rng: np.random.Generator, area: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Draw one randomly scaled, shifted, mirrored and tinted frame into `area`; its boxes there."""
        if rng.random() < DRAWN:
            frame = self.drawings[rng.integers(len(self.drawings))]
        else:
            frame = self.frames[int(np.searchsorted(self.odds, rng.random()))]
        if frame.site != "drawn" and rng.random() < PASTE:
            frame = self.paste(rng, frame)
        height, width = area.shape[:2]
        h, w = frame.image.shape[:2]
        scale = NATURAL_SCALE * np.exp(rng.uniform(np.log(0.6), np.log(1.7)))
        stretch = np.exp(rng.uniform(-0.15, 0.15))
        sx, sy = scale * stretch, scale / stretch
        # Shift so that the frame covers the area where it can, and lies inside it where it cannot.
        dx, dy = rng.random(2) * (width - w * sx, height - h * sy)
        mirror = rng.random() < 0.5
        image = colours(rng, frame.image[:, ::-1] if mirror else frame.image)
        warp = np.array([[sx, 0, dx], [0, sy, dy]], np.float32)
        cv2.warpAffine(image, warp, (width, height), area, borderMode=cv2.BORDER_TRANSPARENT)
        boxes = frame.boxes.copy()
        if mirror:
            boxes[:, [0, 2]] = w - boxes[:, [2, 0]]
        return visible(boxes * (sx, sy, sx, sy) + (dx, dy, dx, dy), width, height)

    def paste(self, rng: np.random.Generator, frame: Frame) -> Frame:
        """Lay one to three fish over a real frame: drawn ones, partly in haze, or ones cut from other frames."""
        scene = frame.image.astype(np.float32) / 255
        veil = scene[: len(scene) // 2].mean((0, 1))
        boxes = [frame.boxes]
        for _ in range(rng.integers(1, 4)):
            if rng.random() < 0.5:
                length = np.exp(rng.uniform(np.log(9), np.log(80)))
                fish = scenes.pose(rng, self.sprites[rng.integers(len(self.sprites))], length)
                fish = cv2.GaussianBlur(fish, (0, 0), rng.uniform(0.3, 0.8))
                box = scenes.place(rng, scene, fish, rng.uniform(0.0, 0.6), veil)
            else:
                box = transplant(rng, scene, self.cuttings[rng.integers(len(self.cuttings))])
            boxes.append(np.array([box], np.float32))
        image = (scene.clip(0, 1) * 255).astype(np.uint8)
        return Frame(image, np.concatenate(boxes), frame.name, frame.site)


def cuttings(frames: list[Frame]) -> list[NDArray[np.float32]]:
    """Cut out real fish that stand clear of the water: (h, w, 4) float32 RGB and opacity, 0-1.

    The opacity follows the difference to the mean colour of the box's rim. Boxes in which little or
    nearly everything differs (murky water, weed behind) give no clean cutting and are left out.
    """
    found = []
    for frame in frames:
        for x1, y1, x2, y2 in frame.boxes.round().astype(int).tolist():
            crop = frame.image[y1:y2, x1:x2].astype(np.float32) / 255
            if crop.shape[0] < 8 or crop.shape[1] < 10:
                continue
            rim = np.concatenate([crop[0], crop[-1], crop[:, 0], crop[:, -1]])
            if rim.std(0).mean() > RIM_SPREAD:
                continue
            apart = cv2.GaussianBlur(np.abs(crop - np.median(rim, 0)).max(-1), (0, 0), 0.8)
            opaque = np.clip((apart - 0.03) / 0.05, 0, 1)
            if CUT_AREA[0] < opaque.mean() < CUT_AREA[1]:
                found.append(np.dstack([crop, opaque]))
    return found


def transplant(
    rng: np.random.Generator, scene: NDArray[np.float32], fish: NDArray[np.float32]
) -> tuple[float, float, float, float]:
    """Lay a cutting over `scene` (float32 0-1, changed in place), half matched in tint; its box xyxy px."""
    height, width = scene.shape[:2]
    factor = np.exp(rng.uniform(-0.5, 0.5))
    w, h = (max(4, int(n * factor)) for n in fish.shape[1::-1])
    w, h = min(w, width - 1), min(h, height - 1)
    fish = cv2.resize(fish, (w, h), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    fish = fish[:, ::-1] if rng.random() < 0.5 else fish
    x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
    spot = scene[y : y + h, x : x + w]
    colour, opaque = fish[..., :3] * rng.uniform(0.75, 1.25), fish[..., 3:]
    local = spot.mean((0, 1))
    share = rng.uniform(0.2, 0.8)
    colour = colour * (1 - share) + colour.mean(-1, keepdims=True) * local / (local.mean() + 1e-6) * share
    spot[:] = spot * (1 - opaque) + colour * opaque
    return x, y, x + w, y + h


def visible(boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Clip boxes (n, 4) to a picture and drop those of which too little is left."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    cut = boxes.clip(0, (width, height, width, height))
    w, h = cut[:, 2] - cut[:, 0], cut[:, 3] - cut[:, 1]
    return cut[(w >= SMALLEST_PX) & (h >= SMALLEST_PX) & (w * h >= SEEN * area)]


def colours(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Change tint, contrast, brightness and haze through one table a channel; (h, w, 3) uint8 RGB."""
    level = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gamma = np.exp(rng.uniform(-0.4, 0.4))
    tint = rng.uniform(0.8, 1.2) * rng.uniform(0.8, 1.2, 3)
    table = np.clip(level * tint, 0, 1) ** gamma
    table = (table - 0.5) * rng.uniform(0.7, 1.3) + 0.5
    if rng.random() < 0.3:
        veil = rng.uniform(0.3, 0.9) * rng.uniform(0.6, 1.0, 3)
        haze = rng.uniform(0, 0.5)
        table = table * (1 - haze) + veil * haze
    lut = (table.clip(0, 1) * 255).astype(np.uint8)[None]
    return cv2.LUT(np.ascontiguousarray(image), lut)


def finish(
    rng: np.random.Generator, image: NDArray[np.uint8], boxes: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blur, sensor noise or loss of colour over the whole sample, each now and then."""
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.15:
        grain = np.zeros(image.shape[:2], np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
        cv2.randn(grain, 0, float(rng.uniform(2, 10)))
        image = (image + grain[..., None]).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.05:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return image, boxes
