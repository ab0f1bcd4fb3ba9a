"""From other forms to the JSON form of referring data, and from it to RefCOCO's layout."""

from .coco_captions import coco_captions_to_json
from .folders import folders_to_json
from .label_studio import label_studio_to_json
from .labelme import labelme_to_json
from .refcoco import json_to_refcoco, refcoco_to_json

__all__ = [
    'coco_captions_to_json',
    'folders_to_json',
    'json_to_refcoco',
    'label_studio_to_json',
    'labelme_to_json',
    'refcoco_to_json',
]
