"""Networks of the affinity between pixels, which refine response maps to pseudo masks."""

from nemo_mmseg.utils.modules import import_modules

import_modules(__name__, __path__)
