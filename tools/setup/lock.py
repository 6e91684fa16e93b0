"""Write requirements/lock.txt from requirements/direct.txt.

    python tools/setup/lock.py python3.10 python3.11 python3.12

pip resolves the list once with every interpreter named (nothing is
installed); versions that differ get an environment marker.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / 'requirements'
REPLACED = {'opencv-python'}  # by opencv-python-headless
HEADER = """\
# Made by tools/setup/lock.py from direct.txt; do not edit. Complete, so it is
# installed with --no-deps (mmengine would bring a second OpenCV otherwise).
"""


def resolve(interpreter: str) -> tuple[str, dict[str, str]]:
    """The Python version of ``interpreter`` and name -> version for it."""
    output = subprocess.run([
        interpreter, '-m', 'pip', 'install', '--quiet', '--dry-run',
        '--ignore-installed', '--only-binary', ':all:', '--report', '-',
        '--requirement', str(FOLDER / 'direct.txt')
    ], check=True, text=True, stdout=subprocess.PIPE).stdout  # yapf: disable
    report = json.loads(output)
    versions = {}
    for item in report['install']:
        name = re.sub('[-_.]+', '-', item['metadata']['name']).lower()
        versions[name] = item['metadata']['version']
    return report['environment']['python_version'], versions


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Lines of the lock list; a marker where not all Pythons agree."""
    lines = []
    for name in sorted({name for found in resolved.values() for name in found}):
        if name in REPLACED:
            continue
        pythons_of = {}
        for python, found in resolved.items():
            if name in found:
                pythons_of.setdefault(found[name], []).append(python)
        for version, pythons in pythons_of.items():
            line = f'{name}=={version}'
            if len(pythons) < len(resolved):
                marker = [f"python_version == '{each}'" for each in pythons]
                line += ' ; ' + ' or '.join(marker)
            lines.append(line)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('interpreters', nargs='+', metavar='PYTHON')
    args = parser.parse_args()
    lines = merge(dict(resolve(name) for name in args.interpreters))
    (FOLDER / 'lock.txt').write_text(HEADER + '\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
