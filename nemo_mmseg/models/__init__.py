"""Networks: text encoders, backbones, necks, heads and the segmentor that joins them."""

from nemo_mmseg.models.backbones.lavt_swin_transformer import LAVTSwinTransformer
from nemo_mmseg.models.backbones.open_clip_resnet import OpenCLIPResNet
from nemo_mmseg.models.decode_heads.cris_head import CRISHead
from nemo_mmseg.models.decode_heads.lavt_head import LAVTHead
from nemo_mmseg.models.necks.cris_neck import CRISNeck
from nemo_mmseg.models.segmentors.referring_segmentor import ReferringSegmentor
from nemo_mmseg.models.text_encoders.bert_text_encoder import BERTTextEncoder
from nemo_mmseg.models.text_encoders.open_clip_text_encoder import OpenCLIPTextEncoder

from .structures import TextFeatures

__all__ = [
    'BERTTextEncoder',
    'CRISHead',
    'CRISNeck',
    'LAVTHead',
    'LAVTSwinTransformer',
    'OpenCLIPResNet',
    'OpenCLIPTextEncoder',
    'ReferringSegmentor',
    'TextFeatures',
]
