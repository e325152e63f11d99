"""Find the neurons behind the words of a photo with the built-in model, index every neuron over a few photos and
texts, and say how to look at both.

python examples/demo.py [PHOTO]: without a photo, scikit-image's cat `chelsea`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import skimage
from PIL import Image

from neuronwise.data.texts import openings

FOLDER = Path("demo")
SHIPPED = Path(skimage.__file__).parent / "data"
PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "horse.png", "hubble_deep_field.jpg",
          "motorcycle_left.png", "rocket.jpg", "text.png")  # fmt: skip


def main() -> int:
    photo = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED / "chelsea.png"
    photos = FOLDER / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        Image.open(SHIPPED / name).convert("RGB").save(photos / f"{Path(name).stem}.jpg")
    texts, index = FOLDER / "texts.txt", FOLDER / "index"
    texts.write_text("\n\n".join(openings()), encoding="utf-8")
    shutil.rmtree(index, ignore_errors=True)  # it may be of another version of the model
    status = neuronwise("find", photo, "--out", FOLDER) or neuronwise(
        "index", "--data", photos, "--texts", texts, "--max-new-tokens", 20, "--out", index
    )
    if not status:
        command = Path(sys.executable).parent / "neuronwise"
        print(f"look at it live: {command} view {FOLDER} --model builtin --photos {photos}")
        print("there, press / and type a neuron, such as L29.U808, for its page")
    return status


def neuronwise(*command: object) -> int:
    return subprocess.call([sys.executable, "-m", "neuronwise", *map(str, command)])


if __name__ == "__main__":
    sys.exit(main())
