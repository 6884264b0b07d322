"""The store's client of a Redis Cluster: each command goes to the master of its keys' partition.

Not redis-py's RedisCluster, which sends ASKING and the command after it on connections of a pool that need not be the
same, and which closes the connections to all nodes when one of them is lost (docs/decisions/10).

Laws: every step ends at the timeout. The loss of a node is told to what was meant for it, and to nothing else. A
command is sent again only where a node has said that it did not carry it out; redirections are followed
MAX_REDIRECTIONS times without a pause.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from gateway.sessions.connections import ask, node_client
from gateway.sessions.endpoint import Address, Endpoint
from gateway.sessions.keyspace import DIGITS
from gateway.sessions.slots import Redirection, owners, redirection

logger = logging.getLogger(__name__)

MAX_REDIRECTIONS = 5

_PAUSE = (0.005, 0.05)  # seconds: the first wait and the longest where a node says "later"
_REFRESH = 0.1  # seconds between two questions for the map, at least
_ASKED = 3  # nodes that are asked for the map at once
_MAX_NODES = 64
_SHARE = 0.9  # of the timeout, for one node of several; WAIT has 0.8 of it (store.py)

T = TypeVar("T")
Command = tuple[Any, ...]


class ClusterMap:
    """Which master has which partition; `endpoint.found` holds it for all that connect to the endpoint."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None
        self._again_at = 0.0
        self.owners = endpoint.found.owners

    async def owner(self, digit: str) -> Address:
        """Return the master of a partition. Raises redis-py's ConnectionError where none is known."""
        if digit not in self.owners:
            await asyncio.shield(self.refresh())
        if digit not in self.owners:
            raise RedisConnectionError(f"no node of the cluster has partition {digit}")
        return self.owners[digit]

    def refresh(self, avoid: Address | None = None) -> asyncio.Task[None]:
        """Ask the cluster for its map, soon; `avoid` names a node that cannot know. The task never fails."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._refresh(avoid))
        return self._task

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _refresh(self, avoid: Address | None) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._again_at - loop.time()))
        self._again_at = loop.time() + _REFRESH
        known = list(dict.fromkeys([*self.owners.values(), *self._endpoint.nodes]))
        random.shuffle(known)
        nodes = sorted(known, key=lambda node: node == avoid)
        for start in range(0, len(nodes), _ASKED):
            if await self._ask_any(nodes[start : start + _ASKED]):
                return

    async def _ask_any(self, nodes: Sequence[Address]) -> bool:
        """Take the map of the first of these that answers."""
        tasks = [asyncio.ensure_future(self._ask(node)) for node in nodes]
        try:
            for answer in asyncio.as_completed(tasks):
                found = await answer
                if found:
                    self.owners.update(found)
                    return True
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return False

    async def _ask(self, node: Address) -> dict[str, Address]:
        try:
            reply = await ask(node, self._endpoint, self._endpoint.auth, self._timeout, "CLUSTER", "SLOTS")
        except Exception as error:
            logger.debug("redis: node %s has no map: %s", node, type(error).__name__)
            return {}
        return owners(reply, node)


class ClusterClient:
    """What the store needs of a redis-py client, over a cluster. Commands are those of one partition each."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self.timeout = timeout
        self._nodes: dict[Address, Any] = {}
        self.map = ClusterMap(endpoint, timeout)

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """Run one command. Raises what redis-py raises."""

        async def run(address: Address, asking: bool) -> Any:
            node = self.node(address)
            if not asking:
                return await node.execute_command(*command, **options)
            return _raised((await _piped(node, [("ASKING",), command]))[1])

        return await self.routed(_digit(command), run)

    async def evalsha(self, *words: Any) -> Any:
        return await self.execute_command("EVALSHA", *words)

    async def eval(self, *words: Any) -> Any:
        return await self.execute_command("EVAL", *words)

    async def get(self, key: bytes) -> Any:
        return await self.execute_command("GET", key)

    async def ping(self) -> None:
        """Raise unless every master answers."""
        await asyncio.gather(*(node.ping() for node in await self.masters()))

    async def masters(self) -> list[Any]:
        """Return a client of each master. Raises redis-py's ConnectionError where a partition has none."""
        await asyncio.gather(*(self.map.owner(digit) for digit in DIGITS))
        return [self.node(address) for address in set(self.map.owners.values())]

    def pipeline(self, *, transaction: bool = False) -> ClusterPipeline:
        assert not transaction, "a transaction has one node, a cluster has several"
        return ClusterPipeline(self)

    async def aclose(self) -> None:
        await self.map.close()
        nodes, self._nodes = list(self._nodes.values()), {}
        await asyncio.gather(*(node.aclose() for node in nodes))

    def node(self, address: Address) -> Any:
        """Return the client of one node."""
        client = self._nodes.get(address)
        if client is None:
            if len(self._nodes) >= _MAX_NODES:
                raise RedisConnectionError("the cluster names too many nodes")
            client = self._nodes[address] = node_client(self._endpoint, address, self.timeout)
        return client

    async def routed(self, digit: str, run: Callable[[Address, bool], Awaitable[T]], *, may_ask: bool = True) -> T:
        """Call `run(address, asking)` with the master of a partition, and with those that it names instead.

        Where `may_ask` is False a partition that is being moved is waited for. Raises what `run` raises.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout
        address, asking, followed, pause = await self.map.owner(digit), False, 0, _PAUSE[0]
        while True:
            try:
                return await run(address, asking)
            except ResponseError as error:
                told = _told(error, address)
                if told is None or (told.address and followed >= MAX_REDIRECTIONS):
                    raise
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise
            except (RedisError, OSError):
                self.map.refresh(address)
                raise
            if told.address is not None and (told.kind == "MOVED" or may_ask):
                address, asking, followed = self.follow(digit, told), told.kind == "ASK", followed + 1
                continue
            if told.kind == "CLUSTERDOWN":
                self.map.refresh(address)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # jitter
            pause, followed, asking = min(2 * pause, _PAUSE[1]), 0, False
            address = await self.map.owner(digit)

    def follow(self, digit: str, told: Redirection) -> Address:
        """Take in where a partition is said to be, and return it."""
        assert told.address is not None
        if told.kind == "MOVED":
            self.map.owners[digit] = told.address
            self.map.refresh()
        return told.address

    async def get_each(self, digit: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys of one partition, asked for one by one: so they are told while it is being moved.

        MGET is refused then, for some of its keys are here and some there. A key that is not here is asked for
        there, where it is by then if it is anywhere. Raises what redis-py raises.
        """
        values: dict[bytes, bytes | None] = {}

        async def run(address: Address, _: bool) -> None:
            left = [key for key in dict.fromkeys(keys) if key not in values]
            replies = await _piped(self.node(address), [("GET", key) for key in left])
            await self._collect(address, values, left, replies)

        await self.routed(digit, run)
        return [values[key] for key in keys]

    async def _collect(
        self, asked: Address, values: dict[bytes, bytes | None], keys: Sequence[bytes], replies: Sequence[Any]
    ) -> None:
        """Take in what was replied; ask the node that an ASK names. Raises the first other error."""
        errors: list[Exception] = []
        elsewhere: dict[Address, list[bytes]] = {}
        for key, reply in zip(keys, replies, strict=True):
            told = _told(reply, asked)
            if told is not None and told.kind == "ASK" and told.address is not None:
                elsewhere.setdefault(told.address, []).append(key)
            elif isinstance(reply, Exception):
                errors.append(reply)
            else:
                values[key] = reply
        for address, missing in elsewhere.items():
            commands: list[Command] = [word for key in missing for word in (("ASKING",), ("GET", key))]
            for key, reply in zip(missing, (await _piped(self.node(address), commands))[1::2], strict=True):
                values[key] = _raised(reply)
        if errors:
            raise errors[0]


class ClusterPipeline:
    """Commands of any partitions, sent together. One without a key goes with the one before it, on its connection."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._units: list[tuple[str, list[Command]]] = []

    async def __aenter__(self) -> ClusterPipeline:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._units = []

    def execute_command(self, *command: Any) -> ClusterPipeline:
        self._units.append((_digit(command), [command]))
        return self

    def get(self, key: bytes) -> ClusterPipeline:
        return self.execute_command("GET", key)

    def set(self, key: bytes, value: bytes, *, px: int) -> ClusterPipeline:
        return self.execute_command("SET", key, value, "PX", px)

    def wait(self, replicas: int, milliseconds: int) -> ClusterPipeline:
        """Wait for what the command before has written (WAIT speaks for its own connection)."""
        self._units[-1][1].append(("WAIT", replicas, milliseconds))
        return self

    async def execute(self, *, raise_on_error: bool = True) -> list[Any]:
        """Return the replies in the order of the commands; exceptions among them, or raise the first."""
        units, self._units = self._units, []
        answers = await self._send_all(units)
        replies = [reply for answer in answers for reply in answer]
        if raise_on_error:
            for reply in replies:
                _raised(reply)
        return replies

    async def _send_all(self, units: list[tuple[str, list[Command]]]) -> list[list[Any]]:
        """Send what goes to one node in one go; again, one by one, what was redirected."""
        by_node: dict[Any, list[int]] = {}
        for position, (digit, _) in enumerate(units):
            by_node.setdefault(self._client.map.owners.get(digit), []).append(position)
        answers: list[list[Any]] = [[] for _ in units]

        async def send(address: Address | None, positions: list[int]) -> None:
            commands = [command for position in positions for command in units[position][1]]
            replies = iter(await self._send(address, commands))
            for position in positions:
                answers[position] = [next(replies) for _ in units[position][1]]

        await asyncio.gather(*(send(address, positions) for address, positions in by_node.items()))
        redirected = [position for position, answer in enumerate(answers) if _is_redirected(answer[0])]
        again = await asyncio.gather(*(self._again(*units[position]) for position in redirected))
        for position, answer in zip(redirected, again, strict=True):
            answers[position] = answer
        return answers

    async def _send(self, address: Address | None, commands: list[Command]) -> list[Any]:
        if address is None:
            return [_UNKNOWN] * len(commands)
        try:
            async with asyncio.timeout(_SHARE * self._client.timeout):  # so that the others' replies are not late
                return await _piped(self._client.node(address), commands)
        except (RedisError, OSError) as error:
            self._client.map.refresh(address)
            return [error] * len(commands)

    async def _again(self, digit: str, commands: list[Command]) -> list[Any]:
        async def run(address: Address, asking: bool) -> list[Any]:
            replies = await _piped(self._client.node(address), [("ASKING",), *commands] if asking else commands)
            if _is_redirected(replies[int(asking)]):
                raise replies[int(asking)]
            return replies[int(asking) :]

        try:
            # What waits for replicas must not ask where a partition is being moved to: writes may have gone to either.
            return await self._client.routed(digit, run, may_ask=len(commands) == 1)
        except (RedisError, OSError) as error:
            return [error] * len(commands)


_NOWHERE = Address("", 0)
_UNKNOWN = ResponseError("TRYAGAIN the node of the partition is not known yet")


async def _piped(node: Any, commands: Sequence[Command]) -> list[Any]:
    """Send commands on one connection; the replies, errors of the server among them."""
    async with node.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies


def _raised(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _is_redirected(reply: Any) -> bool:
    return _told(reply, _NOWHERE) is not None


def _told(reply: Any, asked: Address) -> Redirection | None:
    """Return where an error of redis-py sends us; it keeps the first word of what the server said apart."""
    if not isinstance(reply, ResponseError):
        return None
    rest = str(reply.args[0]) if reply.args else ""
    return redirection(f"{reply.status_code} {rest}" if reply.status_code else rest, asked)


def _digit(command: Command) -> str:
    """Return the partition of a command's first key: its hash tag."""
    name = command[0]
    key = command[3] if name in ("EVAL", "EVALSHA") else command[1]
    digit: str = key.partition(b"{")[2][:1].decode()
    assert digit in DIGITS, "a key without a partition"
    return digit
