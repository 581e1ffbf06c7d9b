"""Images, sounds and films: taken in many shapes, called by their content, decoded in a process of limited means.

    image_of(...), audio_of(...), video_of(...) -> Media     intake.py; URLs only where ``Reach`` allows
    Decoder().decode(media) -> Image | Sound | Film          decoder.py; the work is done in worker.py, a subprocess

A file is told by its first bytes (``kinds.py``), never by its name, and held to the ``Limits``. Only names are imported
here; Pillow, soundfile and PyAV run in the worker alone.
"""

from flexreward.media.digest import digest_of

__all__ = ["digest_of"]
