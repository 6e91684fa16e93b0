"""A page in the browser: upload an image, choose a form, see the boxes."""

import os
import time
from importlib.util import find_spec
from pathlib import Path

from ...utils.announce import announce
from ...utils.errors import UserError
from .forms import HET, Forms

LOCAL = '127.0.0.1'
# Seconds after which uploads are deleted, and how often that is looked for.
_KEPT = (600, 600)

# Small pictures are enlarged. Gradio 6.31 shows a radio button that was
# chosen as if it was not, once it loses the focus.
_STYLE = """
#drawn img { object-fit: contain }
#form input:checked {
    background-color: var(--color-accent) !important;
    border-color: var(--color-accent) !important;
}
"""


def serve(
    config: str,
    checkpoint: str,
    dense: tuple[str, str] | None = None,
    *,
    host: str = LOCAL,
    port: int = 7860,
    max_mb: float = 10,
) -> None:
    """Show a detector in the browser until Ctrl-C.

    Args:
        config, checkpoint: of the HetConv detector, trained.
        dense: config and checkpoint of a dense one; by default the same function.
        host: address to listen on.
        port: 0 for any that is free.
        max_mb: larger uploads are refused.

    Raises:
        UserError: a mistake in a config or a checkpoint; gradio is not installed; the
            port is taken.
    """
    check_gradio()
    forms = Forms(config, checkpoint, dense)
    page = build_page(forms, max_mb)
    address = launch(page, host, port, max_mb)
    if host != LOCAL:
        announce(f'--host {host}: others can reach this demo')
    announce(f'{address} (Ctrl-C ends it)')
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        page.close()


def check_gradio() -> None:
    """Raise UserError if gradio is not installed."""
    if find_spec('gradio') is None:
        raise UserError(
            'the web demo needs gradio, which is not installed: pip install gradio (version 6)'
        )


def build_page(forms: Forms, max_mb: float):
    """The page, a gradio.Blocks that is not served yet."""
    # Gradio reports to its makers on import, otherwise.
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    import gradio

    def update(path, name, score, last):
        """Detect in a new image or with another form, else draw only."""
        if path is None:
            return None, '', None
        if last is None or last[:2] != (path, name):
            try:
                _check_size(Path(path), max_mb)
                last = path, name, forms.detect(path, name)
            except UserError as error:
                raise gradio.Error(str(error), duration=None, print_exception=False) from error
        found = last[2]
        counts = forms.counts(found, name, score)
        objects = ', '.join(f'{n} × {kind}' for kind, n in counts.items())
        text = f'{name}: {found.ms:.1f} ms; {objects or "nothing found"}'
        return forms.draw(found, name, score), text, last

    with gradio.Blocks(title='HetConv', analytics_enabled=False, delete_cache=_KEPT) as page:
        gradio.Markdown('# HetConv: dense, heterogeneous, deployed')
        last = gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(label=f'Image (up to {max_mb:g} MB)', elem_id='upload')
                form = gradio.Radio(forms.names, value=HET, label='Form', elem_id='form')
                score = gradio.Slider(
                    *(0.05, 0.95, 0.3), step=0.05, label='Confidence at least', elem_id='score'
                )
            with gradio.Column(scale=2):
                text = gradio.Textbox(
                    label='Time and objects',
                    info='from the network’s input to the final boxes',
                    interactive=False,
                    elem_id='text',
                )
                drawn = gradio.Image(
                    label='Detections',
                    height=520,
                    format='jpeg',
                    interactive=False,
                    elem_id='drawn',
                    buttons=['download', 'fullscreen'],
                )
        gradio.on(
            [upload.change, form.change, score.change],
            update,
            [upload, form, score, last],
            [drawn, text, last],
            concurrency_limit=1,
            trigger_mode='always_last',  # of a slider on the move
            api_visibility='private',
        )
    return page


def launch(page, host: str, port: int, max_mb: float) -> str:
    """Serve a page in the background.

    Args:
        port (int): 0 for any that is free.

    Returns:
        str: its address.

    Raises:
        UserError: the port is taken, or the host is none of this machine's.
    """
    import gradio

    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or None,
            max_file_size=int(max_mb * 2**20),
            share=False,
            quiet=True,
            ssr_mode=False,
            prevent_thread_lock=True,
            footer_links=[],
            css=_STYLE,
            # Gradio's own themes load their letters from Google.
            theme=gradio.themes.Base(font=['system-ui', 'sans-serif'], font_mono=['monospace']),
        )
    except OSError as error:
        # Gradio's advice, which follows, is to call something else.
        reason = str(error).split('. ')[0]
        raise UserError(f'--host {host} --port {port}: {reason}') from error
    return address


def _check_size(path: Path, max_mb: float) -> None:
    size = path.stat().st_size / 2**20
    if size > max_mb:
        raise UserError(f'{path.name} has {size:.1f} MB, more than {max_mb:g} MB')
