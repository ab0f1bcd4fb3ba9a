"""Downloading files of weights: once per machine, checked, and never there half."""

import argparse
import hashlib
import http.server
import io
import re
import threading

import pytest
import torch

from nemo_mmseg.utils.checkpoint import download, read_checkpoint


def as_bytes(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve bytes by path on this machine; the address, and the paths that were asked for."""
    files, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = files.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(found or b'')

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    yield files, asked, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()
    thread.join()


def cached(tmp_path):
    return sorted(path.name for path in (tmp_path / 'hub' / 'checkpoints').iterdir())


def test_addresses_with_the_same_last_part_are_two_files(serve, tmp_path):
    files, asked, host = serve
    paths = ('/one/best.pth', '/two/best.pth', '/two/best.pth?version=2')
    for number, path in enumerate(paths):
        files[path] = as_bytes(dict(number=number))
    for _ in range(2):  # the second time from the folder
        assert [read_checkpoint(host + path)['number'] for path in paths] == [0, 1, 2]
    assert asked == list(paths)
    names = cached(tmp_path)
    assert len(names) == 3 and all(re.fullmatch(r'best_[0-9a-f]{12}\.pth', n) for n in names)


def test_a_hash_in_the_name_is_checked(serve, tmp_path):
    files, asked, host = serve
    content = next(
        made
        for made in (as_bytes(dict(a=number)) for number in range(99))
        if re.search('[a-f]', hashlib.sha256(made).hexdigest()[:8])
    )
    right = f'/x/net-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    files |= {right: content, '/x/net-0badc0de.pth': content, '/x/net-20220317.pth': content}
    assert download(host + right).name == right.rpartition('/')[2]
    with pytest.raises(OSError, match='net-0badc0de.pth cannot be downloaded: invalid hash'):
        read_checkpoint(f'{host}/x/net-0badc0de.pth')
    # a date is no hash
    read_checkpoint(f'{host}/x/net-20220317.pth')
    names = cached(tmp_path)
    assert len(names) == 2 and any(name.startswith('net-20220317_') for name in names)


def test_a_file_of_the_plain_name_needs_no_network(serve, tmp_path):
    files, asked, host = serve
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    (folder / 'swin.pth').write_bytes(as_bytes(dict(a=1)))
    assert read_checkpoint(f'{host}/v1/swin.pth') == dict(a=1) and asked == []


def test_a_whole_file_that_is_refused_stays(serve, tmp_path):
    files, asked, host = serve
    files['/a.pth'] = as_bytes(dict(args=argparse.Namespace(a=1)))
    with pytest.raises(ValueError, match='argparse.Namespace'):
        read_checkpoint(f'{host}/a.pth')
    assert read_checkpoint(f'{host}/a.pth', [argparse.Namespace])['args'].a == 1
    assert asked == ['/a.pth']


def test_what_was_downloaded_and_cannot_be_read_does_not_stay(serve, tmp_path):
    files, asked, host = serve
    whole = as_bytes(dict(a=torch.ones(3)))
    files['/a.pth'] = whole[: len(whole) // 2]
    with pytest.raises(ValueError, match=f'{host}/a.pth cannot be read as a checkpoint'):
        read_checkpoint(f'{host}/a.pth')
    assert cached(tmp_path) == []
    files['/a.pth'] = whole
    assert read_checkpoint(f'{host}/a.pth')['a'].tolist() == [1, 1, 1]
    with pytest.raises(OSError, match=r'/none.pth cannot be downloaded: .*404'):
        read_checkpoint(f'{host}/none.pth')
    assert len(cached(tmp_path)) == 1
