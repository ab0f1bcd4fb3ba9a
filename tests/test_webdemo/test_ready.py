"""The data that the demo makes for itself."""

from pathlib import Path

import pytest

from nemo_mmseg.webdemo import MosaicBrowser, ready, small_refshapes, small_refshapes_configs


@pytest.mark.slow
def test_small_refshapes_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ready, 'SIZES', dict(train=10, val=2, testA=0, testB=0))
    examples = small_refshapes(tmp_path)
    assert len(examples) == 2
    for path, text in examples:
        assert Path(path).is_file() and all(text.splitlines())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    assert small_refshapes(tmp_path) == examples
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    assert after == before and any(path.suffix == '.safetensors' for path in after)
    browser = MosaicBrowser(small_refshapes_configs(tmp_path)[1])
    assert browser.find() and (browser.rule.tau, browser.rule.top_k) == (0.8, 30)
