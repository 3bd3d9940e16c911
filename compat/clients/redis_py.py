"""redis-py: the shared workload through its five faces.

`redis-py-resp2` and `-resp3` are the blocking client, `-asyncio` the asyncio one, `-cluster` and
`-cluster-asyncio` its Redis Cluster drivers. All have the same method names, so the workload is written once,
as coroutines; `Blocking` lets the blocking clients take part.
"""

import asyncio
import contextlib
import inspect
import time

import redis
import redis.asyncio
from redis.cluster import ClusterNode
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode

from harness.resp import split
from harness.runner import between, equal, pattern, run

TIMEOUT_S = 30


class Blocking:
    """A blocking client (or pipeline) whose methods are coroutines."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        method = getattr(self.inner, name)

        async def call(*args, **options):
            return method(*args, **options)

        return call


def connect(job, address=None, db=0):
    """A new client of the kind that the job names."""
    host, port = split(address or job.entry)
    options = {"socket_timeout": TIMEOUT_S}
    if job.client == "redis-py-cluster":
        return Blocking(redis.RedisCluster(startup_nodes=[ClusterNode(host, port)], **options))
    if job.client == "redis-py-cluster-asyncio":
        return redis.asyncio.RedisCluster(startup_nodes=[AsyncClusterNode(host, port)], **options)
    if job.client == "redis-py-asyncio":
        return redis.asyncio.Redis(host=host, port=port, db=db, protocol=3, **options)
    protocol = 2 if job.client == "redis-py-resp2" else 3
    return Blocking(redis.Redis(host=host, port=port, db=db, protocol=protocol, **options))


@contextlib.asynccontextmanager
async def client(job, address=None, db=0):
    """A client that is closed at the end."""
    opened = connect(job, address, db)
    try:
        yield opened
    finally:
        closer = "close" if isinstance(opened, Blocking) else "aclose"
        await getattr(opened, closer)()


def pipeline_of(r):
    """A pipeline without MULTI; commands are queued blockingly in every face."""
    return (r.inner if isinstance(r, Blocking) else r).pipeline(transaction=False)


async def execute(pipe, raise_on_error=True):
    """The replies of a pipeline."""
    replies = pipe.execute(raise_on_error=raise_on_error)
    return await replies if inspect.isawaitable(replies) else replies


def is_cluster(job):
    """Whether the job's client is a cluster driver."""
    return "cluster" in job.client


async def raises(awaited, text):
    """Fails unless the reply is an error whose message begins with `text`."""
    try:
        reply = await awaited
    except redis.exceptions.RedisError as error:
        if not str(error).startswith(text):
            raise AssertionError(f"expected an error {text!r}, got {error}") from error
        return
    raise AssertionError(f"expected an error {text!r}, got {reply!r}")


async def connect_case(job):
    """PING, ECHO, INFO, the connection's name; a cluster driver finds three nodes and can ask each."""
    async with client(job) as r:
        if is_cluster(job):
            await r.initialize() if not isinstance(r, Blocking) else None
            nodes = (r.inner if isinstance(r, Blocking) else r).get_nodes()
            equal(len(nodes), 3, "nodes that the driver found")
            for node in nodes:
                equal(await r.ping(target_nodes=node), True)
            return
        equal(await r.ping(), True)
        equal(await r.echo("a\r\nb ✓"), "a\r\nb ✓".encode())
        info = await r.info()
        equal(str(info["redis_version"]).split(".")[0], "7", "major redis_version")
        equal(info["role"], "master", "role")
        between(await r.dbsize(), 0, 1 << 62, "DBSIZE")
        seconds = (await r.time())[0]
        between(seconds, time.time() - 60, time.time() + 60, "TIME")


async def set_case(job):
    """Every option of SET."""
    key = job.key("set", "k")
    async with client(job) as r:
        equal(await r.set(key, "1"), True)
        equal(await r.get(key), b"1")
        equal(await r.ttl(key), -1)
        equal(await r.set(key, "2", ex=100), True)
        between(await r.ttl(key), 98, 100, "TTL after EX 100")
        equal(await r.set(key, "3", px=100_000), True)
        between(await r.pttl(key), 98_000, 100_000, "PTTL after PX 100000")
        at = int(time.time()) + 200
        equal(await r.set(key, "4", exat=at), True)
        between(await r.ttl(key), 197, 200, "TTL after EXAT")
        equal(await r.set(key, "5", pxat=at * 1000 + 7), True)
        equal(await r.pexpiretime(key), at * 1000 + 7)
        equal(await r.set(key, "6", keepttl=True), True)
        equal(await r.pexpiretime(key), at * 1000 + 7, "PEXPIRETIME after KEEPTTL")
        equal(await r.set(key, "7", nx=True), None, "SET NX of a present key")
        equal(await r.set(key, "8", xx=True), True)
        equal(await r.ttl(key), -1, "TTL after a plain SET")
        equal(await r.set(key, "9", get=True), b"8")
        equal(await r.set(key, "10", nx=True, get=True), b"9", "SET NX GET of a present key")
        equal(await r.get(key), b"9")
        equal(await r.set(key, "11", xx=True, get=True, px=50_000), b"9")
        between(await r.pttl(key), 48_000, 50_000, "PTTL after XX GET PX")
        equal(await r.delete(key), 1)
        equal(await r.set(key, "12", xx=True), None, "SET XX of a missing key")
        equal(await r.set(key, "12", xx=True, get=True), None)
        equal(await r.exists(key), 0)
        equal(await r.set(key, "13", get=True), None, "SET GET of a missing key")
        equal(await r.delete(key), 1)
        equal(await r.set(key, "14", nx=True, ex=10), True)
        equal(await r.get(key), b"14")


async def strings_case(job):
    """The other string commands and the commands on keys of any type."""
    key, other = job.key("strings", "k"), job.key("strings", "other")
    async with client(job) as r:
        equal(await r.setnx(key, "Hello"), True)
        equal(await r.setnx(key, "no"), False)
        equal(await r.append(key, " World"), 11)
        equal(await r.strlen(key), 11)
        equal(await r.getrange(key, -5, -1), b"World")
        equal(await r.setrange(key, 6, "Redis"), 11)
        equal(await r.getset(key, "new"), b"Hello Redis")
        equal(await r.getex(key, ex=100), b"new")
        between(await r.ttl(key), 98, 100, "TTL after GETEX EX")
        equal(await r.getex(key, persist=True), b"new")
        equal(await r.ttl(key), -1)
        equal(await r.setex(key, 100, "s"), True)
        equal(await r.psetex(key, 100_000, "p"), True)
        equal(await r.type(key), b"string")
        equal(await r.setbit(key, 7, 1), 0)
        equal(await r.get(key), b"q")
        equal(await r.getbit(key, 7), 1)
        equal(await r.bitcount(key), 4)
        equal(await r.rename(key, other), True)
        equal(await r.exists(key), 0)
        between(await r.ttl(other), 95, 100, "TTL after RENAME")
        equal(await r.copy(other, key), True)
        equal(await r.renamenx(key, other), False)
        equal(await r.getdel(key), b"q")
        equal(await r.getdel(key), None)
        equal(await r.get(key), None)
        equal(await r.delete(other), 1)


async def binary_case(job):
    """Every byte in a value and in a key."""
    every = bytes(range(256)) + b"\r\n$5\r\n\x00"
    key = job.key("binary").encode() + every
    async with client(job) as r:
        equal(await r.set(key, every), True)
        equal(await r.get(key), every)
        equal(await r.strlen(key), len(every))
        equal(await r.append(key, b"\xff\x00"), len(every) + 2)
        equal(await r.get(key), every + b"\xff\x00")
        equal(await r.delete(key), 1)


async def empty_case(job):
    """An empty value is a value; a missing one is nil."""
    key = job.key("empty")
    async with client(job) as r:
        equal(await r.get(key), None)
        equal(await r.strlen(key), 0)
        equal(await r.set(key, b""), True)
        equal(await r.get(key), b"")
        equal(await r.exists(key), 1)
        equal(await r.strlen(key), 0)
        equal(await r.getrange(key, 0, -1), b"")
        equal(await r.append(key, b""), 0)
        equal(await r.delete(key), 1)


async def unicode_case(job):
    """Keys and values outside ASCII."""
    async with client(job) as r:
        for name in ("ключ", "鍵", "🔑 clé", "a\u0301", "مفتاح"):
            key = job.key("unicode", name)
            equal(await r.set(key, name * 3), True)
            equal(await r.get(key), (name * 3).encode())
            equal(await r.strlen(key), len((name * 3).encode()))
            equal(await r.delete(key), 1)


async def big_value(job, case, size):
    """A value of `size` bytes comes back as it went, whole and in part, and can be extended."""
    key, value = job.key(case), pattern(size)
    async with client(job) as r:
        equal(await r.set(key, value), True)
        got = await r.get(key)
        equal(got == value, True, f"the {size} bytes come back ({len(got or b'')} did)")
        equal(await r.strlen(key), size)
        equal(await r.getrange(key, size - 5, -1), value[-5:])
        equal(await r.delete(key), 1)
        equal(await r.get(key), None)


async def one_mib(job):
    """A value of 1 MiB."""
    await big_value(job, "1mib", 1 << 20)


async def large_value(job):
    """A value of 64 MiB."""
    await big_value(job, "64mib", 64 << 20)


async def pipeline_case(job):
    """`many` commands in one pipeline, answered in order; a failing one leaves the others alone."""
    async with client(job) as r:
        pipe = pipeline_of(r)
        half = job.many // 2
        for i in range(half):
            pipe.set(job.spread("pipeline", i), i)
            pipe.get(job.spread("pipeline", i))
        replies = await execute(pipe)
        equal(len(replies), half * 2)
        equal(replies[0::2], [True] * half, "SET replies")
        equal(replies[1::2], [str(i).encode() for i in range(half)], "GET replies")
        pipe = pipeline_of(r)
        key = job.key("pipeline", "mixed")
        pipe.set(key, "text").incr(key).get(key)
        replies = await execute(pipe, raise_on_error=False)
        equal(replies[0], True)
        equal(isinstance(replies[1], redis.ResponseError), True, "INCR of text fails in its place")
        equal(replies[2], b"text")
        pipe = pipeline_of(r)
        for i in range(half):
            pipe.delete(job.spread("pipeline", i))
        equal(sum(await execute(pipe)), half, "deleted")


async def expiry_case(job):
    """Keys go when their time comes; the EXPIRE family with its conditions."""
    key = job.key("expiry")
    async with client(job) as r:
        equal(await r.set(key, "v", px=300), True)
        equal(await r.get(key), b"v")
        await until_gone(r, key)
        equal(await r.exists(key), 0)
        equal(await r.ttl(key), -2)
        equal(await r.expire(key, 10), False)
        equal(await r.set(key, "v"), True)
        equal(await r.ttl(key), -1)
        equal(await r.expire(key, 100, xx=True), False)
        equal(await r.expire(key, 100, nx=True), True)
        equal(await r.expire(key, 50, gt=True), False)
        equal(await r.expire(key, 200, gt=True), True)
        equal(await r.pexpire(key, 100_000, lt=True), True)
        between(await r.pttl(key), 98_000, 100_000, "PTTL after PEXPIRE LT")
        at = int(time.time()) + 500
        equal(await r.expireat(key, at), True)
        equal(await r.expiretime(key), at)
        equal(await r.pexpireat(key, at * 1000 + 5), True)
        equal(await r.pexpiretime(key), at * 1000 + 5)
        equal(await r.persist(key), True)
        equal(await r.persist(key), False)
        equal(await r.expiretime(key), -1)
        equal(await r.expire(key, -1), True)
        equal(await r.get(key), None)


async def until_gone(r, key):
    """Waits until the key has expired, three seconds at most."""
    end = time.monotonic() + 3
    while await r.get(key) is not None:
        if time.monotonic() > end:
            raise AssertionError("the key has not expired")
        await asyncio.sleep(0.02)


async def counters_case(job):
    """INCR and its family, also a thousand at once."""
    key = job.key("counters")
    async with client(job) as r:
        equal(await r.incr(key), 1)
        equal(await r.incrby(key, 41), 42)
        equal(await r.decr(key), 41)
        equal(await r.decrby(key, 100), -59)
        equal(await r.get(key), b"-59")
        equal(await r.set(key, "9223372036854775806"), True)
        equal(await r.incr(key), 9223372036854775807)
        await raises(r.incr(key), "increment or decrement would overflow")
        equal(await r.set(key, "10.5"), True)
        equal(await r.incrbyfloat(key, 0.1), 10.6)
        equal(await r.delete(key), 1)
        pipe = pipeline_of(r)
        for _ in range(1000):
            pipe.incr(key)
        equal(await execute(pipe), list(range(1, 1001)), "a thousand INCR")
        equal(await r.get(key), b"1000")
        equal(await r.delete(key), 1)


async def mget_case(job):
    """MSET, MGET and MSETNX; of any slots for a plain client, of one slot for a cluster driver."""
    name = job.key if is_cluster(job) else job.spread
    keys = [name("mget", i) for i in range(100)]
    async with client(job) as r:
        equal(await r.mset({key: f"v{i}" for i, key in enumerate(keys)}), True)
        values = [f"v{i}".encode() for i in range(100)]
        equal(await r.mget(keys), values)
        equal(await r.mget(keys[0], name("mget", "none"), keys[0]), [b"v0", None, b"v0"])
        equal(await r.msetnx({keys[0]: "x", name("mget", "new"): "x"}), False)
        equal(await r.exists(name("mget", "new")), 0)
        equal(await r.delete(*keys), 100)
        equal(await r.msetnx({keys[0]: "x", keys[1]: "y"}), True)
        equal(await r.delete(*keys), 2)


async def del_exists_case(job):
    """The counts of DEL, UNLINK, EXISTS and TOUCH."""
    name = job.key if is_cluster(job) else job.spread
    a, b, c = (name("del", i) for i in "abc")
    async with client(job) as r:
        await r.mset({a: 1, b: 2, c: 3})
        equal(await r.exists(a, b, c, name("del", "none")), 3)
        equal(await r.exists(a, a), 2, "EXISTS of one key twice")
        equal(await r.touch(a, b, name("del", "none")), 2)
        equal(await r.delete(a, name("del", "none")), 1)
        equal(await r.delete(a), 0)
        equal(await r.delete(b, b), 1, "DEL of one key twice")
        equal(await r.unlink(c), 1)
        equal(await r.exists(a, b, c), 0)


async def scan_case(job):
    """SCAN finds each of `many` keys: exactly once for a plain client, while others are not of its pattern.

    A cluster driver asks every primary and merges; as every Gyre node answers for the whole cluster, it sees
    keys more than once, which SCAN allows.
    """
    expected = {job.spread("scan", i).encode() for i in range(job.many)}
    async with client(job) as r:
        pipe = pipeline_of(r)
        for key in expected:
            pipe.set(key, "v")
        await execute(pipe)
        found = await scan_all(r, job.spread("scan", "*"))
        equal(len(set(found)), len(expected), "different keys found")
        equal(set(found) == expected, True, "the keys found are the keys written")
        if not is_cluster(job):
            equal(len(found), len(expected), "keys found, with repetitions")
        pipe = pipeline_of(r)
        for key in expected:
            pipe.execute_command("UNLINK", key)  # `unlink` of the asyncio cluster pipeline queues nothing
        equal(sum(await execute(pipe)), len(expected), "unlinked")
        equal(await scan_all(r, job.spread("scan", "*")), [], "after unlinking")


async def scan_all(r, match):
    """Every key that `scan_iter` yields."""
    if isinstance(r, Blocking):
        return list(r.inner.scan_iter(match=match, count=1000))
    return [key async for key in r.scan_iter(match=match, count=1000)]


async def errors_case(job):
    """Redis's error texts, and a connection that goes on after each."""
    key = job.key("errors")
    async with client(job) as r:
        await r.set(key, "text")
        await raises(r.incr(key), "value is not an integer or out of range")
        await raises(r.incrbyfloat(key, 1.0), "value is not a valid float")
        await raises(r.execute_command("SET", key, "v", "BOGUS"), "syntax error")
        await raises(r.execute_command("SET", key, "v", "EX", "0"), "invalid expire time in 'set' command")
        await raises(r.execute_command("SET", key, "v", "NX", "XX"), "syntax error")
        await raises(r.execute_command("GET", key, "more"), "wrong number of arguments for 'get' command")
        await raises(r.execute_command("SETRANGE", key, "-1", "v"), "offset is out of range")
        await raises(r.rename(job.key("errors", "none"), key), "no such key")
        equal(await r.get(key), b"text")
        equal(await r.delete(key), 1)


async def unknown_case(job):
    """An unknown command is an error reply; the connection stays the same."""
    async with client(job) as r:
        target = {}
        if is_cluster(job):
            await r.ping()
            inner = r.inner if isinstance(r, Blocking) else r
            target = {"target_nodes": inner.get_nodes()[0]}
        before = await r.client_id(**target)
        await raises(r.execute_command("FOO.BAR", "x", **target), "unknown command 'FOO.BAR'")
        await raises(r.execute_command("CLIENT NOSUCH", **target), "unknown subcommand 'NOSUCH'")
        equal(await r.client_id(**target), before, "CLIENT ID after unknown commands")


async def reconnect_case(job):
    """After CLIENT KILL of its own connection the client works again by itself, on a new connection."""
    key = job.key("reconnect")
    async with client(job) as r:
        equal(await r.set(key, "v"), True)
        target = {}
        if is_cluster(job):
            inner = r.inner if isinstance(r, Blocking) else r
            target = {"target_nodes": inner.get_node_from_key(key)}
        before = await r.client_id(**target)
        killed = r.execute_command("CLIENT KILL", "ID", before, "SKIPME", "no", **target)
        equal(int(await killed), 1, "CLIENT KILL")
        equal(await eventually(lambda: r.get(key)), b"v")
        after = await eventually(lambda: r.client_id(**target))
        equal(after != before, True, "a new connection")
        equal(await r.delete(key), 1)


async def eventually(ask):
    """The answer, asked again for five seconds at most while the connection is gone."""
    end = time.monotonic() + 5
    while True:
        try:
            return await ask()
        except redis.ConnectionError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


async def databases_case(job):
    """SELECT separates keys; FLUSHDB empties one database (only where the servers belong to the run)."""
    key = job.key("databases")
    async with client(job) as zero, client(job, db=9) as nine:
        await zero.set(key, "0")
        equal(await nine.get(key), None)
        equal(await nine.set(key, "9"), True)
        equal(await zero.get(key), b"0")
        equal(await nine.get(key), b"9")
        between(await nine.dbsize(), 1, 1 << 62, "DBSIZE of database 9")
        if job.flush:
            equal(await nine.flushdb(), True)
            equal(await nine.dbsize(), 0, "DBSIZE after FLUSHDB")
            equal(await nine.get(key), None)
            equal(await nine.set(key, "again"), True)
            equal(await nine.get(key), b"again", "a write after FLUSHDB")
        equal(await nine.delete(key), 1)
        equal(await zero.get(key), b"0", "database 0 is left alone")
        equal(await zero.delete(key), 1)
        await raises(zero.execute_command("SELECT", "99"), "DB index is out of range")


async def nodes_case(job):
    """What one node acknowledged every node answers."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(job, address)) for address in job.nodes]
        for i, writer in enumerate(clients):
            for j in range(10):
                key = job.spread("nodes", f"{i}:{j}")
                equal(await writer.set(key, f"{i}-{j}"), True)
                for reader in clients:
                    equal(await reader.get(key), f"{i}-{j}".encode())
            counter = job.spread("nodes", "counter")
            equal([await each.incr(counter) for each in clients], [i * 3 + n for n in (1, 2, 3)])
        for reader in clients:
            equal(await reader.get(counter), b"9")
        equal(await clients[0].delete(counter), 1)
        for i in range(len(clients)):
            equal(await clients[-1].delete(*[job.spread("nodes", f"{i}:{j}") for j in range(10)]), 10)


run({
    "connect": connect_case, "set": set_case, "strings": strings_case, "binary": binary_case,
    "empty": empty_case, "unicode": unicode_case, "1mib": one_mib, "64mib": large_value,
    "pipeline": pipeline_case, "expiry": expiry_case, "counters": counters_case, "mget-mset": mget_case,
    "del-exists": del_exists_case, "scan": scan_case, "errors": errors_case, "unknown": unknown_case,
    "reconnect": reconnect_case, "databases": databases_case, "nodes": nodes_case,
})  # fmt: skip
