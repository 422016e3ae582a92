"""HFI: turn people's judgments on generated pictures into a changed text-to-image model."""

__version__ = "0.1.0"
