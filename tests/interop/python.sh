#!/usr/bin/env bash
# kafka-python, produce and consume, alone and in a group.
source "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
if [ ! -f "$WORK/venv/.complete" ]; then
    { python3 -m venv "$WORK/venv" && "$WORK/venv/bin/pip" install -q 'kafka-python>=2.2,<4' python-snappy lz4 zstandard; } ||
        skip "kafka-python cannot be installed"
    touch "$WORK/venv/.complete"
fi
timeout 180 "$WORK/venv/bin/python" "$INTEROP/python/check.py" "$BOOTSTRAP"
