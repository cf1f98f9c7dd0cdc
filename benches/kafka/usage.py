"""CPU seconds and resident bytes of all processes of a process group: usage.py GROUP."""

import os
import sys

group, ticks, resident = sys.argv[1], 0, 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        # The name in parentheses may hold anything, spaces too.
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    except OSError:
        continue
    if fields[2] == group:
        ticks += sum(map(int, fields[11:15]))
        resident += int(fields[21])
print(ticks / os.sysconf("SC_CLK_TCK"), resident * os.sysconf("SC_PAGE_SIZE"))
