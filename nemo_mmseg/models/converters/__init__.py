"""Published checkpoints, renamed to ours.

A converter takes a published checkpoint and returns our state dict, together with what it left out
and why. It raises an error that names any tensor it does not know. The file of a method registers
its converters in ``CONVERTERS``.
"""

from nemo_mmseg.utils.modules import import_modules

import_modules(__name__, __path__)
