'use strict';
// The shared workload for both Node clients. `open(job, address, db)` gives a face of the client:
//   COMMAND(…)            the client's own method of that name (arrays for lists of keys, an object for MSET)
//   setWith(key, value, options), getexWith(key, options)   options as { EX: 10, NX: true }
//   buffer(key)           GET as a Buffer
//   call(key, ...words)   a raw command, routed by key
//   pipeline(commands)    the replies in order, errors as Error values
//   scan(match)           every key
//   own(words)            a raw command on the connection that serves the entry node
//   nodes()               clients of every node a cluster driver found
//   close()

const { equal, between, sleep, eventually } = require('./runner.js');

/** The cases by name, for clients opened by `open`; `cluster(job)` says whether it is a cluster driver. */
function workload(open, cluster) {
  const withClient = (body) => async (job) => {
    const c = await open(job, job.entry, 0);
    try {
      await body(c, job);
    } finally {
      await c.close();
    }
  };
  const cases = {
    connect: (c, job) => connect(c, job, cluster(job)),
    set, strings, binary, empty, unicode, pipeline, expiry, counters,
    '1mib': (c, job) => bigValue(c, job.key('1mib'), 1 << 20),
    '64mib': (c, job) => bigValue(c, job.key('64mib'), 64 << 20),
    'mget-mset': (c, job) => mget(c, job, cluster(job) ? job.key : job.spread),
    'del-exists': (c, job) => delExists(c, job, cluster(job) ? job.key : job.spread),
    scan: (c, job) => scan(c, job, cluster(job)),
    errors, unknown, reconnect,
    databases: (c, job) => databases(c, job, open),
    nodes: (c, job) => nodes(job, open),
  };
  return Object.fromEntries(Object.entries(cases).map(([name, body]) => [name, withClient(body)]));
}

/** Fails unless the promise is refused with a message that begins with `text`. */
async function refuses(promise, text) {
  let reply;
  try {
    reply = await promise;
  } catch (error) {
    if (!error.message.startsWith(text)) throw new Error(`expected an error ${text}, got ${error.message}`);
    return;
  }
  throw new Error(`expected an error ${text}, got ${JSON.stringify(reply)}`);
}

async function connect(c, job, isCluster) {
  if (isCluster) {
    const found = await c.nodes();
    equal(found.length, 3, 'nodes that the driver found');
    for (const node of found) equal(await node.ping(), 'PONG');
    return;
  }
  equal(await c.PING(), 'PONG');
  equal(await c.ECHO('a\r\nb ✓'), 'a\r\nb ✓');
  const info = await c.INFO();
  equal(/redis_version:7\./.test(info), true, 'redis_version:7 in INFO');
  equal(/role:master/.test(info), true, 'role:master in INFO');
  between(await c.DBSIZE(), 0, 2 ** 53, 'DBSIZE');
}

async function set(c, job) {
  const key = job.key('set', 'k');
  const at = Math.floor(Date.now() / 1000) + 200;
  equal(await c.SET(key, '1'), 'OK');
  equal(await c.GET(key), '1');
  equal(await c.TTL(key), -1);
  equal(await c.setWith(key, '2', { EX: 100 }), 'OK');
  between(await c.TTL(key), 98, 100, 'TTL after EX 100');
  equal(await c.setWith(key, '3', { PX: 100_000 }), 'OK');
  between(await c.PTTL(key), 98_000, 100_000, 'PTTL after PX 100000');
  equal(await c.setWith(key, '4', { EXAT: at }), 'OK');
  equal(await c.EXPIRETIME(key), at);
  equal(await c.setWith(key, '5', { PXAT: at * 1000 + 7 }), 'OK');
  equal(await c.PEXPIRETIME(key), at * 1000 + 7);
  equal(await c.setWith(key, '6', { KEEPTTL: true }), 'OK');
  equal(await c.PEXPIRETIME(key), at * 1000 + 7, 'PEXPIRETIME after KEEPTTL');
  equal(await c.setWith(key, '7', { NX: true }), null, 'SET NX of a present key');
  equal(await c.setWith(key, '8', { XX: true }), 'OK');
  equal(await c.TTL(key), -1, 'TTL after a plain SET');
  equal(await c.setWith(key, '9', { GET: true }), '8');
  equal(await c.setWith(key, '10', { NX: true, GET: true }), '9', 'SET NX GET of a present key');
  equal(await c.setWith(key, '11', { PX: 50_000, XX: true, GET: true }), '9');
  between(await c.PTTL(key), 48_000, 50_000, 'PTTL after PX XX GET');
  equal(await c.DEL(key), 1);
  equal(await c.setWith(key, '12', { XX: true }), null, 'SET XX of a missing key');
  equal(await c.setWith(key, '13', { GET: true }), null, 'SET GET of a missing key');
  equal(await c.DEL(key), 1);
  equal(await c.setWith(key, '14', { EX: 10, NX: true }), 'OK');
  equal(await c.GET(key), '14');
  equal(await c.DEL(key), 1);
}

async function strings(c, job) {
  const [key, other] = [job.key('strings', 'k'), job.key('strings', 'other')];
  equal(Number(await c.SETNX(key, 'Hello')), 1);
  equal(Number(await c.SETNX(key, 'no')), 0);
  equal(await c.APPEND(key, ' World'), 11);
  equal(await c.STRLEN(key), 11);
  equal(await c.GETRANGE(key, -5, -1), 'World');
  equal(await c.SETRANGE(key, 6, 'Redis'), 11);
  equal(await c.getexWith(key, { EX: 100 }), 'Hello Redis');
  between(await c.TTL(key), 98, 100, 'TTL after GETEX EX');
  equal(await c.getexWith(key, { PERSIST: true }), 'Hello Redis');
  equal(await c.TTL(key), -1);
  equal(await c.SETEX(key, 100, 's'), 'OK');
  equal(await c.PSETEX(key, 100_000, 'p'), 'OK');
  equal(await c.TYPE(key), 'string');
  equal(await c.SETBIT(key, 7, 1), 0);
  equal(await c.GETBIT(key, 7), 1);
  equal(await c.BITCOUNT(key), 4);
  equal(await c.RENAME(key, other), 'OK');
  equal(Number(await c.COPY(other, key)), 1);
  equal(Number(await c.RENAMENX(key, other)), 0);
  equal(await c.GETDEL(key), 'q');
  equal(await c.GETDEL(key), null);
  equal(await c.DEL(other), 1);
}

async function binary(c, job) {
  const every = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, i) => i)), Buffer.from('\r\n$5\r\n\0')]);
  const key = Buffer.concat([Buffer.from(job.key('binary')), every]);
  equal(await c.SET(key, every), 'OK');
  equal(await c.buffer(key), every);
  equal(await c.STRLEN(key), every.length);
  equal(await c.DEL(key), 1);
}

async function empty(c, job) {
  const key = job.key('empty');
  equal(await c.GET(key), null);
  equal(await c.SET(key, ''), 'OK');
  equal(await c.GET(key), '');
  equal(await c.EXISTS(key), 1);
  equal(await c.STRLEN(key), 0);
  equal(await c.DEL(key), 1);
}

async function unicode(c, job) {
  for (const name of ['ключ', '鍵', '🔑 clé', 'a\u0301']) {
    const key = job.key('unicode', name);
    equal(await c.SET(key, name), 'OK');
    equal(await c.GET(key), name);
    equal(await c.STRLEN(key), Buffer.byteLength(name));
    equal(await c.DEL(key), 1);
  }
}

async function bigValue(c, key, size) {
  const value = Buffer.alloc(size);
  for (let i = 0; i < 65_537; i += 1) value[i] = (i * 7 + (i >> 8) * 13) & 0xff;
  for (let done = 65_537; done < size; done *= 2) value.copy(value, done, 0, Math.min(done, size - done));
  equal(await c.SET(key, value), 'OK');
  equal(await c.buffer(key), value, 'the value that comes back');
  equal(await c.STRLEN(key), size);
  equal(await c.DEL(key), 1);
}

async function pipeline(c, job) {
  const half = job.many / 2;
  const commands = [];
  for (let i = 0; i < half; i += 1) {
    const key = job.spread('pipeline', i);
    commands.push(['SET', key, String(i)], ['GET', key]);
  }
  const replies = await c.pipeline(commands);
  equal(replies.length, half * 2, 'replies');
  replies.forEach((reply, i) => equal(reply, i % 2 === 0 ? 'OK' : String((i - 1) / 2), `reply ${i}`));
  const key = job.key('pipeline', 'mixed');
  const mixed = await c.pipeline([['SET', key, 'text'], ['INCR', key], ['GET', key], ['DEL', key]]);
  equal(mixed[1] instanceof Error, true, 'INCR of text fails in its place');
  equal([mixed[0], mixed[2], mixed[3]], ['OK', 'text', 1]);
  const deleted = await c.pipeline(Array.from({ length: half }, (_, i) => ['DEL', job.spread('pipeline', i)]));
  equal(deleted.reduce((sum, n) => sum + n, 0), half, 'deleted');
}

async function expiry(c, job) {
  const key = job.key('expiry');
  equal(await c.setWith(key, 'v', { PX: 300 }), 'OK');
  const end = Date.now() + 3_000;
  while ((await c.GET(key)) !== null) {
    between(Date.now(), 0, end, 'the key has not expired by');
    await sleep(20);
  }
  equal(await c.TTL(key), -2);
  equal(await c.EXPIRE(key, 10), 0);
  equal(await c.SET(key, 'v'), 'OK');
  equal(await c.EXPIRE(key, 100, 'XX'), 0);
  equal(await c.EXPIRE(key, 100, 'NX'), 1);
  equal(await c.EXPIRE(key, 50, 'GT'), 0);
  equal(await c.PEXPIRE(key, 50_000, 'LT'), 1);
  between(await c.PTTL(key), 48_000, 50_000, 'PTTL after PEXPIRE LT');
  const at = Math.floor(Date.now() / 1000) + 500;
  equal(await c.EXPIREAT(key, at), 1);
  equal(await c.EXPIRETIME(key), at);
  equal(await c.PEXPIREAT(key, at * 1000 + 5), 1);
  equal(await c.PEXPIRETIME(key), at * 1000 + 5);
  equal(await c.PERSIST(key), 1);
  equal(await c.TTL(key), -1);
  equal(await c.EXPIRE(key, -1), 1);
  equal(await c.EXISTS(key), 0);
}

async function counters(c, job) {
  const key = job.key('counters');
  equal(await c.INCR(key), 1);
  equal(await c.INCRBY(key, 41), 42);
  equal(await c.DECR(key), 41);
  equal(await c.DECRBY(key, 100), -59);
  equal(await c.INCRBYFLOAT(key, 0.5), '-58.5');
  equal(await c.SET(key, '9223372036854775807'), 'OK');
  await refuses(c.INCR(key), 'ERR increment or decrement would overflow');
  equal(await c.DEL(key), 1);
  const replies = await Promise.all(Array.from({ length: 500 }, () => c.INCR(key)));
  equal(replies.sort((a, b) => a - b), Array.from({ length: 500 }, (_, i) => i + 1), 'five hundred INCR at once');
  equal(await c.DEL(key), 1);
}

async function mget(c, job, name) {
  const keys = Array.from({ length: 100 }, (_, i) => name('mget', i));
  equal(await c.MSET(Object.fromEntries(keys.map((key, i) => [key, `v${i}`]))), 'OK');
  equal(await c.MGET(keys), keys.map((_, i) => `v${i}`));
  equal(await c.MGET([keys[0], name('mget', 'none'), keys[0]]), ['v0', null, 'v0']);
  equal(Number(await c.MSETNX({ [keys[0]]: 'x', [name('mget', 'new')]: 'x' })), 0);
  equal(await c.EXISTS(name('mget', 'new')), 0);
  equal(await c.DEL(keys), 100);
}

async function delExists(c, job, name) {
  const [a, b, d, none] = ['a', 'b', 'c', 'none'].map((each) => name('del', each));
  equal(await c.MSET({ [a]: '1', [b]: '2', [d]: '3' }), 'OK');
  equal(await c.EXISTS([a, b, d, none]), 3);
  equal(await c.EXISTS([a, a]), 2, 'EXISTS of one key twice');
  equal(await c.TOUCH([a, b, none]), 2);
  equal(await c.DEL([a, none]), 1);
  equal(await c.DEL([b, b]), 1, 'DEL of one key twice');
  equal(await c.UNLINK([d]), 1);
  equal(await c.EXISTS([a, b, d]), 0);
}

async function scan(c, job, isCluster) {
  const expected = new Set(Array.from({ length: job.many }, (_, i) => job.spread('scan', i)));
  await c.pipeline([...expected].map((key) => ['SET', key, 'v']));
  const found = await c.scan(job.spread('scan', '*'));
  equal(new Set(found).size, expected.size, 'different keys found');
  equal(found.every((key) => expected.has(key)), true, 'only keys of the pattern');
  // A cluster driver asks every primary; every Gyre node answers for the whole cluster.
  if (!isCluster) equal(found.length, expected.size, 'keys found, with repetitions');
  const unlinked = await c.pipeline([...expected].map((key) => ['UNLINK', key]));
  equal(unlinked.reduce((sum, n) => sum + n, 0), expected.size, 'unlinked');
}

async function errors(c, job) {
  const key = job.key('errors');
  equal(await c.SET(key, 'text'), 'OK');
  await refuses(c.INCR(key), 'ERR value is not an integer or out of range');
  await refuses(c.INCRBYFLOAT(key, 1), 'ERR value is not a valid float');
  await refuses(c.call(key, 'SET', key, 'v', 'BOGUS'), 'ERR syntax error');
  await refuses(c.call(key, 'SET', key, 'v', 'EX', '0'), "ERR invalid expire time in 'set' command");
  await refuses(c.call(key, 'GET', key, 'more'), "ERR wrong number of arguments for 'get' command");
  await refuses(c.SETRANGE(key, -1, 'v'), 'ERR offset is out of range');
  await refuses(c.RENAME(job.key('errors', 'none'), key), 'ERR no such key');
  equal(await c.GET(key), 'text');
  equal(await c.DEL(key), 1);
}

async function unknown(c) {
  const before = await c.own(['CLIENT', 'ID']);
  await refuses(c.own(['FOO.BAR', 'x']), "ERR unknown command 'FOO.BAR'");
  await refuses(c.own(['CLIENT', 'NOSUCH']), "ERR unknown subcommand 'NOSUCH'");
  equal(await c.own(['CLIENT', 'ID']), before, 'CLIENT ID after unknown commands');
}

async function reconnect(c, job) {
  const key = job.key('reconnect');
  equal(await c.SET(key, 'v'), 'OK');
  const before = await c.own(['CLIENT', 'ID']);
  equal(await c.own(['CLIENT', 'KILL', 'ID', String(before), 'SKIPME', 'no']), 1, 'CLIENT KILL');
  const after = await eventually(() => c.own(['CLIENT', 'ID']));
  equal(after !== before, true, 'a new connection');
  equal(await eventually(() => c.GET(key)), 'v');
  equal(await c.DEL(key), 1);
}

async function databases(zero, job, open) {
  const key = job.key('databases');
  const nine = await open(job, job.entry, 9);
  try {
    equal(await zero.SET(key, '0'), 'OK');
    equal(await nine.GET(key), null);
    equal(await nine.SET(key, '9'), 'OK');
    equal(await zero.GET(key), '0');
    if (job.flush) {
      equal(await nine.FLUSHDB(), 'OK');
      equal(await nine.DBSIZE(), 0, 'DBSIZE after FLUSHDB');
    }
    equal(await nine.DEL(key), job.flush ? 0 : 1);
    equal(await zero.DEL(key), 1);
  } finally {
    await nine.close();
  }
}

async function nodes(job, open) {
  const clients = await Promise.all(job.nodes.map((address) => open(job, address, 0)));
  try {
    for (const [i, writer] of clients.entries()) {
      const key = job.spread('nodes', i);
      equal(await writer.SET(key, String(i)), 'OK');
      for (const reader of clients) equal(await reader.GET(key), String(i));
      equal(await clients[(i + 1) % clients.length].DEL(key), 1);
      for (const reader of clients) equal(await reader.EXISTS(key), 0);
    }
  } finally {
    await Promise.all(clients.map((each) => each.close()));
  }
}

module.exports = { workload };
