"""Speed, measured beside the field's proxies in one run on one machine.

    python -m benchmarks            the table of the README
    python -m benchmarks --quick    nginx and tokengate alone, a few seconds

Absolute figures of one machine mean nothing on another; every figure here stands beside that of plain
nginx, taken in the same alternating rounds, and the ratio is what is claimed.

measure  a load from wrk, and what it cost the processes of a peer (CPU from /proc, memory)
peers    how each proxy is configured and started, in front of the same nginx backend
report   rounds into a Markdown table
"""
