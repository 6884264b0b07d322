"""Speed, measured beside the field's proxies in one run on one machine.

    python -m benchmarks            every peer that is installed, every load; prints the tables
    python -m benchmarks --quick    nginx and tokengate alone, a few seconds
    python -m benchmarks --docs     the same as the first, and writes docs/benchmarks.{json,md,svg}
    python -m benchmarks --from docs/benchmarks.json --docs     table and chart again, without a run

    python -m benchmarks --scale    what a session, a live check, a refresh cost, for docs/operations/capacity.md
    python -m benchmarks --plan     pods and Redis for so many sessions and requests, from what was measured

Absolute figures of one machine mean nothing on another; every figure here stands beside that of plain
nginx, taken in the same alternating rounds, and the ratio is what is claimed. docs/benchmarks.md has the method.

machine             cores, processes and ports; what machine this is
measure             a load from wrk, and what it cost the processes of a peer (CPU and memory from /proc)
credentials         keys, a user and the tokens that every peer is given
peers               the field's proxies: how each is configured and started
envoy               the same for Envoy, which has four entries
gateway             the same for tokengate
asgi_proxy          the peer that one would write in an afternoon: Starlette and httpx
websocket_backend   what answers upgrades
grants              rates and costs of login and refresh
slices              two workers against one, each with a slice of a core
streams             what it costs to watch streams
footprint           memory of idle connections and of WebSockets
results             a run as JSON
report              a run as Markdown tables, and whether the targets are met
chart               a run as an SVG bar chart
scale               the constants of the capacity model, and the model tried on what it did not see
store_probe         what Redis spends: CPU by batch and by operation, bytes by key
crowd               very many sessions, put into Redis at once, and their tokens
plan                how many pods, and how much Redis: arithmetic
planning            numbers of your own into a plan
scale_figures       its figures that need no server
scale_results       a run of scale as JSON
scale_report        the same as the page's tables
"""
