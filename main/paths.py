"""Where the project's folders are."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PRETRAINED: Final = ROOT / "pretrained_models"
OUTPUTS: Final = ROOT / "outputs"
DEMO: Final = ROOT / "demo"
