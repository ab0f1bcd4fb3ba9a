"""Reading plain pickles and JSON, and pausing the garbage collector."""

import collections
import gc
import json
import math
import os
import pickle

import pytest

from nemo_mmseg.utils import fileio
from nemo_mmseg.utils.fileio import collector_paused, load_json, load_plain_pickle


class Harm:
    def __reduce__(self):
        return os.system, ('touch harmed',)


@pytest.mark.parametrize(
    'content', [Harm(), collections.OrderedDict(a=1), [load_json], {'a': pytest.approx(1)}]
)
def test_a_pickle_that_refers_to_code_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'refs(unc).p'
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match='refs.*not a plain pickle.*asks for'):
        load_plain_pickle(str(path))
    assert not (tmp_path / 'harmed').exists()


def test_plain_containers_of_both_pythons_are_admitted(tmp_path):
    path = tmp_path / 'x.p'
    content = [{'a': [1, 2.5, None, True], 'b': [3], 'c': 'ü'}]
    for protocol in range(5):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        assert load_plain_pickle(str(path)) == content
    # What Python 2 wrote for [b'caf\xe9', u'caf\xe9'] under protocol 0.
    path.write_bytes(b"(lp0\nS'caf\\xe9'\np1\naVcaf\xe9\np2\na.")
    assert load_plain_pickle(str(path)) == ['café', 'café']


@pytest.mark.parametrize('fast', [True, False], ids=['orjson', 'json'])
def test_json_is_read_as_python_reads_it(tmp_path, monkeypatch, fast):
    if not fast:
        monkeypatch.setattr(fileio, 'fast_loads', json.loads)
    path = tmp_path / 'x.json'
    content = [1, 1.0, 0.1 + 0.2, 1e300, -7, None, True, {'ü': []}, '\0\n"\U0001f600']
    path.write_text(json.dumps(content))
    assert repr(load_json(str(path))) == repr(content)
    path.write_text(json.dumps(dict(area=math.nan)))
    assert math.isnan(load_json(str(path))['area'])
    path.write_text('[1, 2')
    for wrong in ('[1, 2', '[' * 100_000, '{"a":' * 100_000, '', b'["\xff"]', '9' * 10_000):
        path.write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
        with pytest.raises(ValueError, match='x.json is not valid JSON') as error:
            load_json(str(path))
        assert len(str(error.value)) < len(str(path)) + 300


def test_the_collector_comes_back():
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
