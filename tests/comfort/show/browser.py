"""A headless Chromium through ChromeDriver, which speaks JSON over HTTP.

W3C WebDriver: https://www.w3.org/TR/webdriver2/
"""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

# A test machine has no network, is often root and has a small /dev/shm.
_FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--window-size=1400,1000',
)
_ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'


class Browser:
    """One window.

    Args:
        folder (Path): of its profile, new and empty.
    """

    def __init__(self, folder: Path):
        self._driver = subprocess.Popen(
            ['chromedriver', '--port=0'],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in self._driver.stdout:
            port = re.search(r'started successfully on port (\d+)', line)
            if port:
                break
        self._base = f'http://127.0.0.1:{port[1]}/session'
        options = dict(args=[*_FLAGS, f'--user-data-dir={folder}'], binary=_chromium())
        capabilities = {
            'goog:chromeOptions': options,
            'goog:loggingPrefs': dict(browser='ALL', performance='ALL'),
        }
        opened = self._post('', dict(capabilities=dict(alwaysMatch=capabilities)))
        self._base += f'/{opened["sessionId"]}'

    def close(self) -> None:
        try:
            self._call('DELETE', '')
        finally:
            self._driver.terminate()
            self._driver.wait()
            self._driver.stdout.close()

    def open(self, address: str) -> None:
        self._post('/url', dict(url=address))

    def run(self, script: str, *args):
        """The result of a function body in JavaScript."""
        return self._post('/execute/sync', dict(script=script, args=args))

    def wait(self, script: str, *args, seconds: float = 60):
        """The first result of a script that is true."""
        end = time.monotonic() + seconds
        while True:
            found = self.run(script, *args)
            if found or time.monotonic() > end:
                assert found, f'{script!r} stayed {found!r}'
                return found
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        self._post(f'/element/{self._find(selector)}/click', {})

    def type(self, selector: str, text: str) -> None:
        """Type into an element; a path into an input of files."""
        self._post(f'/element/{self._find(selector)}/value', dict(text=text))

    def resize(self, width: int, height: int) -> None:
        self._post('/window/rect', dict(width=width, height=height))

    def complaints(self) -> list[str]:
        """What the console has shown, from warnings on."""
        return [
            entry['message']
            for entry in self._post('/se/log', dict(type='browser'))
            if entry['level'] in ('WARNING', 'SEVERE')
        ]

    def requests(self) -> list[str]:
        """Addresses that were asked for."""
        entries = self._post('/se/log', dict(type='performance'))
        messages = [json.loads(e['message'])['message'] for e in entries]
        return [
            message['params']['request']['url']
            for message in messages
            if message['method'] == 'Network.requestWillBeSent'
        ]

    def _find(self, selector: str) -> str:
        found = self._post('/element', dict(using='css selector', value=selector))
        return found[_ELEMENT]

    def _post(self, path: str, content: dict):
        return self._call('POST', path, json.dumps(content).encode())

    def _call(self, method: str, path: str, data: bytes | None = None):
        request = urllib.request.Request(self._base + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                return json.load(answer)['value']
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error


def _chromium() -> str | None:
    names = ('chromium', 'chromium-browser', 'google-chrome')
    return next(filter(None, map(shutil.which, names)), None)


def open_browser(folder: Path) -> Browser:
    """A browser; the test is skipped where there is none."""
    if not shutil.which('chromedriver') or not _chromium():
        pytest.skip(
            'no chromium and chromedriver (Debian: apt-get install chromium chromium-driver)'
        )
    return Browser(folder)
