"""The page in a real browser: Debian's chromium, driven by playwright."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from small_runs import NEMO, forget_runs, small_config

from nemo_mmseg.apis import ReferringInferencer
from nemo_mmseg.utils.config import find_config
from nemo_mmseg.webdemo import MosaicBrowser, PictureSegmenter

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser'))), None)
NETWORK = 'gradcam_refshapes-clip_refshapes-plus-256x256'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='no chromium: apt-get install chromium'),
]
SECONDS = 1000  # milliseconds


@pytest.fixture(scope='module')
def url(refshapes: Path, refshapes_bank: Path):
    """The page of the small network, served from this process."""
    pytest.importorskip('gradio', reason='no gradio: pip install .[demo]')
    sys.path.insert(0, str(Path(__file__).parents[2] / 'tools'))
    try:
        import demo_page
    finally:
        sys.path.pop(0)
    # The web server closes all log files of the process, and MMEngine would write to them.
    forget_runs()
    segment = PictureSegmenter(ReferringInferencer(find_config(NETWORK), device='cpu'))
    browser = MosaicBrowser(small_config(NEMO, refshapes, refshapes_bank))
    page = demo_page.build_page(segment, browser, 'about', [])
    _, address, _ = demo_page.serve(page, '127.0.0.1', None, prevent_thread_lock=True, quiet=True)
    yield address
    page.close()
    forget_runs()


@pytest.fixture(scope='module')
def chromium():
    api = pytest.importorskip('playwright.sync_api', reason='no playwright: pip install playwright')
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390], ids=['desktop', 'phone'])
def page(request, url, chromium):
    """The page in a window of some width."""
    page = chromium.new_page(viewport=dict(width=request.param, height=844))
    page.set_default_timeout(90 * SECONDS)
    page.goto(url)
    page.wait_for_selector('#segment')
    yield page
    # Nothing is wider than the window, whatever the page shows.
    assert page.evaluate('document.documentElement.scrollWidth') == request.param
    page.close()


def upload(page, path: Path) -> None:
    """Put a file into the page, in place of the one that is there."""
    if page.locator('#picture button[aria-label="Clear"]').count():
        page.click('#picture button[aria-label="Clear"]')
    page.set_input_files('#picture input[type=file]', str(path))
    page.wait_for_selector('#picture img')


def test_pictures(page, refshapes, tmp_path):
    def trouble(message: str) -> None:
        page.click('#segment')
        page.get_by_role('alert').filter(has_text=message).wait_for()
        assert 'Traceback' not in page.content() and not page.inner_text('#answers').strip()

    picture = sorted((refshapes / 'train2014').glob('*.jpg'))[0]
    trouble('there is no picture')
    upload(page, picture)
    trouble('there is no expression')
    page.fill('#expressions textarea', 'red star\n\nblue circle')
    (tmp_path / 'notes.jpg').write_text('dear diary')
    upload(page, tmp_path / 'notes.jpg')
    trouble('cannot read the image notes.jpg: it is no JPEG')
    (tmp_path / 'cut.jpg').write_bytes(picture.read_bytes()[:-500])
    upload(page, tmp_path / 'cut.jpg')
    trouble('cannot read the image cut.jpg')
    Image.new('RGB', (5000, 5000)).save(tmp_path / 'huge.png')
    upload(page, tmp_path / 'huge.png')
    trouble('huge.png has 5000x5000 pixels; allowed are 16.8 million')
    # After all that the server answers.
    upload(page, picture)
    page.click('#segment')
    page.wait_for_selector('#answers table')
    assert not page.get_by_role('alert').count()
    assert page.locator('#answers figure').count() == 2
    files = []
    for link in page.locator('#files a[download]').all():
        with page.expect_download() as started:
            link.click()
        files.append(tmp_path / started.value.suggested_filename)
        started.value.save_as(files[-1])
    assert [file.suffix for file in files] == ['.png', '.png', '.json']
    records = json.loads(files[-1].read_text())['predictions']
    assert [record['expression'] for record in records] == ['red star', 'blue circle']
    expected = ReferringInferencer(find_config(NETWORK), device='cpu')(
        str(picture), ['red star', 'blue circle'], draw=False
    )
    for record, file, mask in zip(records, files, expected['masks']):
        assert np.array_equal(np.array(Image.open(file)), mask)
        assert np.array_equal(coco_mask.decode(record['rle']), mask)


def test_mosaics(page):
    page.get_by_role('tab', name='Mosaics').click()
    rows = page.locator('#ranking tr.in-band')
    page.wait_for_selector('#ranking tr.in-band')
    assert page.locator('#negatives figure').count() == 3
    assert page.locator('#ranking tr.chosen').count() == 3
    page.wait_for_selector('#mosaic img')
    # Fewer images in the band.
    page.fill('#top-k input[type=number]', '4')
    page.press('#top-k input[type=number]', 'Tab')
    page.get_by_text('top_k=4').wait_for()
    assert rows.count() == 4
    page.fill('#tau input[type=number]', '0.6')
    page.press('#tau input[type=number]', 'Tab')
    page.get_by_text('tau=0.6 (relative), top_k=4').wait_for()
    page.fill('#search :is(input, textarea)', 'no such words')
    page.press('#search :is(input, textarea)', 'Enter')
    found = page.get_by_role('alert').filter(has_text='no expression holds')
    found.wait_for()
    page.wait_for_timeout(1500)  # time for an answer to a changed expression, which must not come
    assert found.is_visible()
