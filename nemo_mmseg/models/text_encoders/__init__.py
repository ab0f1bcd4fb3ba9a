"""Text encoders."""

from nemo_mmseg.utils.modules import import_modules

import_modules(__name__, __path__)
