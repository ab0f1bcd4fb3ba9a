"""Networks outside of Python's OpenMMLab: ONNX, torch.export, and a runtime for them.

Nothing of the package imports this folder: it needs the extra ``export``.
"""
