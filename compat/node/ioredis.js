'use strict';
// ioredis: plain, and its Cluster driver.

const { Redis, Cluster } = require('ioredis');
const { run } = require('./runner.js');
const { workload } = require('./workload.js');

const isCluster = (job) => job.client === 'ioredis-cluster';

async function open(job, address, db) {
  const [host, port] = address.split(':');
  const client = isCluster(job)
    ? new Cluster([{ host, port: Number(port) }], { lazyConnect: true })
    : new Redis({ host, port: Number(port), db, lazyConnect: true, connectionName: 'compat' });
  client.on('error', () => {}); // a lost connection is reported here too; the client reconnects by itself
  await client.connect();
  return isCluster(job) ? clusterFace(client, job) : plainFace(client);
}

function plainFace(redis) {
  return face(redis, {
    own: (words) => redis.call(...words),
    scan: (match) => scanNode(redis, match),
    pipeline: async (commands) => unpair(await redis.pipeline(lowered(commands)).exec()),
  });
}

function clusterFace(cluster, job) {
  const node = () => cluster.nodes('master').find((each) => `${each.options.host}:${each.options.port}` === job.entry);
  return face(cluster, {
    async own(words) {
      if (!node()) { // ioredis forgets a node whose connection ends, until it learns the slots again
        await new Promise((done) => cluster.refreshSlotsCache(done));
        throw new Error('the driver has forgotten the node');
      }
      return node().call(...words);
    },
    nodes: async () => cluster.nodes('master'),
    scan: async (match) => (await Promise.all(cluster.nodes('master').map((each) => scanNode(each, match)))).flat(),
    async pipeline(commands) { // a Pipeline of ioredis Cluster takes keys of one node only
      const settled = await Promise.allSettled(commands.map((words) => cluster.call(...words)));
      return settled.map((each) => (each.status === 'fulfilled' ? each.value : each.reason));
    },
  });
}

/** The client's own methods under upper-case names, and `extra` ones. */
function face(client, extra) {
  const common = {
    setWith: (key, value, options) => client.set(key, value, ...words(options)),
    getexWith: (key, options) => client.getex(key, ...words(options)),
    buffer: (key) => client.getBuffer(key),
    call: (_key, ...rest) => client.call(...rest),
    close: async () => client.disconnect(),
  };
  return new Proxy({ ...common, ...extra }, {
    get: (own, name) => own[name] || client[String(name).toLowerCase()]?.bind(client),
  });
}

/** `{ EX: 10, NX: true }` as the words of the command. */
function words(options) {
  return Object.entries(options).flatMap(([name, value]) => (value === true ? [name] : [name, value]));
}

function lowered(commands) {
  return commands.map(([name, ...rest]) => [name.toLowerCase(), ...rest]);
}

function unpair(replies) {
  return replies.map(([error, reply]) => error || reply);
}

async function scanNode(redis, match) {
  const found = [];
  for await (const keys of redis.scanStream({ match, count: 1000 })) found.push(...keys);
  return found;
}

run(workload(open, isCluster));
