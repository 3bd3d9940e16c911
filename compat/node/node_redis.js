'use strict';
// node-redis: plain with RESP3 (its default) and RESP2, and its cluster driver.

const { createClient, createCluster, RESP_TYPES } = require('redis');
const { run } = require('./runner.js');
const { workload } = require('./workload.js');

const isCluster = (job) => job.client === 'node-redis-cluster';
const AS_BUFFER = { [RESP_TYPES.BLOB_STRING]: Buffer };

async function open(job, address, database) {
  const client = isCluster(job)
    ? createCluster({ rootNodes: [{ url: `redis://${address}` }] })
    : createClient({ url: `redis://${address}`, database, RESP: job.client.endsWith('resp2') ? 2 : 3 });
  client.on('error', () => {}); // a lost connection is reported here too; the client reconnects by itself
  await client.connect();
  return isCluster(job) ? clusterFace(client, job) : plainFace(client);
}

function plainFace(client) {
  return face(client, {
    call: (_key, ...words) => client.sendCommand(words),
    own: (words) => client.sendCommand(words),
    scan: (match) => scanNode(client, match),
  });
}

function clusterFace(cluster, job) {
  const node = async () => cluster.nodeClient(cluster.masters.find((each) => each.address === job.entry));
  return face(cluster, {
    call: (key, ...words) => cluster.sendCommand(key, false, words),
    own: async (words) => (await node()).sendCommand(words),
    nodes: () => Promise.all(cluster.masters.map((each) => cluster.nodeClient(each))),
    async scan(match) {
      const parts = await Promise.all(cluster.masters.map(async (each) => scanNode(await cluster.nodeClient(each), match)));
      return parts.flat();
    },
  });
}

/** The client's own methods, and `extra` ones. */
function face(client, extra) {
  const common = {
    setWith: (key, value, options) => client.set(key, value, modern(options)),
    getexWith: (key, options) => client.getEx(key, options.PERSIST ? { type: 'PERSIST' } : { type: 'EX', value: options.EX }),
    buffer: (key) => client.withTypeMapping(AS_BUFFER).get(key),
    async pipeline(commands) { // commands of one turn of the event loop travel together
      const settled = await Promise.allSettled(commands.map((words) => extra.call(words[1], ...words)));
      return settled.map((each) => (each.status === 'fulfilled' ? each.value : each.reason));
    },
    SETEX: (...words) => client.setEx(...words),
    close: async () => client.destroy(),
  };
  return new Proxy({ ...common, ...extra }, { get: (own, name) => own[name] || client[name]?.bind(client) });
}

/** `{ EX: 10, NX: true }` in the form that node-redis 5 and later document. */
function modern({ NX, XX, GET, KEEPTTL, ...expiration }) {
  const [type] = Object.keys(expiration);
  return {
    ...(NX && { condition: 'NX' }),
    ...(XX && { condition: 'XX' }),
    ...(GET && { GET }),
    ...(KEEPTTL && { expiration: 'KEEPTTL' }),
    ...(type && { expiration: { type, value: expiration[type] } }),
  };
}

async function scanNode(client, match) {
  const found = [];
  for await (const keys of client.scanIterator({ MATCH: match, COUNT: 1000 })) found.push(...keys);
  return found;
}

run(workload(open, isCluster));
