#!/usr/bin/env bash
# Make .venv with everything pinned; `setup.sh onedl` makes .venv-onedl with
# the maintained forks of mmengine, mmcv and mmdet, which have the same import
# names and so need an environment of their own. A step is marked as done when
# it is complete; after an interruption the set-up goes on with the step that
# was interrupted, from the beginning of that step.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

torch=2.13.0
mmcv=2.1.0
lock=requirements/lock.txt
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/mmdet_hetconv/wheels
venv=.venv
ops=mmcv
if [ "${1:-}" = onedl ]; then
    venv=.venv-onedl
    ops=onedl-mmcv
    mmcv=2.3.6
fi
python=$venv/bin/python
pip="$python -m pip --disable-pip-version-check"

wanted() {
    echo "torch==$torch"
    if [ "$ops" = mmcv ]; then
        cat "$lock"
    else
        grep --invert-match --extended-regexp '^(mmdet|mmengine)==' "$lock"
        cat requirements/onedl.txt
    fi
}

# The environment holds nothing from outside.
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1

# A killed set-up may leave a pip behind that still writes into .venv.
exec 9<"$lock"
flock --nonblock 9 || { echo 'waiting for another set-up'; flock 9; }

# pip takes some half-installed packages for whole ones, so this step starts
# with an empty environment; pip's cache keeps what was downloaded. The Python
# that .venv was made with may have gone since.
if ! "$python" -c '' 2>/dev/null \
    || ! cmp --silent <(wanted) "$venv/packages"
then
    echo "[1/3] packages into $venv"
    outside=$(tools/setup/find_python.sh "${PYTHON:-}")
    "$outside" tools/setup/check.py --room "$venv" "${DISK_GB:-10}" \
        --room "$wheels" 1
    rm -rf "$venv"
    "$outside" -m venv "$venv"
    $pip install "torch==$torch" --constraint "$lock"
    wanted >"$venv/packages.new"
    $pip install --no-deps --requirement "$venv/packages.new"
    mv "$venv/packages.new" "$venv/packages"
fi

if [ ! -e "$venv/mmcv-$mmcv" ]; then
    echo "[2/3] $ops $mmcv"
    rm -rf "$venv"/lib/python3.*/site-packages/{,onedl_}mmcv{,-*}
    "$python" tools/setup/build_mmcv.py "$mmcv" --package "$ops" --out "$wheels"
    touch "$venv/mmcv-$mmcv"
fi

# An editable install holds the absolute path of the project.
if [ ! "$venv/project" -nt setup.cfg ] || [ "$(<"$venv/project")" != "$PWD" ]
then
    echo '[3/3] mmdet_hetconv, editable'
    rm -rf "$venv"/lib/python3.*/site-packages/*mmdet_hetconv*
    $pip install --quiet --no-deps --no-build-isolation --editable .
    echo "$PWD" >"$venv/project"
fi
