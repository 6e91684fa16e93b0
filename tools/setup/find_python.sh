#!/bin/sh
# Print the interpreter to set up with: $1 if given, otherwise the first of
# the usual names that is Python 3.10, 3.11 or 3.12. Runs before any Python is
# known to be there, hence a shell script.
fits='import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'

named=$1
if [ -z "$named" ]; then
    set -- python3 python3.12 python3.11 python3.10
fi
for name in "$@"; do
    if "$name" -c "$fits" 2>/dev/null; then
        "$name" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
if [ -n "$named" ]; then
    echo "error: '$named' is not a working Python 3.10, 3.11 or 3.12." >&2
else
    echo "error: no Python 3.10, 3.11 or 3.12 was found: install one or name" \
        "yours with 'make PYTHON=/path/to/python ...'." >&2
fi
exit 1
