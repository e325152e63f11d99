"""Find the neurons behind the words of a photo with the built-in model, and write a page to open.

python examples/demo.py [PHOTO]: without a photo, scikit-image's cat `chelsea`.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path("demo")


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        photo = Path(sys.argv[1])
    else:
        import skimage

        photo = Path(skimage.__file__).parent / "data" / "chelsea.png"
    return subprocess.call([sys.executable, "-m", "neuronwise", "find", str(photo), "--out", str(FOLDER)])


if __name__ == "__main__":
    sys.exit(main())
