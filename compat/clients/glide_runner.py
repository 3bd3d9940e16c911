"""valkey-glide (the asyncio Python client over its Rust core): the shared workload, plain and cluster.

It speaks RESP3, multiplexes one connection per node and answers bytes everywhere.
"""

import asyncio
import contextlib
import time

import glide
from glide import (
    BackoffStrategy, Batch, ByAddressRoute, ClusterBatch, ClusterScanCursor, ConditionalChange, ExpireOptions,
    ExpiryGetEx, ExpirySet, ExpiryType, ExpiryTypeGetEx, GlideClient, GlideClientConfiguration,
    GlideClusterClient, GlideClusterClientConfiguration, NodeAddress, RequestError,
)  # fmt: skip

from harness.resp import split
from harness.runner import between, equal, pattern, run

TIMEOUT_MS = 30_000
NX, XX = ConditionalChange.ONLY_IF_DOES_NOT_EXIST, ConditionalChange.ONLY_IF_EXISTS


@contextlib.asynccontextmanager
async def client(job, address=None, database=None):
    """A client of the kind that the job names, closed at the end."""
    host, port = split(address or job.entry)
    retry = BackoffStrategy(num_of_retries=5, factor=20, exponent_base=2)
    options = {"request_timeout": TIMEOUT_MS, "reconnect_strategy": retry, "client_name": "compat"}
    nodes = [NodeAddress(host, port)]
    if is_cluster(job):
        opened = await GlideClusterClient.create(GlideClusterClientConfiguration(nodes, **options))
    else:
        options["database_id"] = database
        opened = await GlideClient.create(GlideClientConfiguration(nodes, **options))
    try:
        yield opened
    finally:
        await opened.close()


def is_cluster(job):
    """Whether the job's client is the cluster driver."""
    return job.client == "glide-cluster"


async def batch(r, commands, raise_on_error=True):
    """The replies of a pipeline (a batch that is not atomic)."""
    queue = ClusterBatch(is_atomic=False) if isinstance(r, GlideClusterClient) else Batch(is_atomic=False)
    for command in commands:
        queue.custom_command([str(part) for part in command])
    return await r.exec(queue, raise_on_error=raise_on_error)


async def raises(awaited, text):
    """Fails unless the reply is an error that contains `text`."""
    try:
        reply = await awaited
    except RequestError as error:
        if text not in str(error):
            raise AssertionError(f"expected an error {text!r}, got {error}") from error
        return
    raise AssertionError(f"expected an error {text!r}, got {reply!r}")


async def connect_case(job):
    """PING, ECHO, INFO; a cluster driver can ask each node."""
    async with client(job) as r:
        equal(await r.ping(), b"PONG")
        equal(await r.echo("a\r\nb ✓"), "a\r\nb ✓".encode())
        if is_cluster(job):
            for node in job.nodes:
                equal(await r.ping(route=ByAddressRoute(*split(node))), b"PONG")
            return
        info = (await r.info()).decode()
        equal("redis_version:7." in info, True, "redis_version:7 in INFO")
        equal("role:master" in info, True, "role:master in INFO")
        equal(await r.client_getname(), b"compat")


async def set_case(job):
    """Every option of SET."""
    key, at = job.key("set", "k"), int(time.time()) + 200
    seconds, millis = (lambda n: ExpirySet(ExpiryType.SEC, n)), (lambda n: ExpirySet(ExpiryType.MILLSEC, n))
    async with client(job) as r:
        equal(await r.set(key, "1"), "OK")
        equal(await r.ttl(key), -1)
        equal(await r.set(key, "2", expiry=seconds(100)), "OK")
        between(await r.ttl(key), 98, 100, "TTL after EX 100")
        equal(await r.set(key, "3", expiry=millis(100_000)), "OK")
        between(await r.pttl(key), 98_000, 100_000, "PTTL after PX 100000")
        equal(await r.set(key, "4", expiry=ExpirySet(ExpiryType.UNIX_SEC, at)), "OK")
        equal(await r.expiretime(key), at)
        equal(await r.set(key, "5", expiry=ExpirySet(ExpiryType.UNIX_MILLSEC, at * 1000 + 7)), "OK")
        equal(await r.pexpiretime(key), at * 1000 + 7)
        equal(await r.set(key, "6", expiry=ExpirySet(ExpiryType.KEEP_TTL, None)), "OK")
        equal(await r.pexpiretime(key), at * 1000 + 7, "PEXPIRETIME after KEEPTTL")
        equal(await r.set(key, "7", conditional_set=NX), None, "SET NX of a present key")
        equal(await r.set(key, "8", conditional_set=XX), "OK")
        equal(await r.ttl(key), -1, "TTL after a plain SET")
        equal(await r.set(key, "9", return_old_value=True), b"8")
        equal(await r.set(key, "10", conditional_set=NX, return_old_value=True), b"9")
        equal(await r.set(key, "11", XX, millis(50_000), True), b"9")
        between(await r.pttl(key), 48_000, 50_000, "PTTL after XX GET PX")
        equal(await r.delete([key]), 1)
        equal(await r.set(key, "12", conditional_set=XX), None, "SET XX of a missing key")
        equal(await r.set(key, "13", return_old_value=True), None, "SET GET of a missing key")
        equal(await r.delete([key]), 1)
        equal(await r.set(key, "14", NX, seconds(10)), "OK")
        equal(await r.get(key), b"14")
        equal(await r.delete([key]), 1)


async def strings_case(job):
    """The other string commands and the commands on keys of any type."""
    key, other = job.key("strings", "k"), job.key("strings", "other")
    async with client(job) as r:
        equal(await r.append(key, "Hello"), 5)
        equal(await r.append(key, " World"), 11)
        equal(await r.strlen(key), 11)
        equal(await r.getrange(key, -5, -1), b"World")
        equal(await r.setrange(key, 6, "Redis"), 11)
        equal(await r.set(other, "Jello Regis"), "OK")
        equal(await r.lcs(key, other), b"ello Reis")
        equal(await r.getex(key, ExpiryGetEx(ExpiryTypeGetEx.SEC, 100)), b"Hello Redis")
        between(await r.ttl(key), 98, 100, "TTL after GETEX EX")
        equal(await r.getex(key, ExpiryGetEx(ExpiryTypeGetEx.PERSIST, None)), b"Hello Redis")
        equal(await r.ttl(key), -1)
        equal(await r.type(key), b"string")
        equal(await r.setbit(key, 7, 1), 0)
        equal(await r.getbit(key, 7), 1)
        equal(await r.bitcount(other), 43)
        equal(await r.renamenx(key, other), False)
        equal(await r.rename(key, other), "OK")
        equal(await r.copy(other, key), True)
        equal(await r.getdel(key), b"Iello Redis")
        equal(await r.getdel(key), None)
        equal(await r.delete([key, other]), 1)


async def binary_case(job):
    """Every byte in a value and in a key."""
    every = bytes(range(256)) + b"\r\n$5\r\n\x00"
    key = job.key("binary").encode() + every
    async with client(job) as r:
        equal(await r.set(key, every), "OK")
        equal(await r.get(key), every)
        equal(await r.strlen(key), len(every))
        equal(await r.delete([key]), 1)


async def empty_case(job):
    """An empty value is a value; a missing one is nil."""
    key = job.key("empty")
    async with client(job) as r:
        equal(await r.get(key), None)
        equal(await r.set(key, b""), "OK")
        equal(await r.get(key), b"")
        equal(await r.exists([key]), 1)
        equal(await r.strlen(key), 0)
        equal(await r.delete([key]), 1)


async def unicode_case(job):
    """Keys and values outside ASCII."""
    async with client(job) as r:
        for name in ("ключ", "鍵", "🔑 clé", "a\u0301"):
            key = job.key("unicode", name)
            equal(await r.set(key, name), "OK")
            equal(await r.get(key), name.encode())
            equal(await r.delete([key]), 1)


async def big_value(job, case, size):
    """A value of `size` bytes comes back as it went."""
    key, value = job.key(case), pattern(size)
    async with client(job) as r:
        equal(await r.set(key, value), "OK")
        equal(await r.get(key) == value, True, "the value comes back")
        equal(await r.strlen(key), size)
        equal(await r.delete([key]), 1)


async def one_mib(job):
    """A value of 1 MiB."""
    await big_value(job, "1mib", 1 << 20)


async def large_value(job):
    """A value of 64 MiB."""
    await big_value(job, "64mib", 64 << 20)


async def pipeline_case(job):
    """`many` commands in one batch, answered in order; a failing one leaves the others alone."""
    half = job.many // 2
    keys = [job.spread("pipeline", i) for i in range(half)]
    async with client(job) as r:
        commands = [each for i, key in enumerate(keys) for each in (("SET", key, i), ("GET", key))]
        replies = await batch(r, commands)
        equal(replies[0::2], ["OK"] * half, "SET replies")
        equal(replies[1::2], [str(i).encode() for i in range(half)], "GET replies")
        key = job.key("pipeline", "mixed")
        replies = await batch(r, [("SET", key, "text"), ("INCR", key), ("GET", key)], raise_on_error=False)
        equal(replies[0], "OK")
        equal(isinstance(replies[1], RequestError), True, "INCR of text fails in its place")
        equal(replies[2], b"text")
        equal(sum(await batch(r, [("DEL", each) for each in [*keys, key]])), half + 1, "deleted")


async def expiry_case(job):
    """Keys go when their time comes; the EXPIRE family with its conditions."""
    key, at = job.key("expiry"), int(time.time()) + 500
    async with client(job) as r:
        equal(await r.set(key, "v", expiry=ExpirySet(ExpiryType.MILLSEC, 300)), "OK")
        end = time.monotonic() + 3
        while await r.get(key) is not None:
            between(time.monotonic(), 0, end, "the key has not expired by")
            await asyncio.sleep(0.02)
        equal(await r.ttl(key), -2)
        equal(await r.expire(key, 10), False)
        equal(await r.set(key, "v"), "OK")
        equal(await r.expire(key, 100, ExpireOptions.HasExistingExpiry), False)
        equal(await r.expire(key, 100, ExpireOptions.HasNoExpiry), True)
        equal(await r.expire(key, 50, ExpireOptions.NewExpiryGreaterThanCurrent), False)
        equal(await r.pexpire(key, 50_000, ExpireOptions.NewExpiryLessThanCurrent), True)
        between(await r.pttl(key), 48_000, 50_000, "PTTL after PEXPIRE LT")
        equal(await r.expireat(key, at), True)
        equal(await r.expiretime(key), at)
        equal(await r.pexpireat(key, at * 1000 + 5), True)
        equal(await r.pexpiretime(key), at * 1000 + 5)
        equal(await r.persist(key), True)
        equal(await r.ttl(key), -1)
        equal(await r.expire(key, -1), True)
        equal(await r.exists([key]), 0)


async def counters_case(job):
    """INCR and its family, also a thousand at once."""
    key = job.key("counters")
    async with client(job) as r:
        equal(await r.incr(key), 1)
        equal(await r.incrby(key, 41), 42)
        equal(await r.decr(key), 41)
        equal(await r.decrby(key, 100), -59)
        equal(await r.incrbyfloat(key, 0.5), -58.5)
        equal(await r.set(key, "9223372036854775807"), "OK")
        await raises(r.incr(key), "overflow")
        equal(await r.delete([key]), 1)
        replies = await asyncio.gather(*(r.incr(key) for _ in range(500)))
        equal(sorted(replies), list(range(1, 501)), "five hundred INCR at once")
        equal(await r.delete([key]), 1)


async def mget_case(job):
    """MSET and MGET of keys in many slots (the cluster driver splits them); MSETNX of one slot."""
    keys = [job.spread("mget", i) for i in range(100)]
    a, b = job.key("mget", "a"), job.key("mget", "b")
    async with client(job) as r:
        equal(await r.mset({key: f"v{i}" for i, key in enumerate(keys)}), "OK")
        equal(await r.mget(keys), [f"v{i}".encode() for i in range(100)])
        equal(await r.mget([keys[0], job.spread("mget", "none"), keys[0]]), [b"v0", None, b"v0"])
        equal(await r.msetnx({a: "x", b: "y"}), True)
        equal(await r.msetnx({a: "z"}), False)
        equal(await r.delete([*keys, a, b]), 102)


async def del_exists_case(job):
    """The counts of DEL, UNLINK, EXISTS and TOUCH."""
    a, b, c, none = (job.spread("del", i) for i in ("a", "b", "c", "none"))
    async with client(job) as r:
        await r.mset({a: "1", b: "2", c: "3"})
        equal(await r.exists([a, b, c, none]), 3)
        equal(await r.exists([a, a]), 2, "EXISTS of one key twice")
        equal(await r.touch([a, b, none]), 2)
        equal(await r.delete([a, none]), 1)
        equal(await r.delete([b, b]), 1, "DEL of one key twice")
        equal(await r.unlink([c]), 1)
        equal(await r.exists([a, b, c]), 0)


async def scan_case(job):
    """SCAN finds each of `many` keys (a cluster driver asks every primary and may see a key twice)."""
    expected = {job.spread("scan", i).encode() for i in range(job.many)}
    async with client(job) as r:
        await batch(r, [("SET", key.decode(), "v") for key in expected])
        found = await scan_all(r, job.spread("scan", "*"))
        equal(set(found) == expected, True, f"the {len(set(found))} keys found are the keys written")
        if not is_cluster(job):
            equal(len(found), len(expected), "keys found, with repetitions")
        equal(sum(await batch(r, [("UNLINK", key.decode()) for key in expected])), len(expected), "unlinked")


async def scan_all(r, match):
    """Every key that a whole scan returns; at most 100,000 pages."""
    cursor = ClusterScanCursor() if isinstance(r, GlideClusterClient) else b"0"
    found = []
    for _ in range(100_000):
        cursor, page = await r.scan(cursor, match=match, count=1000)
        found += page
        if cursor.is_finished() if isinstance(r, GlideClusterClient) else cursor == b"0":
            return found
    raise AssertionError("the scan never ended")


async def errors_case(job):
    """Redis's error texts, and a connection that goes on after each."""
    key = job.key("errors")
    async with client(job) as r:
        await r.set(key, "text")
        await raises(r.incr(key), "value is not an integer or out of range")
        await raises(r.custom_command(["SET", key, "v", "BOGUS"]), "syntax error")
        await raises(r.custom_command(["SET", key, "v", "EX", "0"]), "invalid expire time in 'set' command")
        await raises(r.custom_command(["GET", key, "x"]), "wrong number of arguments for 'get' command")
        await raises(r.setrange(key, -1, "v"), "offset is out of range")
        await raises(r.rename(job.key("errors", "none"), key), "no such key")
        equal(await r.get(key), b"text")
        equal(await r.delete([key]), 1)


def route(job, r):
    """Options that send a command to the entry node."""
    return {"route": ByAddressRoute(*split(job.entry))} if isinstance(r, GlideClusterClient) else {}


async def unknown_case(job):
    """An unknown command is an error reply; the connection stays the same."""
    async with client(job) as r:
        before = await r.client_id(**route(job, r))
        await raises(r.custom_command(["FOO.BAR", "x"], **route(job, r)), "unknown command")
        await raises(r.custom_command(["CLIENT", "NOSUCH"], **route(job, r)), "unknown subcommand")
        equal(await r.client_id(**route(job, r)), before, "CLIENT ID after unknown commands")


async def reconnect_case(job):
    """After CLIENT KILL of its own connection the client works again by itself, on a new connection."""
    async with client(job) as r:
        before = await r.client_id(**route(job, r))
        kill = ["CLIENT", "KILL", "ID", str(before), "SKIPME", "no"]
        equal(await r.custom_command(kill, **route(job, r)), 1, "CLIENT KILL")
        after = await eventually(lambda: r.client_id(**route(job, r)))
        equal(after != before, True, "a new connection")
        key = job.key("reconnect")
        equal(await r.set(key, "v"), "OK")
        equal(await r.delete([key]), 1)


async def eventually(ask):
    """The answer, asked again for five seconds at most while the connection is gone."""
    end = time.monotonic() + 5
    while True:
        try:
            return await ask()
        except (glide.ConnectionError, RequestError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


async def databases_case(job):
    """SELECT separates keys; FLUSHDB empties one database (only where the servers belong to the run)."""
    key = job.key("databases")
    async with client(job) as zero, client(job, database=9) as nine:
        await zero.set(key, "0")
        equal(await nine.get(key), None)
        equal(await nine.set(key, "9"), "OK")
        equal(await zero.get(key), b"0")
        between(await nine.dbsize(), 1, 1 << 62, "DBSIZE of database 9")
        if job.flush:
            equal(await nine.flushdb(), "OK")
            equal(await nine.dbsize(), 0, "DBSIZE after FLUSHDB")
        equal(await nine.delete([key]), 0 if job.flush else 1)
        equal(await zero.delete([key]), 1)


async def nodes_case(job):
    """What one node acknowledged every node answers."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(job, address)) for address in job.nodes]
        for i, writer in enumerate(clients):
            key = job.spread("nodes", i)
            equal(await writer.set(key, str(i)), "OK")
            equal([await reader.get(key) for reader in clients], [str(i).encode()] * len(clients))
            equal(await clients[i - 1].delete([key]), 1)
            equal([await reader.exists([key]) for reader in clients], [0] * len(clients))


glide.Logger.set_logger_config(glide.LogLevel.OFF)
run({
    "connect": connect_case, "set": set_case, "strings": strings_case, "binary": binary_case,
    "empty": empty_case, "unicode": unicode_case, "1mib": one_mib, "64mib": large_value,
    "pipeline": pipeline_case, "expiry": expiry_case, "counters": counters_case, "mget-mset": mget_case,
    "del-exists": del_exists_case, "scan": scan_case, "errors": errors_case, "unknown": unknown_case,
    "reconnect": reconnect_case, "databases": databases_case, "nodes": nodes_case,
})  # fmt: skip
