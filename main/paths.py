"""Where the project's folders are, and what the file is called that every model and result has."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PRETRAINED: Final = ROOT / "pretrained_models"
OUTPUTS: Final = ROOT / "outputs"
DEMO: Final = ROOT / "demo"
CONFIG_NAME: Final = "config_base.py"
"""The config beside weights, and in each folder of results."""
