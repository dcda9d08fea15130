"""imagefs: images and instances of whole systems as ordinary files."""

__version__ = "0.1.0"
