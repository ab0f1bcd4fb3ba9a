"""Segment an image: `python tools/infer.py IMAGE EXPRESSION ... --config CONFIG --weights W`."""

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.infer import main

if __name__ == '__main__':
    main()
