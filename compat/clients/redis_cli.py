"""redis-cli: the shared workload as commands of a shell, and the modes that users know it for."""

import os
import subprocess
import time

from harness.resp import encode, split
from harness.runner import between, equal, pattern, run
from harness.terminal import Terminal

SECONDS = 35


class Cli:
    """redis-cli towards one node; every call is a process of its own."""

    def __init__(self, address, *options):
        host, port = split(address)
        self.command = ["redis-cli", "-h", host, "-p", str(port), *options]

    def raw(self, *arguments, stdin=None, status=0):
        """What `redis-cli arguments…` prints, as bytes; fails on another exit status."""
        source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        command = self.command + [each if isinstance(each, bytes) else str(each) for each in arguments]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, **source)
        if done.returncode != status:
            raise AssertionError(f"status {done.returncode} of {arguments!r:.100}: {done.stderr!r} {done.stdout!r:.200}")
        return done.stdout

    def __call__(self, *arguments, **options):
        """The same as text without the newline at the end."""
        return self.raw(*arguments, **options).decode().removesuffix("\n")

    def lines(self, *commands):
        """The output lines of commands given to one process on its standard input."""
        return self.raw(stdin="\n".join(commands).encode() + b"\n").decode().splitlines()


def connect(job):
    """PING, ECHO, INFO, TIME on the command line."""
    cli = Cli(job.entry)
    equal(cli("PING"), "PONG")
    equal(cli("PING", "hello world"), "hello world")
    equal(cli("ECHO", "a ✓ b"), "a ✓ b")
    info = dict(line.split(":", 1) for line in cli("INFO").splitlines() if ":" in line)
    equal(info["redis_version"].split(".")[0], "7", "major redis_version")
    equal(info["role"], "master", "role")
    between(int(cli("TIME").splitlines()[0]), time.time() - 60, time.time() + 60, "TIME")
    equal(cli.lines("CLIENT SETNAME compat", "CLIENT GETNAME"), ["OK", "compat"])


def set_options(job):
    """Every option of SET."""
    cli, key = Cli(job.entry), job.key("set", "k")
    at = int(time.time()) + 200
    equal(cli("SET", key, "1"), "OK")
    equal(cli("TTL", key), "-1")
    equal(cli("SET", key, "2", "EX", 100), "OK")
    between(int(cli("TTL", key)), 97, 100, "TTL after EX")
    equal(cli("SET", key, "3", "PX", 100_000), "OK")
    between(int(cli("PTTL", key)), 97_000, 100_000, "PTTL after PX")
    equal(cli("SET", key, "4", "EXAT", at), "OK")
    equal(cli("EXPIRETIME", key), str(at))
    equal(cli("SET", key, "5", "PXAT", at * 1000 + 7), "OK")
    equal(cli("PEXPIRETIME", key), str(at * 1000 + 7))
    equal(cli("SET", key, "6", "KEEPTTL"), "OK")
    equal(cli("PEXPIRETIME", key), str(at * 1000 + 7))
    equal(cli("SET", key, "7", "NX"), "")
    equal(cli("SET", key, "8", "XX"), "OK")
    equal(cli("TTL", key), "-1")
    equal(cli("SET", key, "9", "GET"), "8")
    equal(cli("SET", key, "10", "NX", "GET"), "9")
    equal(cli("SET", key, "11", "XX", "GET", "PX", 50_000), "9")
    equal(cli("GET", key), "11")
    equal(cli("DEL", key), "1")
    equal(cli("SET", key, "12", "XX"), "")
    equal(cli("SET", key, "13", "GET"), "")
    equal(cli("DEL", key), "1")
    equal(cli("SET", key, "14", "NX", "EX", 10), "OK")
    equal(cli("DEL", key), "1")


def strings(job):
    """The other string commands, in one process each."""
    cli, key, other = Cli(job.entry), job.key("strings", "k"), job.key("strings", "o")
    equal(cli("SETNX", key, "Hello"), "1")
    equal(cli("APPEND", key, " World"), "11")
    equal(cli("STRLEN", key), "11")
    equal(cli("GETRANGE", key, -5, -1), "World")
    equal(cli("SETRANGE", key, 6, "Redis"), "11")
    equal(cli("GETSET", key, "ohmytext"), "Hello Redis")
    equal(cli("SET", other, "mynewtext"), "OK")
    equal(cli("LCS", key, other), "mytext")
    equal(cli("GETEX", key, "EX", 100), "ohmytext")
    equal(cli("GETEX", key, "PERSIST"), "ohmytext")
    equal(cli("TTL", key), "-1")
    equal(cli("TYPE", key), "string")
    equal(cli("DEL", other), "1")
    equal(cli("RENAME", key, other), "OK")
    equal(cli("COPY", other, key), "1")
    equal(cli("GETDEL", key), "ohmytext")
    equal(cli("GETDEL", other), "ohmytext")
    equal(cli("EXISTS", key, other), "0")


def binary(job):
    """`-x` sends standard input as it is; the output has every byte."""
    cli, key, every = Cli(job.entry), job.key("binary"), bytes(range(256)) + b"\r\n\x00"
    equal(cli("-x", "SET", key, stdin=every), "OK")
    equal(cli.raw("GET", key), every + b"\n")
    equal(cli("STRLEN", key), str(len(every)))
    equal(cli("DEL", key), "1")


def empty(job):
    """An empty value is a value."""
    cli, key = Cli(job.entry, "--no-raw"), job.key("empty")
    equal(cli("GET", key), "(nil)")
    equal(cli("SET", key, ""), "OK")
    equal(cli("GET", key), '""')
    equal(cli("EXISTS", key), "(integer) 1")
    equal(cli("DEL", key), "(integer) 1")


def unicode(job):
    """Keys and values outside ASCII."""
    cli = Cli(job.entry)
    for name in ("ключ", "鍵", "🔑 clé"):
        key = job.key("unicode", name)
        equal(cli("SET", key, name), "OK")
        equal(cli("GET", key), name)
        equal(cli("DEL", key), "1")


def big_value(job, case, size):
    """A value through `-x` and back through standard output."""
    cli, key, value = Cli(job.entry), job.key(case), pattern(size)
    equal(cli("-x", "SET", key, stdin=value), "OK")
    equal(cli("STRLEN", key), str(size))
    equal(cli.raw("GET", key) == value + b"\n", True, "the value comes back")
    equal(cli("DEL", key), "1")


def one_mib(job):
    """A value of 1 MiB."""
    big_value(job, "1mib", 1 << 20)


def large_value(job):
    """A value of 64 MiB."""
    big_value(job, "64mib", 64 << 20)


def pipe(job):
    """Mass insertion with `--pipe`: raw protocol on standard input."""
    cli = Cli(job.entry)
    commands = [("SET", job.spread("pipeline", i), f"v{i}") for i in range(job.many)]
    text = cli("--pipe", stdin=b"".join(map(encode, commands)))
    equal(text.splitlines()[-1], f"errors: 0, replies: {job.many}")
    equal(cli("GET", job.spread("pipeline", job.many - 1)), f"v{job.many - 1}")
    commands = [("DEL", job.spread("pipeline", i)) for i in range(job.many)]
    text = cli("--pipe", stdin=b"".join(map(encode, [*commands, ("NOSUCH",)])), status=1)
    equal(text.splitlines()[-1], f"errors: 1, replies: {job.many + 1}")


def expiry(job):
    """Keys go when their time comes; the EXPIRE family with its conditions."""
    cli, key = Cli(job.entry), job.key("expiry")
    equal(cli("SET", key, "v", "PX", 300), "OK")
    end = time.monotonic() + 3
    while cli("EXISTS", key) == "1":
        between(time.monotonic(), 0, end, "the key has not expired by")
    equal(cli.lines(f"TTL {key}", f"GET {key}", f"EXPIRE {key} 10"), ["-2", "", "0"])
    equal(cli("SET", key, "v"), "OK")
    commands = ("100 XX", "100 NX", "50 GT", "200 GT", "150 LT")
    equal(cli.lines(*(f"EXPIRE {key} {each}" for each in commands)), ["0", "1", "0", "1", "1"])
    between(int(cli("TTL", key)), 147, 150, "TTL")
    equal(cli.lines(f"PERSIST {key}", f"TTL {key}", f"EXPIREAT {key} 1", f"EXISTS {key}"), ["1", "-1", "1", "0"])


def counters(job):
    """INCR and its family; `-r` repeats."""
    cli, key = Cli(job.entry), job.key("counters")
    equal(cli("INCR", key), "1")
    equal(cli("INCRBY", key, 41), "42")
    equal(cli("DECRBY", key, 100), "-58")
    equal(cli("INCRBYFLOAT", key, "0.5"), "-57.5")
    equal(cli("DEL", key), "1")
    equal(cli("-r", 100, "INCR", key).splitlines(), [str(i) for i in range(1, 101)])
    equal(cli("DEL", key), "1")


def mget(job):
    """MSET and MGET of keys in many slots."""
    cli, keys = Cli(job.entry), [job.spread("mget", i) for i in range(20)]
    equal(cli("MSET", *(word for i, key in enumerate(keys) for word in (key, i))), "OK")
    equal(cli("MGET", *keys).splitlines(), [str(i) for i in range(20)])
    equal(Cli(job.entry, "--no-raw")("MGET", keys[3], "none:" + keys[0]), '1) "3"\n2) (nil)')
    equal(cli("MSETNX", keys[0], "x", "new:" + keys[0], "x"), "0")
    equal(cli("DEL", *keys), "20")


def del_exists(job):
    """The counts of DEL, UNLINK, EXISTS and TOUCH."""
    cli, (a, b, c) = Cli(job.entry), (job.spread("del", i) for i in "abc")
    equal(cli("MSET", a, 1, b, 2, c, 3), "OK")
    equal(cli("EXISTS", a, b, c, a, "none:" + a), "4")
    equal(cli("TOUCH", a, b, "none:" + a), "2")
    equal(cli("DEL", a, a, b, "none:" + a), "2")
    equal(cli("UNLINK", b, c), "1")
    equal(cli("EXISTS", a, b, c), "0")


def scan(job):
    """`--scan --pattern` prints each of `many` keys once."""
    cli = Cli(job.entry)
    keys = {job.spread("scan", i) for i in range(job.many)}
    cli("--pipe", stdin=b"".join(encode(("SET", key, "v")) for key in keys))
    found = cli("--scan", "--pattern", job.spread("scan", "*")).splitlines()
    equal(len(found), job.many, "keys printed")
    equal(set(found) == keys, True, "the keys printed are the keys written")
    cli("--pipe", stdin=b"".join(encode(("UNLINK", key)) for key in keys))
    equal(cli("--scan", "--pattern", job.spread("scan", "*")), "")


def errors(job):
    """Redis's error texts; with `-e` they give an exit status."""
    cli, key = Cli(job.entry), job.key("errors")
    equal(cli("SET", key, "text"), "OK")
    for command, text in (
        (("INCR", key), "ERR value is not an integer or out of range"),
        (("SET", key, "v", "BOGUS"), "ERR syntax error"),
        (("SET", key, "v", "EX", "0"), "ERR invalid expire time in 'set' command"),
        (("GET",), "ERR wrong number of arguments for 'get' command"),
        (("EXPIRE", key, "1", "NX", "GT"), "ERR NX and XX, GT or LT options at the same time are not compatible"),
        (("RENAME", "none:" + key, key), "ERR no such key"),
        (("HELLO", "4"), "NOPROTO unsupported protocol version"),
        (("CLIENT", "NOSUCH"), "ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP."),
    ):  # fmt: skip
        equal(cli(*command).strip(), text)
    done = subprocess.run([*cli.command, "-e", "INCR", key], capture_output=True, check=False, timeout=SECONDS)
    equal(done.returncode, 1, "status with -e")
    equal(cli("DEL", key), "1")


def unknown(job):
    """An unknown command is an error reply; the connection stays the same."""
    found = Cli(job.entry).lines("CLIENT ID", "FOO.BAR x", "CLIENT ID")
    lines = [line for line in found if line]
    equal(lines[1], "ERR unknown command 'FOO.BAR', with args beginning with: 'x' ")
    equal(lines[2], lines[0], "CLIENT ID after an unknown command")


def reconnect(job):
    """After CLIENT KILL of a session's connection it goes on with a new one."""
    first, second = Terminal(Cli(job.entry).command), Cli(job.entry)
    with first:
        first.until("> ")
        before = first.ask("CLIENT ID", "(integer) ").split()[0]
        equal(second("CLIENT", "KILL", "ID", before), "1")
        first.ask("PING", "\n")  # redis-cli 7.0 tells that the connection is gone, and the next command connects
        after = first.ask("CLIENT ID", "(integer) ").split()[0]
        equal(after != before, True, "a new connection")


def databases(job):
    """`-n` and SELECT separate keys."""
    zero, nine, key = Cli(job.entry), Cli(job.entry, "-n", "9"), job.key("databases")
    equal(zero("SET", key, "0"), "OK")
    equal(nine("EXISTS", key), "0")
    equal(nine("SET", key, "9"), "OK")
    equal(zero.lines(f"GET {key}", "SELECT 9", f"GET {key}"), ["0", "OK", "9"])
    if job.flush:
        equal(nine("FLUSHDB"), "OK")
        equal(nine("DBSIZE"), "0")
    equal(nine("DEL", key), "0" if job.flush else "1")
    equal(zero("DEL", key), "1")


def nodes(job):
    """What one node acknowledged every node answers."""
    clis = [Cli(address) for address in job.nodes]
    for i, writer in enumerate(clis):
        key = job.spread("nodes", i)
        equal(writer("SET", key, f"value {i}"), "OK")
        equal([reader("GET", key) for reader in clis], [f"value {i}"] * len(clis))
        equal(clis[(i + 1) % len(clis)]("DEL", key), "1")
        equal([reader("EXISTS", key) for reader in clis], ["0"] * len(clis))


def resp3(job):
    """`-3`: the types of RESP3 as redis-cli prints them."""
    cli, key = Cli(job.entry, "-3", "--no-raw"), job.key("resp3")
    equal(cli("PING"), "PONG")
    equal(cli("GET", key), "(nil)")
    equal(cli("SET", key, "v"), "OK")
    equal(cli("MGET", key, "none:" + key), '1) "v"\n2) (nil)')
    equal("proto" in Cli(job.entry, "-3")("HELLO"), True)
    equal(cli("CONFIG", "GET", "maxmemory-policy").startswith("1# "), True, "CONFIG GET is a map")
    equal(cli("DEL", key), "(integer) 1")


def follow(job):
    """`-c`: any key through any node; a Gyre node answers itself, a Redis node redirects."""
    cli = Cli(job.cluster_entry, "-c")
    for i in range(20):
        key = job.spread("follow", i)
        equal(cli("SET", key, i), "OK")
        equal(cli("GET", key), str(i))
        equal(cli("DEL", key), "1")


def formats(job):
    """`--csv`, `--json`, `--quoted-input`, `-d`, `-X`: output and input formats."""
    key = job.key("formats")
    equal(Cli(job.entry)("-X", "value", "SET", key, "value", stdin=b"from stdin"), "OK")
    equal(Cli(job.entry, "--csv")("MGET", key, "none:" + key), '"from stdin",NULL')
    equal(Cli(job.entry, "-3", "--json")("MGET", key, "none:" + key), '["from stdin",null]')
    equal(Cli(job.entry, "--quoted-input")("SET", f'"{key}"', r'"a\x00b"'), "OK")
    equal(Cli(job.entry, "--no-raw")("GET", key), r'"a\x00b"')
    equal(Cli(job.entry, "-d", ";")("MGET", key, key), "a\0b;a\0b")
    equal(Cli(job.entry)("DEL", key), "1")


def bigkeys(job):
    """`--bigkeys`: SCAN, TYPE, STRLEN over everything."""
    key_report(job, "--bigkeys", "Biggest string found", "has 5000 bytes")


def memkeys(job):
    """`--memkeys`: SCAN, TYPE, MEMORY USAGE over everything."""
    key_report(job, "--memkeys", "Biggest string found", "bytes")


def key_report(job, option, *expected):
    """A report over all keys names the biggest one."""
    cli, keys = Cli(job.entry), [job.spread("report", i) for i in range(100)]
    cli("MSET", *(word for i, key in enumerate(keys) for word in (key, "v" * (5000 if i == 42 else 9))))
    report = cli(option)
    line = next((line for line in report.splitlines() if line.startswith("Biggest string")), report[-300:])
    for text in (*expected, keys[42]):
        equal(text in line, True, f"{text!r} in {line!r}")
    equal(cli("DEL", *keys), "100")


def stat(job):
    """`--stat` prints a line per interval out of INFO; a few, then it is ended."""
    with Terminal([*Cli(job.entry).command, "--stat", "-i", "0.1"]) as terminal:
        terminal.until("keys       mem      clients")
        text = terminal.lines(4)
    rows = [line.split() for line in text if line.strip() and line.split()[0].isdigit()]
    equal(len(rows) >= 3, True, f"lines of --stat: {text}")
    equal(rows[0][1][-1] in "BKMG", True, f"memory in {rows[0]}")


def latency(job):
    """`--latency` for a second."""
    numbers = Cli(job.entry)("--latency", "--csv", "-i", "1").replace(",", " ").split()
    equal(len(numbers), 4, "min, max, avg, samples")
    between(int(numbers[3]), 10, 1 << 40, "samples")


def terminal(job):
    """An interactive session: hints out of COMMAND DOCS, replies, an error, SELECT in the prompt, `help`."""
    key = job.key("terminal")
    with Terminal(Cli(job.entry).command) as session:
        session.until("> ")
        session.ask(f"set {key} 'hello \\x41'", "OK")
        session.ask(f'set {key} "hello \\x41"', "OK")
        session.ask(f"get {key}", '"hello A"')
        session.type("getrange ")
        session.until("key start end")
        session.type("\x15")
        session.ask("nosuch", "(error) ERR unknown command 'nosuch'")
        session.ask(f"del {key}", "(integer) 1")
        session.ask("select 3", "OK")
        session.ask("echo there", '"there"')
        session.ask("help get", "Get the value of a key")
        session.ask("hello 3", '1# "server" => "redis"', prompt="[3]> ")
        session.type("quit\r")
        equal(session.wait(), 0, "status of the session")


os.environ["TERM"] = "xterm"
os.environ["REDISCLI_HISTFILE"] = "/dev/null"
os.environ["REDISCLI_RCFILE"] = "/dev/null"
run({
    "connect": connect, "set": set_options, "strings": strings, "binary": binary, "empty": empty,
    "unicode": unicode, "1mib": one_mib, "64mib": large_value, "pipeline": pipe, "expiry": expiry,
    "counters": counters, "mget-mset": mget, "del-exists": del_exists, "scan": scan, "errors": errors,
    "unknown": unknown, "reconnect": reconnect, "databases": databases, "nodes": nodes, "resp3": resp3,
    "follow": follow, "formats": formats, "bigkeys": bigkeys, "memkeys": memkeys, "stat": stat,
    "latency": latency, "terminal": terminal,
})  # fmt: skip
